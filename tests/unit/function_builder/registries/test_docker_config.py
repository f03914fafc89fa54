"""Which entry of Docker's configuration counts, and what it holds, in each form that is written."""

import base64
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import Credentials
from function_builder.registries.docker_config import HUB_KEY, ConfigError, DockerConfig

HUB = "registry-1.docker.io"


def encoded(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def entry(name: str) -> dict[str, str]:
    return {"auth": encoded(f"{name}:pw")}


def config(**document: object) -> DockerConfig:
    return DockerConfig(json.dumps(document).encode())


def found(auths: Mapping[str, object], host: str, *repositories: str) -> str:
    """The user of the entry that counts; empty: none does."""
    credentials = config(auths=auths).entry(host, repositories)
    return credentials.username if credentials else ""


@pytest.mark.parametrize(
    ("keys", "host", "expected"),
    [
        # The key that `docker login` writes, whatever else is there, in any order.
        (["docker.io", HUB_KEY], HUB, HUB_KEY),
        ([HUB_KEY, "docker.io"], HUB, HUB_KEY),
        (["registry-1.docker.io", "https://docker.io", HUB_KEY], HUB, HUB_KEY),
        (["docker.io"], HUB, "docker.io"),
        (["https://registry-1.docker.io/v2/"], HUB, "https://registry-1.docker.io/v2/"),
        (["http://docker.io/"], HUB, "http://docker.io/"),
        (["hub.docker.io"], HUB, ""),
        (["https://r:5000/v1/", "r:5000"], "r:5000", "r:5000"),
        (["https://r:5000/v1/", "http://r:5000"], "r:5000", "https://r:5000/v1/"),
        (["r:5000/org", "https://r:5000/v2"], "r:5000", "https://r:5000/v2"),
        # As docker takes them: any key with the host in it.
        (["r:5000/org"], "r:5000", "r:5000/org"),
        (["r"], "r:5000", ""),
        (["r:5000"], "r", ""),
        (["xr"], "r", ""),
        (["[::1]:5000"], "[::1]:5000", "[::1]:5000"),
    ],
)
def test_which_key_counts(keys, host, expected):
    auths = {key: {"username": key, "password": "pw"} for key in keys}
    assert found(auths, host) == expected


@pytest.mark.parametrize(
    "empty", [{}, None, {"auth": ""}, {"auth": encoded(":")}, {"email": "a@b"}, {"username": "u"}]
)
@pytest.mark.parametrize("host", [HUB, "r:5000"])
def test_empty_entries_are_passed_over(empty, host):
    exact, url = (HUB_KEY, "docker.io") if host == HUB else (host, f"https://{host}")
    assert found({exact: empty, url: entry("ann")}, host) == "ann"
    assert found({url: empty, exact: entry("ann")}, host) == "ann"
    assert found({exact: empty}, host) == ""


@pytest.mark.parametrize(
    ("repositories", "expected"),
    [
        ([], "host"),
        (["other/x"], "host"),
        (["org/x"], "org"),
        (["org/team/x"], "team"),
        (["org/team"], "team"),
        (["organisation/x"], "host"),
        (["org/team/x", "org/x"], "team"),
    ],
)
def test_keys_with_a_path_are_for_what_is_below_it(repositories, expected):
    auths = {
        "r": entry("host"),
        "r/org": entry("org"),
        "https://r/org/team/": entry("team"),
        "other/org": entry("other"),
    }
    assert found(auths, "r", *repositories) == expected


def test_docker_hubs_keys_have_paths_too():
    auths = {HUB_KEY: entry("hub"), "docker.io/me": entry("me")}
    assert found(auths, HUB, "me/fn") == "me"
    assert found(auths, HUB, "library/busybox") == "hub"


@pytest.mark.parametrize(
    ("written", "user", "secret"),
    [
        (encoded("user:pass:word"), "user", "pass:word"),
        (encoded("u:p").rstrip("="), "u", "p"),
        (encoded("us:p").rstrip("="), "us", "p"),
        (f" {encoded('user:word')[:6]}\n{encoded('user:word')[6:]} \n", "user", "word"),
        (base64.urlsafe_b64encode("u:ÿþ>?".encode()).decode(), "u", "ÿþ>?"),
        (encoded("user:word\0\0"), "user", "word"),
    ],
)
def test_auth_is_base64_as_people_have_it(written, user, secret):
    credentials = config(auths={"r": {"auth": written, "username": "not this"}}).entry("r")
    assert credentials == Credentials(user, secret)


@pytest.mark.parametrize("written", ["?", "%%", "dXNlcg==", "/w==", encoded(":word"), "a"])
def test_auth_that_is_none_is_broken(written):
    with pytest.raises(ConfigError, match="the auth of r is not base64 of user:password"):
        config(auths={"r": {"auth": written}}).entry("r")


def test_a_broken_entry_of_another_registry_is_nobodys_business():
    assert found({"other": {"auth": "?"}, "r": entry("ann")}, "r") == "ann"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"identitytoken": "t", "auth": encoded("u:p")}, Credentials("", "t")),
        ({"identityToken": "t"}, Credentials("", "t")),
        ({"registrytoken": "t"}, Credentials("", "", registry_token="t")),
        (
            {"registrytoken": "t", "auth": encoded("u:p")},
            Credentials("u", "p", registry_token="t"),
        ),
        ({"identitytoken": 7, "username": "u", "password": "p"}, Credentials("u", "p")),
    ],
)
def test_tokens(entry, expected):
    assert config(auths={"r": entry}).entry("r") == expected


