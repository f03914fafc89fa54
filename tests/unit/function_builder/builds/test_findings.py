"""Warnings, the step at fault and the excerpt, read off status events."""

import pytest

from aiobuildkit import (
    RPCError,
    SolveError,
    SourceLocation,
    SourceRange,
    StatusCode,
    StatusEvent,
    Vertex,
    VertexWarning,
)
from function_builder.builds.failures import classify
from function_builder.builds.findings import MAX_NAME_CHARS, Findings
from function_builder.builds.masking import Mask
from function_builder.builds.transcript import Transcript
from function_builder.contract.findings import MAX_WARNINGS, BuildWarning, Reason
from function_builder.contract.log import LogPrefixes

URL = "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/"


def at(*lines: int, text: str = "", file: str = "Dockerfile") -> SourceLocation:
    return SourceLocation(file, tuple(SourceRange(line, 0, line, 0) for line in lines), text)


def warned(short: str, *lines: int, url: str = "") -> StatusEvent:
    source = at(*lines) if lines else None
    return StatusEvent(warnings=(VertexWarning("sha256:0", 1, short, (), url, source),))


def test_a_warning_of_a_rule_is_taken_apart():
    findings = Findings(Mask({}))
    event = warned('WorkdirRelativePath: Relative workdir "app" (line 4)', 4, url=URL)
    told = BuildWarning('Relative workdir "app"', "WorkdirRelativePath", URL, "Dockerfile", 4)
    assert findings.observe(event) == [told]
    assert str(told) == f'WorkdirRelativePath: Relative workdir "app" (Dockerfile:4) {URL}'
    assert findings.observe(event) == []
    assert findings.warnings == [told]


def test_a_warning_of_no_rule_and_no_place_is_told_as_it_is():
    assert Findings(Mask({})).observe(warned("no output: (line 4) of it")) == [
        BuildWarning("no output: (line 4) of it")
    ]


def test_a_transcript_has_each_warning_as_a_line_without_its_secret():
    transcript = Transcript(Mask({"token": b"hunter22"}), prefixes=LogPrefixes.NONE)
    assert transcript.lines(warned("Rule: hunter22 (line 1)", 1)) == [
        "WARNING: Rule: *** (Dockerfile:1)"
    ]
    assert transcript.findings.warnings[0].message == "***"


def test_thousands_of_warnings_are_told_to_a_bound():
    findings = Findings(Mask({}))
    for number in range(MAX_WARNINGS + 50):
        findings.observe(warned(f"Rule: {number}", 1))
    assert len(findings.warnings) == MAX_WARNINGS


def test_the_vertex_that_buildkit_names_is_the_step_at_fault():
    findings = Findings(Mask({"token": b"hunter22"}))
    vertexes = (
        Vertex("sha256:a", "[unit 2/2] RUN x"),
        Vertex("sha256:b", "[lint 2/2] RUN hunter22"),
    )
    findings.observe(StatusEvent(vertexes=vertexes))
    error = SolveError(StatusCode.UNKNOWN, "x", vertex="sha256:b")
    assert findings.failed_step(error) == "[lint 2/2] RUN ***"


def test_the_error_of_a_vertex_stands_for_one_that_was_not_transferred():
    findings = Findings(Mask({}))
    reset = RPCError(StatusCode.INTERNAL, "the call was reset")
    assert findings.reported(reset) is reset
    vertexes = (
        Vertex("sha256:a", "[2/3] RUN other", error="x: context canceled"),
        Vertex("sha256:b", "[2/2] RUN false", error="exit code: 1"),
    )
    findings.observe(StatusEvent(vertexes=vertexes))
    error = findings.reported(reset)
    assert error.message == "exit code: 1"
    assert findings.failed_step(error) == "[2/2] RUN false"
    assert classify(error, "[2/2] RUN false") == (Reason.STEP, False)


def test_an_error_of_metadata_that_was_not_transferred_is_the_base_images():
    findings = Findings(Mask({}))
    name = "[internal] load metadata for r/a:1"
    text = "r/a:1: failed to resolve source metadata for r/a:1: r/a:1: not found"
    findings.observe(StatusEvent(vertexes=(Vertex("sha256:a", name, error=text),)))
    error = findings.reported(RPCError(StatusCode.INTERNAL, "the call was reset"))
    assert classify(error, name) == (Reason.BASE_IMAGE, False)


def test_a_vertex_whose_error_is_quoted_is_the_step_at_fault():
    findings = Findings(Mask({}))
    vertexes = [Vertex(f"sha256:{n}", f"{n}", error="context canceled") for n in range(100)]
    export = Vertex("sha256:e", "exporting to image", error="failed to push r/a: denied")
    findings.observe(StatusEvent(vertexes=(*vertexes, export)))
    error = SolveError(StatusCode.UNKNOWN, "failed to push r/a: denied")
    assert findings.failed_step(error) == "exporting to image"
    assert findings.failed_step(SolveError(StatusCode.UNKNOWN, "something else")) == ""


def test_the_step_that_runs_is_known_until_it_ends():
    findings = Findings(Mask({}))
    assert findings.running_step() == ""
    findings.observe(StatusEvent(vertexes=(Vertex("a", "x" * 5000, started=1),)))
    findings.observe(StatusEvent(vertexes=(Vertex("b", "later", started=2),)))
    assert len(findings.running_step()) == MAX_NAME_CHARS
    findings.observe(StatusEvent(vertexes=(Vertex("a", "x", started=1, completed=3),)))
    assert findings.running_step() == "later"


TEXT = "FROM a\nRUN one\nRUN two \\\n  hunter22 \\\n  three\r\nCOPY . .\n"


def test_the_excerpt_is_as_docker_prints_it():
    source = Findings(Mask({"token": b"hunter22"})).excerpt(at(3, 4, 5, text=TEXT))
    assert source is not None
    assert (source.file, source.line, source.end_line) == ("Dockerfile", 3, 5)
    assert source.excerpt.splitlines() == [
        "Dockerfile:3",
        "--------------------",
        "   2 |     RUN one",
        "   3 | >>> RUN two \\",
        "   4 | >>>   *** \\",
        "   5 | >>>   three",
        "   6 |     COPY . .",
        "--------------------",
    ]


@pytest.mark.parametrize(("line", "shown"), [(1, [1, 2, 3]), (2, [1, 2, 3, 4]), (7, [5, 6, 7])])
def test_a_single_line_has_two_around_it(line, shown):
    source = Findings(Mask({})).excerpt(at(line, text=TEXT))
    assert source is not None
    assert [int(each[:4]) for each in source.excerpt.splitlines()[2:-1]] == shown


@pytest.mark.parametrize(
    "location", [None, at(text=TEXT), at(0, text=TEXT), at(99, text=TEXT), at(-1, 3, text=TEXT)]
)
def test_a_place_that_is_not_in_the_file_has_no_excerpt(location):
    assert Findings(Mask({})).excerpt(location) is None


def test_an_excerpt_is_bounded():
    text = "RUN <<E\n" + "".join(f"{n} {'x' * 5000}\n" for n in range(5000)) + "E\n"
    location = SourceLocation("Dockerfile", (SourceRange(1, 0, 5002, 0),), text)
    source = Findings(Mask({})).excerpt(location)
    assert source is not None
    assert source.end_line == 5002
    assert len(source.excerpt) < 12_000
