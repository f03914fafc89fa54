"""Which sources are denied. BuildKit matches them in tests/adversarial/hostile."""

import re

import pytest

from function_builder.policy.sources import LOCAL_SOURCES


def is_denied(source: str) -> bool:
    return any(re.search(expression, source) for expression in LOCAL_SOURCES)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1.2.3", "0.0.0.0", "localhost", "LocalHost.", "a.localhost"),
        *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
        *("[64:ff9b::7f00:1]", "[fe80::1%25eth0]", "[fe80::1]", "127.0.0.1."),
        *("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"),
        *("[fd00:ec2::254]", "[fd00:0ec2::254]", "[fd20:ce::254]"),
        *("metadata.google.internal", "metadata", "instance-data.ec2.internal"),
        # What git takes for an address, and Go's HTTP client.
        *("2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.1", "0", "127.0.0x1"),
        *("127\u30020\u30020\u30021", "\uff1127.0.0.1", "\uff4cocalhost"),
    ],
)
@pytest.mark.parametrize(
    "source", ["http://{}/x", "https://{}:8443", "http://user:a@b@{}?x", "git://{}:80/x.git#main"]
)
def test_what_is_here_is_denied(source, host):
    assert is_denied(source.format(host))


@pytest.mark.parametrize(
    "source",
    [
        "http://example.com/127.0.0.1/",
        "http://example.com?u=http://127.0.0.1/",
        "http://example.com#@127.0.0.1/",
        "https://github.com/x/y.git",
        "git://github.com/localhost/x.git#127.0.0.1",
        "http://localhost.example.com/",
        "http://10.0.0.1:8000/",
        "http://192.168.0.10/",
        "http://1password.example:80/",
        "http://[2001:db8::1]/",
        "docker-image://127.0.0.1:5000/x:latest",
        "docker-image://localhost:5000/x:latest",
        "docker-image://docker.io/library/metadata:latest",
        "local://context",
    ],
)
def test_nothing_else_is(source):
    assert not is_denied(source)


def test_a_metadata_service_is_no_registry():
    assert is_denied("docker-image://169.254.169.254/latest:x")
    assert is_denied("docker-image://metadata.google.internal:80/x:latest")
    assert is_denied("docker-image+blob://169.254.169.254/latest@sha256:0")
