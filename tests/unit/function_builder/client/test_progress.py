import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.client import OutputLine, StatusLine, StepLine, parse_log_line


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
