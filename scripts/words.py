"""Plain words: what this repository's prose may not say, and how long its sentences may be.

The words are those that CONTRIBUTING.md rules out. They are looked for in the pages, in comments,
docstrings and messages of `src` and `packages`, in the chart and in TOML files. In the pages a
sentence has at most MAX_WORDS.

A sentence ends with `.`, `?` or `!` before a space and a capital letter, digit, quote or markup,
and at the end of its paragraph, list item or quote. `:` and `;` do not end one. Code blocks,
tables, headings and comments are left out; code in backticks and a link's text count by their
words.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_WORDS = 25

WORDS = re.compile(
    r"\b(nobody|somebody|anybody|whoever|whomever|likewise|in vain|anew|goodbye|deaf|the dead"
    r"|leaves? the stage|own accord|hand(?:s|ed|ing)? on|last words|hence|upon|thereby|therein"
    r"|whereupon|reckon(?:s|ed|ing)?|of no account|beheld|afresh|for ever|in so many words"
    r"|came to nothing|(?:is|are) told|for want of|(?:is|are|was|were) away|there again"
    r"|in force|of before|of yours|just now|at sight|to be had|tells? of|(?:is|are|was|were) to be"
    r"|(?:go(?:es|ing)?|went) on(?! to)|(?:is|are|was|were) answered (?=[45]\d\d)"
    r"|whose an? \w+ is|has to itself"
    r"|kept no longer|stands? in (?:line|for)|(?:hand(?:ed|s)?|was handed) out|c[ao]mes? to no"
    # «It is not a key», and not «it is no key»; «there is no key» is plain.
    r"|(?<!there )(?:is|are|was|were) no (?!longer|more|less|limit)\w+)\b",
    re.IGNORECASE,
)
_PAGES = ("*.md", "docs/*.md", "examples/*.md", "chart/*.md", "packages/*.md", "tests/*.md")
_OTHERS = (
    "*.toml",
    "packages/*.py",
    "packages/*.ts",
    "src/*.py",
    "src/*.yaml",
    "chart/*.yaml",
    "chart/*.yml",
    "chart/*.tpl",
    "chart/*.txt",
    "chart/*.json",
)
_SENTENCE = re.compile(r"(?<=[.?!])[)*_\"»”]*\s+(?=[\"'(*`«“\[_]*[A-Z0-9`])")
_BLOCK = re.compile(r"^\s*(?:[-*+]|\d+\.|>)\s+")


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """The number of its first line, and the text, of each paragraph and list item of a page."""
    first, lines, fenced = 0, list[str](), False
    page = re.sub(r"<!--.*?-->", lambda found: "\n" * found[0].count("\n"), page, flags=re.DOTALL)
    for number, line in enumerate([*page.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        item = _BLOCK.match(line)
        if fence or fenced or item or not line.strip() or line.lstrip().startswith(("#", "|")):
            if lines:
                yield first, " ".join(lines)
            lines = []
            fenced ^= fence
            if item and not fenced:
                first, lines = number, [line[item.end() :].strip()]
        else:
            first = first if lines else number
            lines.append(line.strip())


def long_sentences(page: str) -> Iterator[tuple[int, str]]:
    """Where a paragraph with a sentence of too many words begins, and that sentence's beginning."""
    for number, paragraph in paragraphs(page):
        text = re.sub(r"\]\([^)]*\)", "]", paragraph)
        for sentence in _SENTENCE.split(text):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if len(words) > MAX_WORDS:
                yield number, f"a sentence of {len(words)} words: {' '.join(words[:8])} …"


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """The text of a file that is meant for readers, by line: of Python, comments and strings."""
    source = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) and not token.string.startswith("b"):
            yield from enumerate(token.string.splitlines(), token.start[0])


def findings(path: Path) -> list[tuple[int, str]]:
    """What is not plain in a file: the line's number, and what it is."""
    found = []
    for number, text in spoken(path):
        # A name in backticks is a name: the user `nobody`.
        words = WORDS.findall(re.sub(r"`[^`]*`", "", text))
        found += [(number, f"«{word}»") for word in words]
    if path.suffix == ".md" and path.name != "CHANGELOG.md":
        found += long_sentences(path.read_text())
    return sorted(found)


def main() -> int:
    """Print what is found in the files that git knows, or will know: also what is new."""
    kinds = ("--cached", "--others", "--exclude-standard")
    listing = ["git", "ls-files", "-z", *kinds, *_PAGES, *_OTHERS]
    names = subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    problems = [
        f"{name}:{number}: {what}"
        for name in sorted({*names.split("\0")} - {""})
        if (ROOT / name).exists()
        for number, what in findings(ROOT / name)
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
