"""The documents' links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Not those of the packages that npm installs there.
OF_EXAMPLES = sorted(
    path for path in ROOT.glob("examples/**/README.md") if "node_modules" not in path.parts
)


def anchors(document: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, *OF_EXAMPLES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_examples_that_commands_name_exist(document: Path) -> None:
    for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        for path in re.findall(r"\bexamples/[\w./-]+", block):
            assert (ROOT / path).exists(), path


def test_the_image_page_tells_every_argument_of_the_dockerfile() -> None:
    arguments = set()
    for line in re.findall(
        r"^ARG (.*)$", (ROOT / "image" / "Dockerfile").read_text(), re.MULTILINE
    ):
        arguments |= {word.partition("=")[0] for word in line.split()}
    page = (ROOT / "docs/image.md").read_text()
    told = {
        name
        for row in re.findall(r"^\| (`[A-Z_`, ]+) \|", page, re.MULTILINE)
        for name in re.findall(r"`([A-Z_]+)`", row)
    }
    # BuildKit gives the platforms.
    assert told == {name for name in arguments if name != "TARGETARCH"}
    for name, value in re.findall(
        r"^ARG ([A-Z_]+)=(\S+)$", (ROOT / "image" / "Dockerfile").read_text(), re.MULTILINE
    ):
        assert f"| `{name}` | `{value}` |" in page
