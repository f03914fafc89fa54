import dataclasses
import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console

from function_builder.cli.given import Progress
from function_builder.cli.live_view import LiveView
from function_builder.cli.plain_view import PlainView
from function_builder.cli.views import JsonView, QuietView, choose_view
from function_builder.client import BuildResult, BuildStatus
from function_builder.contract.findings import SourceExcerpt

TIME = "2025-06-13T20:16:16Z"
RUN = "[2/3] RUN npm i"
BEGIN = (f"v: {RUN}", f"v: {RUN}")
"""A step of the Dockerfile is announced first, in the same words."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(*, height: int = 20, width: int = 60) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system=None,
        width=width,
        height=height,
        highlight=False,
    )


def event(*lines: str) -> BuildResult:
    log = tuple(f"{line[:2]} {TIME}{line[2:]}" for line in lines)
    return BuildResult(status=BuildStatus.IN_PROGRESS, log=log)


def failed(error: str) -> BuildResult:
    return BuildResult(status=BuildStatus.FAILED, error=error, duration=4.21)


SUCCEEDED = BuildResult(status=BuildStatus.SUCCESS, duration=4.21)


def rows(console: Console, show: Callable[[], object]) -> list[str]:
    """What a terminal's lines hold after something was shown, trailing space apart."""
    with console.capture() as capture:
        console.print(show())
    return [line.rstrip() for line in capture.get().splitlines()]


def live(console: Console, clock: Clock) -> LiveView:
    return LiveView(console, "Building hello:1", clock=clock)


def test_the_picture_has_a_line_for_each_step_with_its_time() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event("v: [3/3] COPY . .", f"v: {RUN}", "v: [1/3] FROM busybox"))
    assert rows(console, view._picture) == ["Building hello:1  0.0s  0/3", ""]
    view.progress(event("v: [1/3] FROM busybox", "v: [1/3] FROM busybox 0.05s"))
    clock.now = 1.0
    view.progress(event(*BEGIN))
    clock.now = 3.5
    view.progress(event("l: added 1 package", "l: \x1b[31mand\x1b[0m\x1b[2J \x07one more"))
    assert rows(console, view._picture) == [
        "Building hello:1  3.5s  1/3",
        "✓ [1/3] FROM busybox                                   0.05s",
        "▶ [2/3] RUN npm i                                       2.5s",
        "│ added 1 package",
        "│ and one more",
        "",
    ]


def test_the_picture_says_what_is_being_moved() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event("v: [internal] load build context", "s: transferring context: 1234567"))
    assert (
        rows(console, view._picture)[0]
        == "Building hello:1  0.0s  0/1  transferring context: 1.2 MB"
    )
    view.progress(event("v: [internal] load build context 0.10s"))
    assert rows(console, view._picture)[0] == "Building hello:1  0.0s  1/1"


def test_output_is_shown_while_its_step_runs_and_not_under_the_next() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event(*BEGIN, "l: noise", f"v: {RUN} 1.00s", "v: exporting to image"))
    assert not any("noise" in row for row in rows(console, view._picture))


def test_a_step_that_begins_anew_runs_again_and_its_longest_time_counts() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event("v: exporting", "v: exporting 1.25s", "v: exporting"))
    clock.now = 2.0
    assert rows(console, view._picture)[1].split() == ["▶", "exporting", "2.0s"]
    view.progress(event("v: exporting 0.50s"))
    assert rows(console, view._picture)[1].split() == ["✓", "exporting", "1.25s"]


def test_a_step_that_ends_without_having_begun_was_cached_if_its_build_ended_well() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event(f"v: {RUN}", f"v: {RUN} 0.00s"))
    assert rows(console, view._picture)[1] == f"✓ {RUN}"
    assert shown(console, view, SUCCEEDED)[0].split()[-1] == "cached"
    view.progress(event(f"v: {RUN}"))
    assert rows(console, view._picture)[1].startswith("▶")


