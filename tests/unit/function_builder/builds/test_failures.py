"""What BuildKit's errors mean: texts as BuildKit 0.32 and 0.34 wrote them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import RPCError, SolveError, StatusCode
from aiobuildkit.rpc.framing import error_of_reset
from function_builder.builds.failures import (
    Doubt,
    Remedy,
    absent_file,
    classify,
    find_remedy,
    near_miss,
    shortened,
    with_meaning,
    without_host_paths,
)
from function_builder.contract.findings import Reason
from function_builder.registries.docker_config import BROKEN_CONFIG

MET = (
    "failed to read dockerfile: failed to prepare  as cpq5ezuq01r10nlgjzq7y53fe: failed to rename: "
    "rename /bk/state/runc-overlayfs/snapshots/snapshots/new-736616906 "
    "/bk/state/runc-overlayfs/snapshots/snapshots/549: file exists"
)
HEAD = "unexpected status from HEAD request to http://r/v2/a/b/blobs/sha256:f1: "
BASE = "r/a/base:1: failed to resolve source metadata for r/a/base:1: "
TOKEN = "failed to authorize: failed to fetch oauth token: unexpected status from POST request: "
NO_TOKEN = "the token service of r cannot be reached from here"
PULL = "pull access denied, repository does not exist or may require authorization: "
TOO_LARGE = "trying to send message larger than max (20000881 vs. 16777216)"
TOO_MANY_SOURCES = (
    "header list size to send violates the maximum size (2097152 bytes) set by server"
)

NO_DEVICES = (
    'CDI device "vendor.com/gpu" is required by step "RUN true", but CDI device support is disabled'
)
NO_DEVICE = 'required device "vendor.com/gpu" is not registered'
NOT_ASKED = "requested by the build but not allowed"


def failed(message: str, *, vertex: str | None = None, in_frontend: bool = False) -> SolveError:
    return SolveError(StatusCode.UNKNOWN, message, vertex=vertex, in_frontend=in_frontend)


def in_step(message: str) -> SolveError:
    return failed(message, vertex="sha256:0")


def in_frontend(message: str) -> SolveError:
    return failed(message, in_frontend=True)


RUN = "[2/3] RUN x"
EXPORT = "exporting to image"
METADATA = "[internal] load metadata for r/a/base:1"


@pytest.mark.parametrize(
    ("error", "step", "reason", "retryable"),
    [
        (in_step('process "x" did not complete: exit code: 1'), RUN, Reason.STEP, False),
        (in_step("secret a: not found"), RUN, Reason.STEP, False),
        # A step that prints or quotes what a registry says is a step all the same.
        (in_step('process "echo 401 Unauthorized: EOF" failed'), RUN, Reason.STEP, False),
        (in_frontend("unknown instruction: CPY"), "", Reason.DOCKERFILE, False),
        (in_frontend("lint violation found for rules: X"), "", Reason.DOCKERFILE, False),
        (in_frontend(BASE + "r/a/base:1: not found"), METADATA, Reason.BASE_IMAGE, False),
        (in_frontend(BASE + HEAD + "503 Service Unavailable"), METADATA, Reason.BASE_IMAGE, True),
        (in_frontend(BASE + HEAD + "401 Unauthorized"), METADATA, Reason.CREDENTIAL, False),
        (in_frontend(BASE + PULL + "insufficient_scope"), METADATA, Reason.BASE_IMAGE, False),
        (in_frontend("r/a: no match for platform in manifest"), "", Reason.BASE_IMAGE, False),
        (
            in_step("failed to copy: " + HEAD + "404"),
            "[b 1/2] FROM r/a:1",
            Reason.BASE_IMAGE,
            False,
        ),
        (failed("failed to push r/a/b:1: denied: no"), EXPORT, Reason.CREDENTIAL, False),
        (failed("failed to push r/a/b:1: x: connection refused"), EXPORT, Reason.PUSH, True),
        (failed("failed to push r/a/b:1: " + HEAD + "404 Not Found"), EXPORT, Reason.PUSH, False),
        (failed("failed to push r/a/b:1: unavailable: try later"), EXPORT, Reason.PUSH, True),
        (failed("failed to push r/a/b:1: toomanyrequests: slow"), EXPORT, Reason.PUSH, True),
        (
            failed(f"failed to push r/a:1: {TOKEN}401 Unauthorized"),
            EXPORT,
            Reason.CREDENTIAL,
            False,
        ),
        (failed(f"failed to push r/a:1: {TOKEN}503 Slow Down"), EXPORT, Reason.PUSH, True),
        (failed(f"failed to push r/a:1: {NO_TOKEN}"), EXPORT, Reason.PUSH, True),
        (failed(f"failed to push r/a:1: {Doubt.NO_REGISTRY}"), "", Reason.PUSH, False),
        (failed(f"failed to push r/a:1: {Doubt.ABSENT}"), "", Reason.PUSH, False),
        (failed(f"{BROKEN_CONFIG}: it is empty"), EXPORT, Reason.CREDENTIAL, False),
        (in_frontend(f"{BASE}{BROKEN_CONFIG}: it is empty"), METADATA, Reason.CREDENTIAL, False),
        (failed("failed to load LLB: security.insecure is not allowed"), "", Reason.POLICY, False),
        (failed(f"failed to load LLB: {NO_DEVICES}"), "", Reason.POLICY, False),
        (failed(f"failed to load LLB: {NO_DEVICE}"), "", Reason.POLICY, False),
        (failed(f"failed to load LLB: device gpu is {NOT_ASKED}"), "", Reason.POLICY, False),
        (failed(f"failed to load LLB: devices a, b are {NOT_ASKED}"), "", Reason.POLICY, False),
        (failed(TOO_LARGE), "", Reason.DOCKERFILE, False),
        (error_of_reset(2), "", Reason.DOCKERFILE, False),
        (in_step(TOO_MANY_SOURCES), "[2/2] COPY", Reason.STEP, False),
        (failed("write /x: no space left on device"), "", Reason.SERVICE, True),
        (RPCError(StatusCode.UNAVAILABLE, "shutting down"), "", Reason.SERVICE, True),
    ],
)
def test_what_failed_is_one_word(error, step, reason, retryable):
    assert classify(error, step) == (reason, retryable)


def test_a_directory_in_a_snapshots_way_is_met_once():
    assert find_remedy(MET) is Remedy.REPEAT


@pytest.mark.parametrize(
    "message",
    [
        f"process \"/bin/sh -c echo '{MET}'; exit 1\" did not complete successfully: exit code: 1",
        MET.replace("file exists", "no space left on device"),
        "failed to resolve source metadata for r/a:1: not found",
        "failed with build-arg:BUILDKIT_SYNTAX = r/a: no such option",
        "",
    ],
)
def test_any_other_failure_is_told(message):
    assert find_remedy(message) is None


def test_a_frontends_image_that_cannot_be_had():
    message = (
        "failed with build-arg:BUILDKIT_SYNTAX = docker/dockerfile:1: "
        "failed to resolve source metadata for docker.io/docker/dockerfile:1: not found"
    )
    assert find_remedy(message) is Remedy.BUILT_IN_FRONTEND


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (TOO_LARGE, "make the instructions"),
        (TOO_MANY_SOURCES, "copy whole folders"),
        (error_of_reset(2).message, "make the Dockerfile shorter"),
    ],
)
def test_what_is_too_large_for_buildkits_messages_is_told_in_words(said: str, meaning: str):
    assert meaning in with_meaning(said)
    assert with_meaning("failed") == "failed"


def test_a_long_error_keeps_its_beginning_and_its_end():
    text = "process " + "x" * 900_000 + " did not complete successfully: exit code: 1"
    told = shortened(text)
    assert len(told) < 33_000
    assert told.startswith("process x")
    assert told.endswith("x did not complete successfully: exit code: 1")
    assert shortened("short") == "short"


def test_a_path_is_looked_for_in_a_long_error_in_no_time():
    said = 'failed to calculate checksum of ref a: "/x' * 20_000
    began = time.thread_time()
    assert absent_file(said) is None
    assert time.thread_time() - began < 1


def test_a_copied_file_that_is_absent_is_named():
    said = (
        "failed to solve: failed to compute cache key: failed to calculate checksum of ref "
        'a::b: "/src/Read me.md": not found'
    )
    assert absent_file(said) == "src/Read me.md"
    assert absent_file("r/a/base:1: not found") is None


@pytest.mark.parametrize(
    ("absent", "paths", "near"),
    [
        ("a/readme.md", ["b/readme.md", "a/README.md"], "a/README.md"),
        ("app.py", ["src/app.pyc", "src/app.py", "lib/app.py"], "src/app.py"),
        ("dist", ["x", "dist", "Dist"], "dist"),
        ("src/app.py", ["lib/app.py", "src\\app.py"], "src\\app.py"),
        ("dist", ["list", "dis"], None),
    ],
)
def test_a_path_that_was_meant_is_found(absent, paths, near):
    assert near_miss(absent, paths) == near


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "cannot replace to directory /var/lib/buildkit/cachemounts/buildkit123/x/a with file",
            "cannot replace to directory /x/a with file",
        ),
        (
            "write /b/state/runc-overlayfs/snapshots/snapshots/8/fs/Dockerfile: no space left",
            "write /Dockerfile: no space left",
        ),
        (
            "write /b/runc-native/content/ingest/ab/data: no space, /b/runc-native/cache.db too",
            "write /content/ingest/ab/data: no space, /cache.db too",
        ),
        ("a: b/c/runc-x/d", "a: b/d"),
        ('process "cat /etc/passwd /x/y" failed', 'process "cat /etc/passwd /x/y" failed'),
        ("", ""),
    ],
)
def test_the_path_in_the_image_is_left(said, told):
    assert without_host_paths(said) == told


@given(st.text("/ runc-x0\n", max_size=60))
def test_what_is_left_was_there_in_that_order(text):
    left = iter(text)
    assert all(letter in left for letter in without_host_paths(text))


@pytest.mark.parametrize("piece", ["/", "/runc-", "/runc-x", " /runc-x", "/cachemounts/buildkit"])
def test_a_megabyte_of_it_takes_no_time_to_speak_of(piece):
    began = time.process_time()
    without_host_paths(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 10
