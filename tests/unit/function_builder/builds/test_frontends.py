"""Which frontend reads a Dockerfile."""

import pytest

from function_builder.builds.frontends import (
    BUILT_IN,
    frontend_attrs,
    is_pinned,
    repositories,
    syntax,
)
from function_builder.contract.errors import Refusal

ALLOWED = ("docker/dockerfile", "docker/dockerfile-upstream")


@pytest.mark.parametrize(
    ("dockerfile", "named"),
    [
        ("FROM x", ""),
        ("# syntax=docker/dockerfile:1\nFROM x", "docker/dockerfile:1"),
        ("#syntax = docker/dockerfile:1  \r\nFROM x", "docker/dockerfile:1"),
        ("# SYNTAX=a/b\nFROM x", "a/b"),
        ("# escape=`\n# check=skip=all\n# syntax=a/b", "a/b"),
        ("# a comment\n# syntax=a/b", ""),
        ("\n# syntax=a/b", ""),
        ("FROM x\n# syntax=a/b", ""),
        ("# other=1\n# syntax=a/b", ""),
        ("# escape=`\n# escape=`\n# syntax=a/b", ""),
        ("// syntax=a/b\nFROM x", "a/b"),
        ("#!/usr/bin/env x\n# syntax=a/b", "a/b"),
        ("\ufeff# syntax=a/b\n", "a/b"),
        ('{"syntax": "a/b"}', "a/b"),
        ('{"syntax": 1}', ""),
        ("{" * 100_000, ""),
        ('{"a":' * 100_000, ""),
        ("# syntax=", ""),
        ("# syntax=a/b extra words", "a/b extra words"),
    ],
)
def test_the_directive_is_found_where_buildkit_finds_it(dockerfile, named):
    assert syntax(dockerfile.encode()) == named


@pytest.mark.parametrize(
    "named",
    [
        "docker/dockerfile",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile:1",
        "index.docker.io/docker/dockerfile:1",
        "docker/dockerfile-upstream:master",
    ],
)
def test_known_frontends_are_named_to_buildkit_in_so_many_words(named):
    attrs = frontend_attrs(f"# syntax={named}\n".encode(), {}, ALLOWED)
    assert attrs == {"build-arg:BUILDKIT_SYNTAX": named}


def test_without_a_directive_buildkit_is_told_to_use_its_own():
    assert frontend_attrs(b"FROM x", {}, ALLOWED) == BUILT_IN


@pytest.mark.parametrize(
    "named",
    [
        "evil/frontend",
        "docker/dockerfile2",
        "ghcr.io/docker/dockerfile:1",
        "localhost/docker/dockerfile",
        "docker.io.evil.org/docker/dockerfile",
        "docker/dockerfile/x",
        "127.0.0.1:5000/docker/dockerfile",
        "dockerfile",
    ],
)
def test_others_are_refused_by_line_and_by_argument(named):
    with pytest.raises(Refusal, match="not allowed") as by_line:
        frontend_attrs(f"# syntax={named}\n".encode(), {}, ALLOWED)
    assert by_line.value.status == 400
    with pytest.raises(Refusal, match="not allowed"):
        frontend_attrs(b"# syntax=docker/dockerfile:1", {"BUILDKIT_SYNTAX": named}, ALLOWED)


@pytest.mark.parametrize("tag", ["0.9", "1.0-experimental", "1.0.2", "1.1.0-experimental", "1.1.1"])
def test_frontends_that_know_no_cache_namespaces_are_refused(tag):
    with pytest.raises(Refusal, match="too old"):
        frontend_attrs(f"# syntax=docker/dockerfile:{tag}\n".encode(), {}, ALLOWED)


@pytest.mark.parametrize("tag", ["1", "1.1", "1-experimental", "1.1.2", "1.10.0", "1.2.0-labs"])
def test_newer_frontends_are_not(tag):
    named = f"docker/dockerfile:{tag}"
    assert frontend_attrs(f"# syntax={named}\n".encode(), {}, ALLOWED) == {
        "build-arg:BUILDKIT_SYNTAX": named
    }


def test_the_age_of_a_digest_is_left_to_buildkit():
    named = "docker/dockerfile:1.0@sha256:" + "0" * 64
    assert frontend_attrs(f"# syntax={named}\n".encode(), {}, ALLOWED) == {
        "build-arg:BUILDKIT_SYNTAX": named,
        "frontend.caps": "moby.buildkit.frontend.inputs",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUILDKIT_ATTEST_SBOM", "generator=evil/x"),
        ("BUILDKIT_ATTEST_sbom", "true,generator=docker/buildkit-syft-scanner"),
        ("BUILDKIT_ATTEST_SBOM", '"a",\n"generator=evil/x"'),
    ],
)
def test_no_generator_may_be_named(name, value):
    with pytest.raises(Refusal, match="generator") as refused:
        frontend_attrs(b"FROM x", {name: value}, ALLOWED)
    assert refused.value.status == 400


def test_attestations_without_one_are_as_buildkit_makes_them():
    args = {"BUILDKIT_ATTEST_SBOM": "", "BUILDKIT_ATTEST_PROVENANCE": "mode=max", "generator": "x"}
    assert frontend_attrs(b"FROM x", args, ALLOWED) == BUILT_IN


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_dockerfile_in_utf_16_is_called_that(encoding):
    with pytest.raises(Refusal, match="UTF-16"):
        frontend_attrs("FROM scratch\r\nCOPY f /f\r\n".encode(encoding), {}, ["docker/dockerfile"])


@pytest.mark.parametrize(
    ("named", "pinned"),
    [("docker/dockerfile:1", False), (f"docker/dockerfile@sha256:{'0' * 64} x", True), ("", False)],
)
def test_an_image_with_a_digest_is_pinned(named, pinned):
    head = f"# syntax={named}\n".encode() if named else b""
    assert is_pinned(frontend_attrs(head + b"FROM scratch", {}, ["docker/dockerfile"])) is pinned


def test_what_is_pinned_is_used_whatever_is_named():
    digest = f"sha256:{'1' * 64}"
    allowed = [f"docker/dockerfile@{digest}", "a.example/own=built-in"]
    for named in ("docker/dockerfile:1", "docker.io/docker/dockerfile", f"{allowed[0][:-1]}2"):
        attrs = frontend_attrs(f"# syntax={named} x\n".encode(), {}, allowed)
        assert attrs == {"build-arg:BUILDKIT_SYNTAX": f"docker.io/docker/dockerfile@{digest} x"}
    assert frontend_attrs(b"# syntax=a.example/own:1\n", {}, allowed) == BUILT_IN
    assert repositories(allowed) == ["docker.io/docker/dockerfile", "a.example/own"]
    with pytest.raises(Refusal, match=r"one of docker/dockerfile@sha256:1+, a\.example/own"):
        frontend_attrs(b"# syntax=other/x\n", {}, allowed)