@pytest.mark.parametrize("height", [8, 12, 40])
def test_the_picture_fits_the_terminal_and_keeps_what_runs(height: int) -> None:
    console, clock = terminal(height=height), Clock()
    view = live(console, clock)
    view.progress(event(*BEGIN))
    for number in range(30):
        view.progress(event(f"v: COPY {number} .", f"v: COPY {number} . 0.01s", f"l: {number}"))
    picture = rows(console, view._picture)
    assert len(picture) <= max(height, 11)
    assert any(row.startswith(f"▶ {RUN}") for row in picture)
    assert any(row.startswith("✓ COPY 29 .") for row in picture)


def test_a_long_name_is_cut_and_never_wraps() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event(*["v: [2/3] RUN " + "x" * 200] * 2, "l: " + "y" * 200))
    picture = rows(console, view._picture)
    assert len(picture) == 4
    assert all(len(row) <= 60 for row in picture)


def shown(console: Console, view: LiveView, result: BuildResult) -> list[str]:
    with console.capture() as capture:
        view.finish(result)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_good_end_leaves_every_step() -> None:
    console, clock = terminal(height=5), Clock()
    view = live(console, clock)
    for number in range(30):
        view.progress(event(f"v: COPY {number} .", f"v: COPY {number} . 0.01s", "l: noise"))
    left = shown(console, view, SUCCEEDED)
    assert len(left) == 31
    assert all(row.startswith("✓") for row in left[:-1])
    assert left[-1] == "Built in 4.2s"


def test_a_bad_end_marks_the_step_and_shows_its_output() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    view.progress(event("v: [1/3] FROM busybox 0.05s", *BEGIN, "l: no such package"))
    view.progress(event(f"v: {RUN} 1.20s", "v: [3/3] COPY . .", "v: [3/3] COPY . . 0.00s"))
    error = 'failed to solve: process "/bin/sh -c npm i" did not complete: exit code: 1'
    left = shown(console, view, failed(error))
    assert left == [
        "· [1/3] FROM busybox                                   0.05s",
        "✗ [2/3] RUN npm i                                      1.20s",
        "· [3/3] COPY . .",
        "│ no such package",
        f"Build failed after 4.2s: {error}",
    ]


def test_an_error_may_have_lines_but_steers_no_terminal() -> None:
    console, clock = terminal(), Clock()
    left = shown(console, live(console, clock), failed("one\n\x1b[2Jtwo"))
    assert left[-2:] == ["Build failed after 4.2s: one", "two"]


