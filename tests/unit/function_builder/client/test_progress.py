import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.client import (
    BuildResult,
    BuildStatus,
    OutputLine,
    StatusLine,
    StepLine,
    StepState,
    log_lines,
    parse_log_line,
)

START, ANNOUNCE, FAIL = StepState.STARTED, StepState.ANNOUNCED, StepState.FAILED


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("v: 2025-06-13T20:16:16Z [1/2] RUN a b", StepLine("[1/2] RUN a b", None)),
        ("v: 2025-06-13T20:16:16Z [1/2] RUN a b 12.35s", StepLine("[1/2] RUN a b", 12.35)),
        ("v: 2025-06-13T20:16:16Z RUN sleep 1", StepLine("RUN sleep 1", None)),
        (
            "s: 2025-06-13T20:16:16Z transferring context: 28",
            StatusLine("transferring context:", 28),
        ),
        ("s: 2025-06-13T20:16:16Z sha256:0c7b 0", StatusLine("sha256:0c7b", 0)),
        ("l: 2025-06-13T20:16:16Z v: quoted 1.00s", OutputLine("v: quoted 1.00s")),
        ("l: 2025-06-13T20:16:16Z ", OutputLine("")),
        ("l: 2025-06-13T20:16:16Z   indented", OutputLine("  indented")),
        ("without a prefix 1.00s", OutputLine("without a prefix 1.00s")),
        ("v: not a time", OutputLine("v: not a time")),
        ("", OutputLine("")),
    ],
)
def test_lines(line: str, read: object) -> None:
    assert parse_log_line(line) == read


@given(st.text())
def test_any_text_is_a_line(text: str) -> None:
    assert parse_log_line(f"l: 2025-06-13T20:16:16Z {text}") == OutputLine(text)
    parse_log_line(f"v: 2025-06-13T20:16:16Z {text}")
    parse_log_line(text)


AT = "2025-06-13T20:16:16Z "


@pytest.mark.parametrize("prefix", ["", AT])
@pytest.mark.parametrize(
    ("kind", "text", "step", "read"),
    [
        ("v", "RUN sleep 1.50s", "3 started", StepLine("RUN sleep 1.50s", None, 3, START)),
        ("v", "RUN sleep 1.50s", "3 announced", StepLine("RUN sleep 1.50s", None, 3, ANNOUNCE)),
        ("v", "RUN x 1.50s", "3 failed", StepLine("RUN x", 1.5, 3, FAIL)),
        ("v", "RUN x", "3 cancelled", StepLine("RUN x", None, 3, StepState.CANCELLED)),
        ("s", "pushing layers 0", "4 moving", StatusLine("pushing layers", 0, 4)),
        ("s", "sha256:ab 12", "4 moved", StatusLine("sha256:ab", 12, 4, ended=True)),
        ("l", "RUN x 1.50s", "3", OutputLine("RUN x 1.50s", 3)),
        ("l", "RUN x 1.50s", "3 unheard-of", OutputLine("RUN x 1.50s", 0)),
    ],
)
def test_a_line_with_its_step_is_read_whatever_its_prefix(kind, text, step, read, prefix) -> None:
    assert parse_log_line(f"{kind}: {AT}{text}", step) == read
    if step != "3 unheard-of":
        assert parse_log_line(prefix + text, step) == read


def test_steps_that_do_not_fit_the_log_are_passed_over() -> None:
    event = BuildResult(status=BuildStatus.IN_PROGRESS, log=("a", "b"), steps=("1",))
    assert list(log_lines(event)) == [OutputLine("a"), OutputLine("b")]


@given(st.text(), st.text())
def test_any_step_is_read(line: str, step: str) -> None:
    parse_log_line(line, step)
