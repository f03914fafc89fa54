"""Registry credentials from config.json, with a real helper program."""

import asyncio
import base64
import json
import os

import pytest
from structlog.testing import capture_logs

from aiobuildkit import Credentials, RPCError
from function_builder.registries import credential_helpers
from function_builder.registries.credentials import RegistryCredentials
from tests.support import is_over, until

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


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("config.json", {"auths": {"r": {"auth": AUTH}}}),
        (".dockerconfigjson", {"auths": {"r": {"auth": AUTH}}}),
        (".dockercfg", {"r": {"auth": AUTH}}),
    ],
)
async def test_a_secret_of_kubernetes_is_read_as_it_is_mounted(tmp_path, name, document):
    (tmp_path / name).write_text(json.dumps(document))
    assert await RegistryCredentials(tmp_path).lookup("r") == ALEX


async def test_dockers_file_comes_before_kubernetes(tmp_path):
    (tmp_path / ".dockercfg").write_text(json.dumps({"r": {"username": "u", "password": "p"}}))
    credentials = configured(tmp_path, {"auths": {"r": {"auth": AUTH}}})
    assert await credentials.lookup("r") == ALEX


async def test_the_variable_comes_first_and_the_file_has_the_rest(tmp_path):
    configured(tmp_path, {"auths": {host: {"username": "u", "password": "p"} for host in "rs"}})
    variable = json.dumps({"auths": {"r": {"auth": AUTH}, "s": {}}})
    credentials = RegistryCredentials(tmp_path, variable)
    assert await credentials.lookup("r") == ALEX
    assert await credentials.lookup("s") == Credentials("u", "p")


async def test_a_broken_variable_is_ignored_and_told_of_without_its_text(tmp_path):
    configured(tmp_path, {"auths": {"r": {"auth": AUTH}}})
    with capture_logs() as logs:
        credentials = RegistryCredentials(tmp_path, "swordfish")
    assert [line["event"] for line in logs] == ["DOCKER_AUTH_CONFIG is ignored"]
    assert "swordfish" not in str(logs)
    assert await credentials.lookup("r") == ALEX