def plain(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def pipe() -> Console:
    return Console(file=io.StringIO(), width=20, highlight=False)


def test_plain_lines_of_a_builder_that_tells_no_steps() -> None:
    console = pipe()
    with PlainView(console) as view:
        view.note("the builder is busy, and this line is longer than the width")
        view.progress(event("v: [internal] load", "v: [internal] load 0.00s"))
        view.progress(event("v: [internal] load", "v: [internal] load 0.03s", *BEGIN))
        view.progress(event("s: transferring context: 28", "l: [red]hello[/]", f"v: {RUN} 1.20s"))
        view.progress(event("v: [3/3] COPY . .", "v: [3/3] COPY . . 0.00s"))
        view.progress(event("v: exporting to image 0.50s"))
        view.finish(SUCCEEDED)
        view.finish(failed("no"))
    assert plain(console) == [
        "the builder is busy, and this line is longer than the width",
        "[internal] load",
        "[internal] load  0.03s",
        "[2/3] RUN npm i",
        "  [red]hello[/]",
        "[2/3] RUN npm i  1.20s",
        "[3/3] COPY . .",
        "exporting to image  0.50s",
        "Built in 4.2s",
        "Build failed after 4.2s: no",
    ]


def tagged(*lines: tuple[str, str]) -> BuildResult:
    """Lines with their steps."""
    plain_event = event(*(line for line, _ in lines))
    return dataclasses.replace(plain_event, steps=tuple(step for _, step in lines))


FROM, LOAD = "[a 1/2] FROM busybox", "[internal] load build context"
PARALLEL = (
    tagged((f"v: {FROM}", "1 announced"), ("v: [a 2/2] RUN x", "2 announced")),
    tagged((f"v: {FROM}", "1 started"), (f"v: {FROM} 0.01s", "1 completed")),
    tagged((f"v: {LOAD}", "6 started"), ("s: transferring context: 9", "6 moving")),
    tagged((f"v: {LOAD} 0.03s", "6 completed"), (f"v: {FROM}", "1 started")),
    tagged((f"v: {FROM} 0.23s", "1 completed"), ("v: [a 2/2] RUN x", "2 started")),
    tagged(("v: [b 2/3] RUN sleep 1.50s", "3 started"), ("l: of a", "2"), ("l: of b", "3")),
    tagged(("v: [b 1/3] COPY nothere .", "4 started"), ("v: [c 2/2] RUN y 0.00s", "5 cached")),
    tagged(
        ("v: [b 1/3] COPY nothere . 0.00s", "4 failed"), ("v: [a 2/2] RUN x 1.20s", "2 cancelled")
    ),
    tagged(("v: [b 2/3] RUN sleep 1.50s 1.50s", "3 completed"), ("l: a note", "")),
)


def test_plain_lines_have_the_step_that_they_belong_to() -> None:
    console = pipe()
    with PlainView(console) as view:
        for each in PARALLEL:
            view.progress(each)
        view.finish(failed("no"))
    assert plain(console) == [
        f"#1 {FROM}",
        "#1 DONE 0.01s",
        f"#6 {LOAD}",
        "#6 DONE 0.03s",
        "#1 DONE 0.23s",
        "#2 [a 2/2] RUN x",
        "#3 [b 2/3] RUN sleep 1.50s",
        "#2 of a",
        "#3 of b",
        "#4 [b 1/3] COPY nothere .",
        "#5 [c 2/2] RUN y",
        "#5 CACHED",
        "#4 FAILED after 0.00s",
        "#2 CANCELLED",
        "#3 DONE 1.50s",
        "  a note",
        "Build failed after 4.2s: no",
    ]


def test_a_bad_end_knows_which_steps_were_cached_failed_or_cancelled() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    for each in PARALLEL:
        view.progress(each)
    assert any(row.startswith("✗ [b 1/3]") for row in rows(console, view._picture))
    left = [row.split() for row in shown(console, view, failed("no"))]
    marks = {row[1] + row[2]: (row[0], row[-1]) for row in left if len(row) > 3}
    assert marks["[b1/3]"] == ("✗", "0.00s")
    assert marks["[c2/2]"] == ("✓", "cached")
    assert marks["[a2/2]"] == ("·", "cancelled")
    assert marks["[b2/3]"] == ("✓", "1.50s")


def test_a_long_push_is_told_as_it_begins_and_once_it_has_ended() -> None:
    console, clock = pipe(), Clock()
    with PlainView(console, clock=clock) as view:
        view.progress(tagged(("v: exporting to image", "7 started")))
        view.progress(tagged(("s: exporting layers 0", "7 moving"), ("s: sha256:ab 9", "7 moving")))
        clock.now = 0.5
        view.progress(tagged(("s: exporting layers 0", "7 moved"), ("s: pushing 0", "7 moving")))
        clock.now = 4.0
        view.progress(tagged(("s: pushing 0", "7 moved"), ("s: sha256:ab 1500000", "7 moved")))
        view.progress(tagged(("v: exporting to image 4.00s", "7 completed")))
        view.finish(SUCCEEDED)
    assert plain(console) == [
        "#7 exporting to image",
        "#7 exporting layers",
        "#7 pushing",
        "#7 pushing 3.5s",
        "#7 sha256:ab 1.5 MB 4.0s",
        "#7 DONE 4.00s",
        "Built in 4.2s",
    ]


@pytest.mark.parametrize(
    ("variables", "console", "expected"),
    [
        ({}, terminal(), LiveView),
        ({}, Console(file=io.StringIO()), PlainView),
        ({"CI": "true"}, terminal(), PlainView),
        ({"NO_COLOR": "1"}, terminal(), LiveView),
        ({"TERM": "dumb"}, terminal(), PlainView),
    ],
)
def test_who_sees_which(
    variables: dict[str, str],
    console: Console,
    expected: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setitem(console._environ, name, value)
        monkeypatch.setenv(name, value)
    assert isinstance(choose_view(console, "Building"), expected)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress.TTY, LiveView),
        (Progress.PLAIN, PlainView),
        (Progress.QUIET, QuietView),
        (Progress.JSON, JsonView),
    ],
)
def test_a_view_can_be_chosen(progress: Progress, expected: type) -> None:
    assert isinstance(choose_view(terminal(), "Building", progress), expected)


