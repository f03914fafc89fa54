"""What MkDocs makes of this repository's documents: links, generated pages and `llms.txt`.

The pages are written for GitHub. On the site, some lie elsewhere (`PAGES`), and a link to a file
that is not a page leads to the repository.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

import aiobuildkit

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/clients/README.md": "examples.md",
    "packages/node/README.md": "node.md",
    "chart/function-builder/README.md": "chart.md",
}
"""Documents outside `docs/`, and their names on the site."""

_HELPS = ROOT / "src/function_builder/cli/help"
_ASKS_FOR_STARS = ' data-md-component="source"'
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FILE = re.compile(r"^\[`(examples/[^`]+)`\]\([^)]+\)$", re.MULTILINE)
"""A paragraph that is only a link to an example: the site also shows the file."""
_LANGUAGES = {".mjs": "js"}
"""What Pygments calls a language, where that is not the file's suffix."""
_ITEM = re.compile(r"( *)([-*+]|\d+\.)( +)")
_FIRST_WORDS = re.compile(r"\n\n(?![#>|!<\s-]|```)(.+?)(?:\n\n|\n```|\n-|\Z)", re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the documents outside `docs/`, the generated pages, and the script for diagrams."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "cli.md", content="\n".join(_commands())))
    files.append(File.generated(config, "aiobuildkit-api.md", content="\n".join(_names())))
    mermaid = str(ROOT / os.environ["MERMAID_SCRIPT"])
    files.append(File.generated(config, "assets/mermaid.min.js", abs_src_path=mermaid))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """A page's text with links of the site, and lists as Python-Markdown reads them."""
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(match: re.Match[str]) -> str:
        return match[1] + _moved(match[2], source, page.file.src_uri, config) + match[3]

    shown = _FILE.sub(_with_content, _LINK.sub(moved, markdown))
    return "\n".join(_indented(shown.split("\n")))


def on_nav(nav: Navigation, *, config: MkDocsConfig, **_: object) -> Navigation:
    """Remember the navigation for `llms.txt`."""
    config.extra["navigation"] = nav
    return nav


def on_post_page(output: str, **_: object) -> str:
    """A page without the theme's question to GitHub for the repository's stars.

    Raises:
        PluginError: this version of the theme asks in another way.
    """
    if _ASKS_FOR_STARS not in output:
        raise PluginError(f"the theme's pages do not have{_ASKS_FOR_STARS}")
    return output.replace(_ASKS_FOR_STARS, "")


def on_post_template(output_content: str, **_: object) -> str:
    """The same for the page of a path that does not exist; other templates do not ask."""
    return output_content.replace(_ASKS_FOR_STARS, "")


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write `llms.txt`: each page with its first paragraph. Its form: https://llmstxt.org."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for section in config.extra["navigation"]:
        lines += ["", f"## {section.title}", ""]
        for page in section.children:
            url = posixpath.join(config.site_url or "", page.url)
            lines.append(f"- [{page.title}]({url}): {_summary(page.markdown or '')}")
    Path(config.site_dir, "llms.txt").write_text("\n".join(lines) + "\n")


def _moved(link: str, source: str, uri: str, config: MkDocsConfig) -> str:
    """A link of the document `source` as a link of its page `uri` on the site."""
    path, mark, anchor = link.partition("#")
    if not path or "://" in link or link.startswith("mailto:"):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    there = PAGES.get(target)
    if there is None and target.startswith("docs/"):
        there = target.removeprefix("docs/")
    if there is not None:
        return posixpath.relpath(there, posixpath.dirname(uri) or ".") + mark + anchor
    kind = "tree" if (ROOT / target).is_dir() else "blob"
    return f"{config.repo_url}/{kind}/main/{target}{mark}{anchor}"


def _with_content(link: re.Match[str]) -> str:
    """A link to an example, and the file itself."""
    path = ROOT / link[1]
    language = _LANGUAGES.get(path.suffix, path.suffix.removeprefix("."))
    return f"{link[0]}\n\n```{language}\n{path.read_text().rstrip()}\n```"


def _indented(lines: list[str]) -> Iterator[str]:
    """Lines whose lists are indented by four spaces a level, where GitHub asks for two or three."""
    levels: list[int] = []
    fence = ""
    before = ""
    for line in lines:
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text and not fence:
            levels = [each for each in levels if each <= indent]
        here = levels[-1] if levels else 0
        item = None if fence else _ITEM.match(line)
        if item and not levels and before and not _ITEM.match(before):
            yield ""
        shifted = " " * (4 * len(levels) + max(0, indent - here)) + text if text else ""
        yield shifted if levels else line
        if item:
            levels.append(len(item[0]))
        if text.startswith("```"):
            fence = "" if fence else "```"
        before = "" if fence else text


def _summary(markdown: str) -> str:
    found = _FIRST_WORDS.search(markdown)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1] if found else "")
    return " ".join(text.split())


def _names() -> Iterator[str]:
    """The page of aiobuildkit's names, for mkdocstrings."""
    yield "# The API of aiobuildkit\n"
    yield "This page has each public name of `aiobuildkit`, from its docstring.\n"
    yield "[aiobuildkit](aiobuildkit.md) explains how they work together.\n"
    modules: dict[str, list[str]] = {}
    for name in aiobuildkit.__all__:
        # Not `__module__`, which a type alias has from elsewhere.
        modules.setdefault(f"aiobuildkit.{vars(aiobuildkit)['_MODULES'][name]}", []).append(name)
    for module, names in sorted(modules.items()):
        yield f"## {module.rpartition('.')[2].capitalize()}\n"
        yield from (f"::: {module}.{name}\n" for name in names)


def _commands() -> Iterator[str]:
    """The page of the commands, from their `--help`."""
    yield "# Commands\n\nThis page has the help of each command, as `--help` prints it.\n"
    names = _subcommands("function-builder")
    while names:
        for name in names:
            yield f"## {name}\n\n```text\n{_help(name).strip()}\n```\n"
        names = [sub for name in names for sub in _subcommands(name)]


def _help(name: str) -> str:
    return (_HELPS / f"{name.replace(' ', '/')}.txt").read_text()


def _subcommands(name: str) -> list[str]:
    listed = _help(name).partition("\nCommands:\n")[2].partition("\n\n")[0]
    return [f"{name} {sub}" for sub in re.findall(r"^  (\S+)  ", listed, re.MULTILINE)]
