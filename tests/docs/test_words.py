"""What the check of the pages' words counts as a sentence, and which words it finds."""

import re
from pathlib import Path

import pytest

from scripts.words import MAX_WORDS, findings, long_sentences

LONG = "word " * MAX_WORDS + "end."
SHORT = "word " * (MAX_WORDS - 1) + "end."


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(SHORT, id="the most words"),
        pytest.param(f"{SHORT} {SHORT}", id="two sentences"),
        pytest.param(f"**{SHORT}** _{SHORT}_ ({SHORT}) {SHORT}", id="markup between sentences"),
        pytest.param(f"- {SHORT[:-1]}\n- {SHORT[:-1]}\n", id="list items without a stop"),
        pytest.param(f"# {LONG}\n", id="a heading"),
        pytest.param(f"| {LONG} |\n", id="a table"),
        pytest.param(f"```sh\n{LONG}\n\n{LONG}\n```\n", id="code"),
        pytest.param(f"<!-- {LONG}\n{LONG} -->\n", id="a comment"),
        pytest.param(f"[{SHORT[:-1]}](a.md 'b c d')", id="a link's address"),
        pytest.param("word · — → " * MAX_WORDS, id="signs are not words"),
    ],
)
def test_short_sentences(page: str) -> None:
    # Each sentence begins with a capital.
    page = re.sub(r"(?<=[_(])w|(?<=[.)] )w", "W", page)
    assert list(long_sentences(page)) == []


@pytest.mark.parametrize(
    ("page", "line"),
    [
        pytest.param(LONG, 1, id="in one line"),
        pytest.param(LONG.replace("word word", "word\nword"), 1, id="over lines"),
        pytest.param(f"Short.\n\n- short\n- {LONG}", 4, id="in a list"),
        pytest.param(LONG.replace("word word", "word: word", 1), 1, id="with a colon"),
        pytest.param(LONG.replace("word word", "word; word", 1), 1, id="with a semicolon"),
        pytest.param(LONG.replace("word word", "word 0.5 e.g. word", 1), 1, id="with other dots"),
        pytest.param(f"```\ncode\n```\n{LONG}", 4, id="after code"),
        pytest.param(f"> {LONG}", 1, id="in a quote"),
    ],
)
def test_long_sentences(page: str, line: int) -> None:
    assert [number for number, _ in long_sentences(page)] == [line]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("page.md", "A user that nobody knows.", [(1, "«nobody»")]),
        ("page.md", "It runs as `nobody`.\n\nIt is built Anew.\n", [(3, "«Anew»")]),
        ("page.md", f"{LONG}\n", [(1, f"a sentence of {MAX_WORDS + 1} words: {'word ' * 8}…")]),
        ("code.py", f"likewise = 1  # {LONG}\n", []),
        ("code.py", '"""One.\n\n    Whoever asks.\n    """\n', [(3, "«Whoever»")]),
        ("code.py", "x = 1  # in vain\n", [(1, "«in vain»")]),
        ("page.md", "It goes on. It goes on to BuildKit.", [(1, "«goes on»")]),
        ("page.md", "The image that is to be pushed.", [(1, "«is to be»")]),
        ("values.yaml", "# hence\nkey: 1\n", [(1, "«hence»")]),
    ],
)
def test_words(tmp_path: Path, name: str, text: str, found: list[tuple[int, str]]) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert findings(path) == found