def test_a_failure_shows_the_id_and_without_a_log_its_place_in_the_dockerfile() -> None:
    excerpt = "Dockerfile:2\n-----\n   2 | >>> RUN exit 3\x1b[2J\n-----"
    result = dataclasses.replace(
        failed("exit code: 3"),
        source=SourceExcerpt("Dockerfile", 2, 2, excerpt),
        build_id="0123456789abcdef01234567",
    )
    for progress in (Progress.PLAIN, Progress.TTY, Progress.QUIET):
        console = terminal()
        choose_view(console, "Building", progress).finish(result)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        # The other views show the log, which ends with these lines.
        place = ["Dockerfile:2", "-----", "   2 | >>> RUN exit 3", "-----"]
        assert lines[:4] == place if progress is Progress.QUIET else ">>>" not in "".join(lines)
        assert lines[-2:] == [
            "Build failed after 4.2s: exit code: 3",
            "Build id: 0123456789abcdef01234567",
        ]


def test_quiet_says_nothing_of_a_build_that_succeeds() -> None:
    console = terminal()
    with choose_view(console, "Building", Progress.QUIET) as view:
        view.note("trying again")
        view.upload(1, 10_000_000)
        view.progress(event(*BEGIN))
        view.finish(SUCCEEDED)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_json_is_the_answers_objects_and_the_last_without_the_log() -> None:
    console = terminal(width=20)
    with choose_view(console, "Building", Progress.JSON) as view:
        view.note("trying again")
        view.progress(dataclasses.replace(event(f"l: {'x' * 100}"), steps=("1",)))
        view.finish(dataclasses.replace(SUCCEEDED, image="r/f:1", log=("l: x",)))
    note, line, last = map(json.loads, console.file.getvalue().splitlines())  # type: ignore[attr-defined]
    assert note == {"note": "trying again"}
    assert (line["status"], line["steps"]) == ("in_progress", ["1"])
    assert line["log"] == [f"l: {TIME} {'x' * 100}"]
    assert (last["status"], last["image"], last["log"]) == ("success", "r/f:1", [])


def test_the_step_that_the_builder_names_is_the_one_that_failed() -> None:
    console = terminal()
    quoted = '[1/1] RUN echo "a" && false'
    view = live(console, Clock())
    view.progress(event(f"v: {quoted}", f"v: {quoted}", "v: [2/2] COPY . ."))
    view.finish(dataclasses.replace(failed("it failed"), step=quoted))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line[0] for line in shown.splitlines() if "RUN" in line] == ["✗"]


def test_a_large_request_shows_how_much_of_it_is_sent() -> None:
    console, clock = terminal(), Clock()
    view = live(console, clock)
    clock.now = 2.0
    view.upload(6_000_000, 46_000_000)
    assert "sending 6.0 MB of 46.0 MB, 3.0 MB/s" in rows(console, view._picture)[0]
    view.upload(46_000_000, 46_000_000)
    assert "sending" not in rows(console, view._picture)[0]


def test_plain_lines_say_how_large_a_request_is_and_how_long_it_took() -> None:
    console, clock = terminal(), Clock()
    view = PlainView(console, clock=clock)
    view.upload(900, 900)
    view.upload(1_000_000, 46_000_000)
    clock.now = 11.5
    view.upload(46_000_000, 46_000_000)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "Sending 46.0 MB",
        "Sent 46.0 MB in 11.5s, 4.0 MB/s",
    ]
