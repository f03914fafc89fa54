"""The DNS servers that RUN steps are given, by what the host's resolv.conf says."""

import pytest
from structlog.testing import capture_logs

from function_builder.engine import Network
from function_builder.engine.dns import step_nameservers

LOCAL = "# made by hand\nnameserver 127.0.0.1\nsearch corp.internal\n"
BOTH = "nameserver ::1\nnameserver 10.0.0.2\n"
REMOTE = "nameserver 10.0.0.2\nnameserver fe80::1%eth0\n"
STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"


@pytest.fixture
def host(tmp_path):
    def made(text, upstream=None):
        for path, content in (
            ("etc/resolv.conf", text),
            ("run/systemd/resolve/resolv.conf", upstream),
        ):
            if content is not None:
                (tmp_path / path).parent.mkdir(parents=True)
                (tmp_path / path).write_text(content)
        return tmp_path

    return made


@pytest.mark.parametrize(
    ("network", "text", "upstream", "servers"),
    [
        # On the host's network a step reaches what the host does.
        (Network.HOST, LOCAL, None, ["127.0.0.1"]),
        (Network.HOST, BOTH, None, ["::1", "10.0.0.2"]),
        (Network.HOST, STUB, REMOTE, ["127.0.0.53"]),
        # BuildKit's own choice is right, and follows the file when that changes.
        (Network.HOST, REMOTE, None, []),
        (Network.BRIDGE, REMOTE, None, []),
        (Network.BRIDGE, BOTH, None, []),
        # On a network of its own a step asks the servers that the host's resolver asks.
        (Network.BRIDGE, STUB, REMOTE, ["10.0.0.2", "fe80::1%eth0"]),
    ],
)
def test_servers(host, network, text, upstream, servers):
    with capture_logs() as logs:
        assert list(step_nameservers(network, host(text, upstream))) == servers
    assert logs == []


@pytest.mark.parametrize(
    ("network", "text", "upstream"),
    [
        (Network.BRIDGE, LOCAL, None),
        (Network.BRIDGE, LOCAL, LOCAL),
        (Network.HOST, "search corp.internal\n", None),
        (Network.HOST, None, None),
    ],
)
def test_public_servers_are_warned_of(host, network, text, upstream):
    with capture_logs() as logs:
        assert list(step_nameservers(network, host(text, upstream))) == []
    (warning,) = logs
    assert "8.8.8.8" in warning["event"]
    assert "run_dns" in warning["event"]