DOCUMENT = json.dumps({"auths": {"r": entry("ann")}})


@pytest.mark.parametrize(
    "data",
    [
        DOCUMENT.encode(),
        DOCUMENT.encode("utf-8-sig"),
        json.dumps({"Auths": {"r": entry("ann")}}).encode(),
        # Kubernetes' .dockercfg.
        json.dumps({"https://r": {**entry("ann"), "email": "a@b"}}).encode(),
        json.dumps({"r": {"username": "ann", "password": "pw"}}).encode(),
    ],
)
def test_forms_of_the_document(data):
    assert DockerConfig(data).entry("r") == Credentials("ann", "pw")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (DOCUMENT.encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        (b"\xff", "it is not UTF-8"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b'{"auths": {}', "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b'{"auths": 7}', "auths is not an object"),
        (b'{"credHelpers": []}', "credHelpers is not an object"),
    ],
)
def test_what_is_no_such_document_says_so(data, word):
    with pytest.raises(ConfigError, match=word):
        DockerConfig(data)


@pytest.mark.parametrize(
    ("document", "host", "helper"),
    [
        ({}, "r", ""),
        ({"credsStore": "store"}, "r", "store"),
        ({"credsStore": "store", "credHelpers": {"r": "own"}}, "r", "own"),
        ({"credsStore": "store", "credHelpers": {"other": "own"}}, "r", "store"),
        # As docker has it: a registry without a helper, though the others have one.
        ({"credsStore": "store", "credHelpers": {"r": ""}}, "r", ""),
        ({"credHelpers": {"https://r/v2/": "own"}}, "r", "own"),
        ({"credHelpers": {"docker.io": "other", HUB_KEY: "own"}}, HUB, "own"),
        ({"credHelpers": {"r/org": "own"}}, "r", ""),
    ],
)
def test_which_helper_is_asked(document, host, helper):
    assert DockerConfig(json.dumps(document).encode()).helper(host) == helper


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["auth", "username", "password", "identitytoken", "registrytoken"])
ENTRIES = st.dictionaries(st.sampled_from(["r", "r/a", "https://r/v1/"]), JSON) | st.dictionaries(
    st.sampled_from(["r", "r/a"]), st.dictionaries(NAMES, JSON)
)


@given(st.fixed_dictionaries({"auths": ENTRIES | JSON, "credHelpers": ENTRIES | JSON}))
def test_any_document_gives_credentials_or_says_what_is_broken(document):
    try:
        read = DockerConfig(json.dumps(document).encode())
        read.helper("r")
        credentials = read.entry("r", ["a/b"])
    except ConfigError as error:
        assert "is broken: " in str(error)
    else:
        assert credentials is None or credentials.secret or credentials.registry_token
