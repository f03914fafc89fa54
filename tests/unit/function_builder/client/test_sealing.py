import json

import pytest

from function_builder.client import seal_secrets
from function_builder.contract.secrets import SecretsKey, unseal

KEY = SecretsKey.generate()
ANSWER = {"key_id": KEY.key_id, "algorithm": "nacl/box", "public_key": KEY.public}


@pytest.mark.parametrize(
    "public_key",
    [
        ANSWER,
        json.dumps(ANSWER),
        json.dumps(ANSWER).encode(),
        KEY.public,
        f"{KEY.public}\n".encode(),
    ],
    ids=["answer", "JSON", "bytes of JSON", "key", "bytes of a key"],
)
def test_secrets_are_sealed_to_what_the_builder_tells(public_key) -> None:
    sealed = seal_secrets({"text": "é", "bytes": b"\xff\0"}, public_key)
    assert unseal(sealed, KEY) == {"text": "é".encode(), "bytes": b"\xff\0"}
    assert b"\xff\0" not in sealed


@pytest.mark.parametrize("public_key", [{}, "{}", b"[1]", "", b"\xff", "AAAA", {"public_key": "x"}])
def test_what_is_no_key_is_said(public_key) -> None:
    with pytest.raises(ValueError, match=r"no public_key|a key must be base64 of 32 bytes"):
        seal_secrets({"a": "canary"}, public_key)
