"""Sealed secrets, against what faas-cli sealed."""

import base64
import tarfile

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.contract.secrets import SecretsKey, seal, unseal
from tests.support import VECTORS

KEY = SecretsKey.generate()


def sealed_by_faas_cli() -> bytes:
    with tarfile.open(VECTORS / "faas-cli-build-secrets.tar") as archive:
        entry = archive.extractfile("com.openfaas.secrets")
        assert entry is not None
        return entry.read()


def test_what_faas_cli_sealed_opens():
    key = SecretsKey.parse((VECTORS / "build-secrets.key").read_bytes())
    assert key.key_id == "ZDBir4Ug"
    assert key.public == (VECTORS / "build-secrets.key.pub").read_text().strip()
    assert unseal(sealed_by_faas_cli(), key) == {
        "pip_token": b"tok-123",
        "ca.crt": b"line one\nline two\n",
    }


@given(st.dictionaries(st.text("abc._-019", min_size=1), st.binary()))
@settings(deadline=None)
def test_what_we_seal_opens(values):
    assert unseal(seal(values, KEY.public), KEY) == values


def test_the_wrong_key_is_told_apart_by_its_id():
    with pytest.raises(Refusal) as caught:
        unseal(sealed_by_faas_cli(), KEY)
    assert caught.value.status == 400
    assert "ZDBir4Ug" in caught.value.reason
    assert KEY.key_id in caught.value.reason
    assert "ca.crt" in caught.value.reason


def document(**changes: object) -> bytes:
    fields = yaml.safe_load(seal({"token": b"canary-value"}, KEY.public)) | changes
    return yaml.safe_dump(
        {name: value for name, value in fields.items() if value is not None}
    ).encode()


def test_the_key_id_is_a_hint_that_may_be_absent_or_wrong():
    assert unseal(document(key_id=None), KEY) == {"token": b"canary-value"}
    assert unseal(document(key_id="nonsense"), KEY) == {"token": b"canary-value"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not YAML"),
        (b"- a", "mapping"),
        (b"{", "not YAML"),
        (b"\xff\xff\xfe", "not YAML"),
        (b"{[]: 1}", "not YAML"),
        (b"!!python/object/apply:os.system [id]", "mapping"),
        (b"[" * 500_000, "not YAML"),
        # libyaml takes half a minute for as many, all the while holding the interpreter's lock.
        (b"".join(b"%%TAG !%d! x\n" % n for n in range(40_000)) + b"--- a", "not YAML"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "not YAML, or YAML with aliases"),
        (b"x" * (1 << 21), "larger"),
        (document(version="v2"), "version"),
        (document(algorithm="rot13"), "algorithm"),
        (document(public_key="short"), "public_key"),
        (document(public_key=["a"]), "public_key"),
        (document(public_key=base64.b64encode(bytes(32)).decode()), "key pair"),
        (document(secrets=["a"]), "must map"),
        (document(secrets={"a": ["b"]}), "must map"),
        (document(secrets={"token": "not base64!"}), '"token"'),
        (document(secrets={"token": base64.b64encode(b"short").decode()}), '"token"'),
        (document(secrets={"token": base64.b64encode(bytes(80)).decode()}), '"token"'),
    ],
    ids=range(20),
)
def test_what_is_wrong_is_named_and_no_value(data, word):
    with pytest.raises(Refusal) as caught:
        unseal(data, KEY)
    assert caught.value.status == 400
    assert word in caught.value.reason
    assert "canary" not in caught.value.reason


def test_a_builder_without_a_key_says_so():
    with pytest.raises(Refusal, match="no key"):
        unseal(sealed_by_faas_cli(), None)


@pytest.mark.parametrize(
    "text", [b"", b"!", base64.b64encode(bytes(31)), base64.b64encode(bytes(33))]
)
def test_a_malformed_key_is_refused_without_being_said(text):
    with pytest.raises(ValueError, match="base64 of 32 bytes"):
        SecretsKey.parse(text)


def test_a_key_does_not_show_itself():
    assert base64.b64encode(bytes(KEY.private)).decode() not in repr(KEY)


def test_more_lines_than_can_be_hidden_are_refused():
    values = {f"file-{number}": b"line\n" * 250 for number in range(4)}
    assert unseal(seal(values, KEY.public), KEY) == values
    with pytest.raises(Refusal, match="more than 1000 lines") as caught:
        unseal(seal({**values, "one": b"more"}, KEY.public), KEY)
    assert caught.value.status == 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_sealed_secrets_in_utf_16_are_called_that(encoding):
    key = SecretsKey.generate()
    sealed = seal({"a": b"value"}, key.public).decode().encode(encoding)
    with pytest.raises(Refusal, match="UTF-16"):
        unseal(sealed, key)