async def test_an_unreadable_file_is_told_of_with_the_systems_word(tmp_path):
    (tmp_path / "config.json").mkdir()
    with capture_logs() as logs, pytest.raises(RPCError, match="it cannot be read") as caught:
        await RegistryCredentials(tmp_path).lookup("r")
    assert "Is a directory" in logs[0]["reason"]
    assert "directory" not in str(caught.value)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a helper called `own` with this body."""
    place = tmp_path / "programs"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def write(body: str, mode: int = 0o755) -> RegistryCredentials:
        path = place / "docker-credential-own"
        path.write_text(f"#!/bin/sh\nread -r server\n{body}\n")
        path.chmod(mode)
        return configured(tmp_path, {"credsStore": "own"})

    return write


@pytest.mark.parametrize(
    "last", ["echo credentials not found in native keychain", "echo AccessDenied"]
)
async def test_a_helpers_words_are_in_the_log_alone(program, last):
    credentials = program(f"echo 'level=error msg=\"not authorized\"' >&2; {last}; exit 1")
    with capture_logs() as logs:
        try:
            assert await credentials.lookup("r") is None
        except RPCError as error:
            assert "docker-credential-own failed with status 1" in str(error)
            assert "Access" not in str(error)
    (line,) = logs
    assert line["stderr"] == 'level=error msg="not authorized"'
    assert line["output"] in last
    assert (line["registry"], line["status"]) == ("r", 1)


async def test_a_helpers_secret_is_in_no_log(program):
    answer = '{"Username":"u","Secret":"swordfish"}'
    for end in ("", "; exit 1"):
        credentials = program(f"echo 'a word' >&2; echo '{answer}'{end}")
        with capture_logs() as logs:
            try:
                assert await credentials.lookup("r") == Credentials("u", "swordfish")
            except RPCError as error:
                assert "swordfish" not in str(error)
        assert "a word" in str(logs)
        assert "swordfish" not in str(logs)


async def test_a_helper_that_cannot_be_started_is_told_of_with_the_systems_word(program):
    credentials = program("", mode=0o644)
    with capture_logs() as logs, pytest.raises(RPCError, match="cannot be started") as caught:
        await credentials.lookup("r")
    assert "Permission denied" in logs[0]["reason"]
    assert "denied" not in str(caught.value)


@pytest.mark.parametrize("end", ["wait", "exit 0"])
async def test_a_helper_that_hangs_is_ended_with_its_children(program, monkeypatch, tmp_path, end):
    """Also with those that have its output, and outlive it."""
    credentials = program(f"sleep 1000 & echo $! >{tmp_path}/child; {end}")
    for seconds in (1, 8, 64):
        monkeypatch.setattr(credential_helpers, "HELPER_SECONDS", seconds)
        with pytest.raises(RPCError, match=f"did not answer within {seconds} s"):
            await credentials.lookup("r")
        # On a busy machine its time may be up before it has begun the child.
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text():
            break
    child = int((tmp_path / "child").read_text())
    await until(lambda: is_over(child))


async def test_one_question_for_a_registry_in_a_build(program, tmp_path):
    body = f'echo "$server" >>{tmp_path}/asked; echo \'{{"Username":"u","Secret":"s"}}\''
    own = program(body).for_build([])
    found = await asyncio.gather(*(own.lookup(host) for host in ["a", "b"] * 5))
    assert set(found) == {Credentials("u", "s")}
    await own.lookup_scopes("a", ["repository:x/y:pull"])
    assert sorted((tmp_path / "asked").read_text().split()) == ["a", "b"]
    await program(body).for_build([]).lookup("a")
    assert len((tmp_path / "asked").read_text().split()) == 3


async def test_few_helpers_run_at_a_time_for_a_build_and_for_all(program, tmp_path):
    running = tmp_path / "running"
    running.mkdir()
    credentials = program(
        f"touch {running}/$$; ls {running} | wc -l >>{tmp_path}/most; sleep 0.05; rm {running}/$$;"
        "echo credentials not found in native keychain; exit 1"
    )

    async def most(builds: int) -> int:
        (tmp_path / "most").write_text("")
        owns = [credentials.for_build([]) for _ in range(builds)]
        await asyncio.gather(*(own.lookup(f"r{n}") for own in owns for n in range(12)))
        return max(map(int, (tmp_path / "most").read_text().split()))

    assert await most(1) <= 2
    assert await most(8) <= 8


async def test_no_credentials_for_a_host_are_told_of_once_a_build(tmp_path):
    own = configured(tmp_path, {}).for_build([])
    with capture_logs() as logs:
        for host in ("r.test:5000", "r.test:5000", "bad\nhost"):
            assert await own.lookup(host) is None
    events = [line["event"] for line in logs]
    assert events == ["no credentials for r.test:5000", 'no credentials for "bad\\nhost"']


@pytest.mark.parametrize(
    ("image", "host", "scopes", "user"),
    [
        ("r:5000/ours/fn:1", "r:5000", None, "ours"),
        ("r:5000/theirs/fn", "r:5000", None, "theirs"),
        ("r:5000/else/fn:1", "r:5000", None, "host"),
        ("", "r:5000", None, "host"),
        ("r:5000/ours/fn:1", "r:5000", ["repository:theirs/base:pull"], "theirs"),
        (
            "r:5000/ours/fn:1",
            "r:5000",
            ["repository:theirs/base:pull", "repository:ours/fn:pull,push"],
            "ours",
        ),
        ("r:5000/ours/fn:1", "r:5000", [], "ours"),
        ("me/fn:1", "registry-1.docker.io", None, "me"),
        ("docker.io/me/fn:1", "registry-1.docker.io", None, "me"),
    ],
)
async def test_what_is_pushed_or_pulled_chooses_among_entries_with_a_path(
    tmp_path, image, host, scopes, user
):
    keys = {
        "r:5000": "host",
        "r:5000/ours": "ours",
        "r:5000/theirs": "theirs",
        "docker.io/me": "me",
    }
    auths = {key: {"username": name, "password": "p"} for key, name in keys.items()}
    own = configured(tmp_path, {"auths": auths}).for_build([image] if image else [])
    asked = own.lookup(host) if scopes is None else own.lookup_scopes(host, scopes)
    assert await asked == Credentials(user, "p")


def test_a_push_is_described_as_buildkit_does(tmp_path):
    own = configured(tmp_path, {}).for_build(["r:5000/a/b:1", "r:5000/a/b:2", "s:80/c:1"])
    assert own.describe_push("s:80", ["repository:c:pull,push"]) == "failed to push s:80/c:1"
    scopes = ["repository:base:pull", "repository:a/b:pull,push"]
    assert own.describe_push("r:5000", scopes) == "failed to push r:5000/a/b:1"
    assert own.describe_push("other", scopes) == ""
