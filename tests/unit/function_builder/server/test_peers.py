"""Whose address the log has: nobody chooses it but proxies that the operator trusts."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from function_builder.server.peers import client_address

PROXIES = tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8")))


def seen(peer: str, *headers: tuple[str, str], trusted=PROXIES) -> str:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "client": (peer, 1234) if peer else None, "headers": raw}
    return client_address(HTTPConnection(scope), trusted)


def forwarded_for(*values: str) -> list[tuple[str, str]]:
    return [("x-forwarded-for", value) for value in values]


def forwarded(*values: str) -> list[tuple[str, str]]:
    return [("forwarded", value) for value in values]


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("", forwarded_for("192.0.2.1"), ""),
        # The peer is no proxy of ours: its word counts for nothing.
        ("192.0.2.9", forwarded_for("192.0.2.1"), "192.0.2.9"),
        ("10.0.0.1", forwarded_for("192.0.2.1"), "192.0.2.1"),
        ("::ffff:10.0.0.1", forwarded_for("192.0.2.1"), "192.0.2.1"),
        ("fd00::1", forwarded_for("2001:DB8::0:1"), "2001:db8::1"),
        # What the client wrote itself is left of what the proxies wrote.
        ("10.0.0.1", forwarded_for("1.1.1.1, 192.0.2.1"), "192.0.2.1"),
        ("10.0.0.1", forwarded_for("1.1.1.1", "192.0.2.1, 10.0.0.2"), "192.0.2.1"),
        ("10.0.0.1", forwarded_for("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
        ("10.0.0.1", forwarded_for("1.1.1.1, nonsense, 10.0.0.2"), "10.0.0.2"),
        ("10.0.0.1", forwarded_for("192.0.2.1:4711"), "192.0.2.1"),
        ("10.0.0.1", forwarded_for("[2001:db8::1]:4711"), "2001:db8::1"),
        ("10.0.0.1", forwarded_for("fe80::1%eth0"), "fe80::1"),
        ("10.0.0.1", forwarded_for('x", "level": "error'), "10.0.0.1"),
        ("10.0.0.1", forwarded("for=192.0.2.1"), "192.0.2.1"),
        ("10.0.0.1", forwarded('FOR="[2001:db8::1]:4711";proto=https'), "2001:db8::1"),
        ("10.0.0.1", forwarded("for=1.1.1.1, proto=http ;For=192.0.2.1"), "192.0.2.1"),
        ("10.0.0.1", forwarded("for=1.1.1.1", "for=unknown"), "10.0.0.1"),
        ("10.0.0.1", forwarded("for=1.1.1.1, for=_hidden"), "10.0.0.1"),
        ("10.0.0.1", forwarded("for=1.1.1.1, by=10.0.0.1"), "10.0.0.1"),
        # A Host that the client chose, quoted by the proxy.
        ("10.0.0.1", forwarded('for=192.0.2.1;host="a,for=1.1.1.1;b="'), "192.0.2.1"),
        ("10.0.0.1", forwarded('for=192.0.2.1;host="a\\",for=1.1.1.1"'), "192.0.2.1"),
        (
            "10.0.0.1",
            [*forwarded("for=1.1.1.1"), *forwarded_for("192.0.2.1")],
            "192.0.2.1",
        ),
    ],
)
def test_the_client_is_found_as_far_as_trusted_proxies_tell(peer, headers, client):
    assert seen(peer, *headers) == client


def test_without_trusted_proxies_the_peer_counts():
    assert seen("127.0.0.1", *forwarded_for("192.0.2.1"), trusted=()) == "127.0.0.1"


TEXT = st.text(st.characters(max_codepoint=255), max_size=60)


@given(st.sampled_from(["x-forwarded-for", "forwarded"]), st.lists(TEXT, max_size=4))
def test_whatever_is_sent_the_log_gets_an_address(name, values):
    client = seen("10.0.0.1", *[(name, value) for value in values])
    assert str(ip_address(client)) == client


@given(st.sampled_from(["{}, {}", "for={}, for={}"]), TEXT.filter(lambda text: '"' not in text))
def test_nothing_that_a_client_writes_reaches_past_its_own_address(form, text):
    name = "forwarded" if "for=" in form else "x-forwarded-for"
    assert seen("10.0.0.1", (name, form.format(text, "192.0.2.1"))) == "192.0.2.1"
