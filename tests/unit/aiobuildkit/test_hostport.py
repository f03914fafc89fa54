"""`host:port`, in every place that reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import Address
from aiobuildkit.hostport import HostPort


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:5000", ("::1", 5000)),
        ("[::]:0", ("::", 0)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        (":1", ("", 1)),
        (" registry.internal:65535 ", ("registry.internal", 65535)),
    ],
)
def test_an_address_is_read(text, parts):
    assert HostPort.parse(text) == parts
    assert HostPort.parse(str(HostPort.parse(text))) == parts


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "5000",
            "host:",
            "host:http",
            "host:-1",
            "host:99999",
            "host:\u0661",
            "::1:80",
            "[::1]",
        ),
        *("[host]:80", "[::1:80", "::1]:80", "http://host:80", "user@host:80", "a b:80", "host:+8"),
    ],
)
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(ValueError, match=r"^must be HOST:PORT"):
        HostPort.parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        read = HostPort.parse(text)
    except ValueError:
        return
    assert HostPort.parse(str(read)) == read


@pytest.mark.parametrize(
    ("text", "local"),
    [
        (":80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_this_machine_reaches_what_listens_everywhere(text, local):
    assert str(HostPort.parse(text).local) == local


def test_buildkits_address_has_a_host_and_a_port():
    assert Address.parse("tcp://[::1]:1234") == Address(host="::1", port=1234)
    assert Address.parse("tcp://BuildKit:1234/") == Address(host="buildkit", port=1234)
    for text in ("tcp://:1234", "tcp://host:0", "tcp://host", "tcp://u@host:1", "host:1"):
        with pytest.raises(ValueError, match="not an address of BuildKit"):
            Address.parse(text)
