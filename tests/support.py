"""What tests share that is no fixture."""

import socket


def free_address() -> str:
    """A loopback `host:port` that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
