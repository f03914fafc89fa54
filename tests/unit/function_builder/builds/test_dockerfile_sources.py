"""The sources that a Dockerfile names. The names are those that a real BuildKit denies by in
tests/integration/test_source_policy.py."""

import pytest

from function_builder.builds.dockerfile_sources import image_source, named_sources

HUB = "docker-image://docker.io/library/"


def test_a_whole_dockerfile() -> None:
    dockerfile = """\
# syntax=docker/dockerfile:1
# A comment

ARG BASE=alpine TAG=3
FROM --platform=linux/amd64 ${BASE}:${TAG} AS one
ARG TAG
ENV HOST=example.com
RUN --mount=type=cache,target=/c --mount=type=bind,from=tools,target=/t \\
    # within
    make <<EOF
FROM not:this
EOF
COPY --from=one /a /
FROM one
COPY --from=0 /a /
COPY --from=busybox:${TAG} /a /
ADD --chmod=755 https://${HOST}/x a.txt git@example.com:x/y.git#v1 /
ADD ["https://example.com/y.git#main:sub", "/d"]
ADD https://example.com/${UNKNOWN} /
FROM scratch
"""
    found = named_sources(dockerfile.encode(), {"TAG": "3.20"})
    assert [(each.source, each.line, each.end_line) for each in found] == [
        ("docker-image://docker.io/docker/dockerfile:1", 1, 1),
        (f"{HUB}alpine:3.20", 5, 5),
        (f"{HUB}tools:latest", 8, 10),
        (f"{HUB}busybox:3.20", 16, 16),
        ("https://example.com/x", 17, 17),
        ("git://example.com/x/y.git#v1", 17, 17),
        ("git://example.com/y.git#main:sub", 18, 18),
        ("", 19, 19),
    ]


@pytest.mark.parametrize(
    ("reference", "source"),
    [
        ("alpine", f"{HUB}alpine:latest"),
        ("a/b:1", "docker-image://docker.io/a/b:1"),
        ("r:5000/a", "docker-image://r:5000/a:latest"),
        ("a@sha256:0", f"{HUB}a@sha256:0"),
        ("a:1@sha256:0", f"{HUB}a:1@sha256:0"),
    ],
)
def test_an_image_has_its_registry_and_its_tag(reference: str, source: str) -> None:
    assert image_source(reference) == source


def test_named_contexts_replace_images() -> None:
    contexts = {"base": "docker-image://r.io/other", "files": "folder"}
    found = named_sources(b"FROM base\nCOPY --from=files /a /\n", contexts=contexts)
    assert [each.source for each in found] == ["docker-image://r.io/other:latest", "local://files"]


@pytest.mark.parametrize(
    "dockerfile",
    [
        b"",
        b"\xff\xfe",
        b"FROM",
        b"FROM $",
        b"# escape=`\nFROM a`",
        b"COPY <<EOF",
        b"ADD [",
        b"ADD https://[/x /",
        b"ADD https://[/x.git /",
        b"ENV",
        b"ARG",
        b"RUN --mount=from",
    ],
)
def test_what_is_no_dockerfile_raises_nothing(dockerfile: bytes) -> None:
    named_sources(dockerfile)
