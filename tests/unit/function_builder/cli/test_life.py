"""What `up` shows of builds."""

import structlog
from structlog.testing import CapturingLogger

from function_builder.cli.life import Life


def shown(*events: tuple[str, dict[str, object]], begun: bool = True) -> list[str]:
    said: list[str] = []
    life = Life("http://builder", said.append, clock=lambda: 0.0)
    if begun:
        life.begin()
    log = structlog.wrap_logger(CapturingLogger(), processors=[life, lambda *_: ""])
    for event, values in events:
        log.info(event, **values)
    return [line.partition("  ")[2] for line in said]


def test_a_line_for_each_build_that_comes_starts_and_ends():
    sent: dict[str, object] = {"image": "r/f:1", "client": "10.0.0.7", "build": "0a"}
    ended: dict[str, object] = {"image": "r/f:1", "build": "0a", "seconds": 4.23}
    assert shown(
        ("build queued", sent),
        ("build started", sent),
        ("build ended", ended | {"outcome": "success", "error": ""}),
        ("build ended", ended | {"outcome": "failed", "error": "exit code: 1\nmore"}),
        ("build refused", {"error": "no config", "client": "10.0.0.7"}),
        ("serving", {"listen": "127.0.0.1:8080"}),
    ) == [
        "queued     r/f:1  from 10.0.0.7",
        "started    r/f:1  from 10.0.0.7",
        "success    r/f:1  4.2 s  http://builder/web/builds/0a",
        "failed     r/f:1  4.2 s  exit code: 1  http://builder/web/builds/0a",
        "refused    no config  from 10.0.0.7",
    ]


def test_nothing_steers_the_terminal():
    (line,) = shown(("build started", {"image": "r/f:1\x1b[2J\r\x07", "client": ""}))
    assert line == "started    r/f:1  "


def test_nothing_is_shown_before_it_begins():
    assert shown(("build started", {"image": "r/f:1"}), begun=False) == []
