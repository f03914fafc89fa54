"""Registry credentials from config.json, with a real helper program."""

import base64
import json
import os

import pytest

from aiobuildkit import Credentials, RPCError
from function_builder.builds.credentials import RegistryCredentials

ALEX = Credentials(username="alex", secret="s3cret:with:colons")
AUTH = base64.b64encode(b"alex:s3cret:with:colons").decode()
HUB = "https://index.docker.io/v1/"

HELPER = """#!/bin/sh
read -r server
case "$server" in
  ecr.test) echo '{"ServerURL":"ecr.test","Username":"AWS","Secret":"token"}' ;;
  gcr.test) echo '{"Username":"<token>","Secret":"refresh"}' ;;
  %s) echo '{"Username":"hub","Secret":"pass"}' ;;
  bad.test) echo nonsense ;;
  *) echo "credentials not found in native keychain"; exit 1 ;;
esac
""".replace("%s", HUB)


@pytest.fixture
def helper(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def configured(tmp_path, config) -> RegistryCredentials:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    return RegistryCredentials(tmp_path)


@pytest.mark.parametrize(
    "key",
    ["r.test:5000", "http://r.test:5000", "https://r.test:5000/v2/", "r.test:5000/v1/"],
)
async def test_keys_of_auths_are_hosts_however_written(tmp_path, key):
    credentials = configured(tmp_path, {"auths": {key: {"auth": AUTH}}})
    assert await credentials.lookup("r.test:5000") == ALEX
    assert await credentials.lookup("r.test") is None
    assert await credentials.lookup("r.test:5001") is None


async def test_docker_hub_has_many_names(tmp_path):
    credentials = configured(tmp_path, {"auths": {HUB: {"auth": AUTH}}})
    assert await credentials.lookup("registry-1.docker.io") == ALEX
    assert await credentials.lookup("docker.io") == ALEX
    assert await credentials.lookup("hub.test") is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "u", "password": "p"}, Credentials(username="u", secret="p")),
        ({"auth": AUTH, "identitytoken": "t"}, Credentials(username="", secret="t")),
        ({"auth": ""}, None),
        ({}, None),
    ],
)
async def test_the_forms_of_an_entry(tmp_path, entry, expected):
    assert await configured(tmp_path, {"auths": {"r": entry}}).lookup("r") == expected


async def test_no_file_is_no_credentials(tmp_path):
    assert await RegistryCredentials(tmp_path).lookup("r.test") is None


async def test_rotated_credentials_are_used_at_once(tmp_path):
    credentials = configured(tmp_path, {"auths": {"r": {"username": "u", "password": "old"}}})
    assert await credentials.lookup("r") == Credentials(username="u", secret="old")
    configured(tmp_path, {"auths": {"r": {"username": "u", "password": "new"}}})
    assert await credentials.lookup("r") == Credentials(username="u", secret="new")


async def test_helpers_are_asked(tmp_path, helper):
    credentials = configured(
        tmp_path,
        {
            "credHelpers": {"ecr.test": "test", "gcr.test": "test", HUB: "test"},
            "auths": {"r.test": {"auth": AUTH}, "gcr.test": {"auth": AUTH}},
        },
    )
    assert await credentials.lookup("ecr.test") == Credentials(username="AWS", secret="token")
    assert await credentials.lookup("gcr.test") == Credentials(username="", secret="refresh")
    hub = await credentials.lookup("registry-1.docker.io")
    assert hub == Credentials(username="hub", secret="pass")
    assert await credentials.lookup("r.test") == ALEX


async def test_a_store_that_knows_nothing_leaves_it_to_auths(tmp_path, helper):
    credentials = configured(
        tmp_path, {"credsStore": "test", "auths": {"r.test": {"auth": AUTH}, "ecr.test": {}}}
    )
    assert await credentials.lookup("ecr.test") == Credentials(username="AWS", secret="token")
    assert await credentials.lookup("r.test") == ALEX
    assert await credentials.lookup("nobody.test") is None


@pytest.mark.parametrize(
    ("config", "host", "word"),
    [
        ("", "r", "empty"),
        (" \n", "r", "empty"),
        ("{", "r", "not JSON"),
        ("[" * 100_000, "r", "not JSON"),
        ("[]", "r", "not a JSON object"),
        ({"auths": ["r"]}, "r", "auths is not an object"),
        ({"auths": {"r": "x"}}, "r", "not an object"),
        ({"auths": {"r": {"auth": "%%"}}}, "r", "base64"),
        ({"auths": {"r": {"auth": base64.b64encode(b"nocolon").decode()}}}, "r", "base64"),
        ({"credsStore": "desktop"}, "r", "docker-credential-desktop"),
        ({"credHelpers": {"r": "../evil"}}, "r", "slash"),
        ({"credHelpers": {"r": 1}}, "r", "string"),
        ({"credsStore": "test"}, "bad.test", "something else"),
    ],
    ids=range(13),
)
async def test_a_broken_config_says_so(tmp_path, helper, config, host, word):
    credentials = configured(tmp_path, config)
    with pytest.raises(RPCError, match=word) as caught:
        await credentials.lookup(host)
    assert str(tmp_path) not in str(caught.value)
