"""What the oracle builds: directories, ignore files, and the COPYs that look at them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.adversarial.fidelity.trees import Directory, File, Link, Name, Program, Tree


def files(*paths: str) -> Tree:
    """Files that hold their own names."""
    return {path: f"{path}\n" for path in paths}


PROJECT = files(
    *("main.py", "a.txt", "ab.txt", "b.md", "C", ".env", "!a.txt", "#docs", "a b", "é.txt"),
    *("a/b/c/d.txt", "a/c/d.txt", "a-b/c.txt", "a.b/c.txt", "d.txt/e"),
    *("src/app.py", "src/util.py", "src/data/x.json", "src/data/y.csv", "src/README.md"),
    *("src/__pycache__/app.pyc", "src/a/b/c/deep.py", "tests/test_a.py", "tests/data/x.json"),
    *("docs/readme.md", "docs/guide/intro.md", "docs/guide/img/logo.png", "docs/notes.txt"),
    *("node_modules/m/index.js", "node_modules/m/package.json", "build/out.o", "build/keep/k"),
    *(".git/config", ".git/objects/00/11"),
    *("x{2}y", "xxy", "a|b", "p(q)+$", "*star", "[ab].txt"),
) | {"empty": Directory(), "src/empty": Directory()}
"""A project with something for every pattern."""

EVERYTHING = "COPY . {to}/"

WRITTEN = "{dockerfile}"
"""The content of the file that is to hold the Dockerfile, if that is none of the usual name."""


@dataclass(frozen=True)
class Case:
    """One directory and its COPYs.

    Attributes:
        tree: without a Dockerfile, which the oracle writes.
        instructions: each in a stage of its own, with `{to}` for its destination.
        fails: a part of BuildKit's error where the build is to fail.
    """

    name: str
    tree: Tree
    instructions: Sequence[str] = (EVERYTHING,)
    fails: str = ""

    def __str__(self) -> str:
        return self.name


def ignoring(patterns: str | bytes, *, fails: str = "", name: str = "") -> Case:
    """The project with a .dockerignore, copied wholly and in parts."""
    parts = (EVERYTHING, "COPY src* {to}/", "COPY --parents **/*.md {to}/")
    tree = PROJECT | {".dockerignore": File(patterns)}
    return Case(f"ignoring {name or patterns!r}", tree, parts, fails)


IGNORE_FILES = [
    *map(
        ignoring,
        (
            *(
                "*.md\n",
                "docs",
                "docs/",
                "/docs",
                "./docs",
                "docs//guide/",
                "src/../docs",
                "docs/.",
            ),
            *("docs/*", "docs/**", "docs/**/", "**/*.md", "**/guide", "**/guide/**", "**/data/*"),
            *("a/**/d.txt", "a/*/d.txt", "a/**/c", "**/c/d.txt", "**/**/d.txt", "a**", "**.py"),
            *(
                "**a**",
                "a**t",
                "*a*",
                "*",
                "**",
                "***",
                "**/*",
                "*/*",
                "*/*/*",
                "d.txt/*",
                "s*/**/*.py",
            ),
            *("?.txt", "a?.txt", "[ab]*", "[a-c]*", "[^a]*", "[!a]*", "*.[tm][xd]*", "\\[ab].txt"),
            *("\\*star", "\\!a.txt", "\\#docs", "#docs", "!a.txt", "a b", "é*", "?.*", "'docs'"),
            *("a|b*", "x{2}y*", "*.{md,py}", "p(q)+$", "p(*)+$", "^a*", "\\w.txt", "docs  # why"),
            *(".", "./", "/", "..", "../docs", "!.", "", "\n\n", "# nothing\n", "Dockerfile", ".*"),
            *(".dockerignore", "Dockerfile*\n.dockerignore\n", "*.md\r\nsrc/data\r\n", "  *.md\t "),
            *("node_modules\n.git\n**/__pycache__\n*.log\n", "*\n!src", "*\n!src/**", "*\n!src/*"),
            *(
                "*\n!**/*.py",
                "*\n!src/data/x.json",
                "**\n!docs/guide",
                "*\n!s*/data",
                "docs\n!docs",
            ),
            *(
                "docs\n!docs/readme.md",
                "docs\n!docs/guide",
                "docs/*\n!docs/guide/img",
                "!docs\ndocs",
            ),
            *(
                "docs/**\n!docs/guide/img/logo.png",
                "docs\n!docs/guide\ndocs/guide/img",
                "src\n!**/a",
            ),
            *("src\n!src/data\nsrc/data/x.json", "**/*.py\n!src/app.py", "src/*\n! src/app.py"),
            *("!src/app.py\nsrc", "src\n!/src/app.py", "src\n!src/\nsrc/data/", "*\n!*.py\n!empty"),
            *("*.txt\n!a*.txt\nab.txt", "**/data\n!**/data/*.json", "src/a\n!**/deep.py", "src/e*"),
        ),
    ),
    ignoring(b"\xef\xbb\xbf*.md\nsrc\n", name="a BOM"),
    ignoring(b"\xef\xbb\xbf# a comment\r\n*.md\r\n", name="a BOM before a comment"),
    ignoring("[", fails="syntax error in pattern"),
    ignoring("a[\n", fails="syntax error in pattern"),
    ignoring("x\\", fails="syntax error in pattern"),
    ignoring("!\n", fails='illegal exclusion pattern: "!"'),
    Case(
        "an ignore file of the Dockerfile's own",
        PROJECT | {"Dockerfile.dockerignore": "docs\n", ".dockerignore": "src\n"},
        (EVERYTHING, "COPY src {to}/"),
    ),
    Case(
        "an empty ignore file of the Dockerfile's own",
        PROJECT | {"Dockerfile.dockerignore": "", ".dockerignore": "src\n"},
        (EVERYTHING, "COPY src {to}/"),
    ),
    Case(
        "an ignored source",
        PROJECT | {".dockerignore": "docs\n"},
        ("COPY docs/readme.md {to}/",),
        fails='"/docs/readme.md": not found',
    ),
    Case(
        "an ignored directory, copied with what is taken back",
        PROJECT | {".dockerignore": "docs\n!docs/guide/intro.md\n"},
        ("COPY docs {to}/", "COPY docs/guide/*.md {to}/"),
    ),
    Case(
        "a link to the ignore file",
        PROJECT | {".dockerignore": Link("ignored/list"), "ignored/list": "docs\nsrc/data\n"},
    ),
]


def copying(*instructions: str, ignore: str = "", fails: str = "") -> Case:
    """The project with these COPYs alone, so that BuildKit asks for their sources only."""
    tree = PROJECT | {".dockerignore": ignore} if ignore else PROJECT
    return Case(f"copying {' + '.join(instructions)}", tree, instructions, fails)


COPIES = [
    *map(
        copying,
        (
            *("COPY a.txt {to}/", "COPY a.txt {to}", "COPY src/data/x.json {to}/renamed.json"),
            *("COPY src {to}", "COPY src/ {to}/", "COPY /src {to}", "COPY ./src/../docs {to}"),
            *(
                "COPY ../../src {to}/",
                "COPY src/. {to}/",
                "COPY empty {to}/",
                "COPY src/empty {to}",
            ),
            *("COPY *.txt {to}/", "COPY a?.txt {to}/", "COPY [a-b]*.txt {to}/", "COPY src/* {to}/"),
            *("COPY */*.md {to}/", "COPY docs/*/intro.md {to}/", "COPY */data/x.json {to}/"),
            *("COPY src/app.py src/util.py {to}/", "COPY a.txt src docs/guide {to}/"),
            *('COPY ["a b", "{to}/"]', "COPY é.txt {to}/", "COPY \\*star {to}/", "COPY a|b {to}/"),
            *("COPY [[]ab].txt {to}/", "COPY x{2}y {to}/", "COPY .env* {to}/"),
            *(
                "COPY --chmod=755 src {to}/",
                "COPY --chmod=0600 a.txt {to}/",
                "COPY --link src {to}/",
            ),
            *("COPY --chmod=u=rwX,go=rX src {to}/", "COPY --chown=1000:1000 src {to}/"),
            *("COPY --parents src/app.py docs/guide {to}/", "COPY --parents src/**/*.py {to}/"),
            *("COPY --parents ./docs/./guide/ {to}/", "COPY --parents */data {to}/"),
            *("COPY --exclude=*.md docs {to}/", "COPY --exclude=**/*.pyc --exclude=data src {to}/"),
            *("COPY --parents --exclude=**/data src/** {to}/", "COPY --exclude=*.txt * {to}/"),
            *("ADD src {to}/", "ADD --chmod=700 a.txt {to}/", "COPY . {to}/", "COPY * {to}/"),
        ),
    ),
    copying("COPY nothing {to}/", fails='"/nothing": not found'),
    copying("COPY nothing* {to}/"),
    # The source becomes a pattern, and as such an exception.
    copying("COPY !a.txt {to}/", fails='"/!a.txt": not found'),
    copying("COPY src/app.py/x {to}/", fails='"/src/app.py/x": not found'),
    copying("COPY src {to}/", ignore="**/*.json\nsrc/a\n"),
    copying("COPY src/* docs/guide {to}/", ignore="**/data\n!src/data/x.json\n"),
    copying("COPY --parents src/** {to}/", ignore="*\n!**/*.py\n"),
]


def modes(name: str, tree: Tree) -> Case:
    """Files and directories with modes, copied with their directory and by themselves."""
    return Case(f"modes: {name}", tree | {"d/plain": "plain"}, ("COPY d {to}/", "COPY d/* {to}/"))


MODES = [
    modes(
        "files", {f"d/{mode:04o}": File(f"{mode:04o}", mode) for mode in (0o755, 0o600, 0o444, 0)}
    ),
    modes("group and others", {f"d/{mode:o}": File("x", mode) for mode in (0o620, 0o777, 0o666)}),
    modes("setuid", {"d/suid": File("suid", 0o4755), "d/suid only": File("suid", 0o4644)}),
    modes("setgid", {"d/sgid": File("sgid", 0o2755)}),
    modes("sticky", {"d/sticky": File("sticky", 0o1755), "d/t": Directory(0o1777), "d/t/x": "x"}),
    modes(
        "directories",
        {"d/700": Directory(0o700), "d/700/x": "x", "d/2775": Directory(0o2775), "d/2775/x": "x"},
    ),
    modes("an empty directory", {"d/e": Directory(0o750)}),
]


def links(name: str, tree: Tree, *instructions: str, fails: str = "") -> Case:
    """Links, and files for them to lead to."""
    files = {"real/file": "real/file", "real/deep/file": "real/deep/file", "file": "file"}
    return Case(f"links: {name}", files | tree, instructions or (EVERYTHING,), fails)


SYMLINKS = [
    links("to a file", {"l": Link("file")}, "COPY l {to}/", "COPY l {to}"),
    links("to a directory", {"l": Link("real")}, "COPY l {to}/", "COPY l/ {to}/", "COPY l/* {to}/"),
    links("with a slash", {"l": Link("real/")}, "COPY l {to}/", "COPY l/file {to}/"),
    links("with dots", {"l": Link("./real/../file")}, "COPY l {to}/"),
    links("in the way", {"d/l": Link("../real")}, "COPY d/l/deep/file {to}/", "COPY d {to}/"),
    # A link is followed for the first path through it only: a bug of BuildKit's own client.
    links(
        "in the way of two",
        {"l": Link("real")},
        "COPY l/file l/deep/file {to}/",
        fails='"/l/file": not found',
    ),
    links("a chain", {"1": Link("2"), "2": Link("d/3"), "d/3": Link("../file")}, "COPY 1 {to}/"),
    links(
        "a chain of directories",
        {"1": Link("2/deep"), "2": Link("3"), "3": Link("real")},
        *("COPY 1/file {to}/", "COPY 1 2 {to}/"),
    ),
    links("absolute", {"l": Link("/real/deep")}, "COPY l/file {to}/", "COPY l {to}/"),
    links("absolute, to nothing", {"d/l": Link("/etc/passwd")}, "COPY d {to}/", EVERYTHING),
    links("dangling", {"d/l": Link("nothing")}, "COPY d {to}/", "COPY --parents d/l {to}/"),
    links("dangling, copied", {"l": Link("nothing")}, "COPY l {to}/", fails="not found"),
    links("escaping", {"d/l": Link("../../../etc/passwd")}, "COPY d {to}/", EVERYTHING),
    links("escaping, to what is there", {"d/l": Link("../../../file")}, "COPY d/l {to}/"),
    links("a circle", {"d/1": Link("2"), "d/2": Link("1")}, "COPY d {to}/", EVERYTHING),
    links("to itself", {"d/l": Link("l")}, "COPY d {to}/"),
    links("to its directory", {"d/l": Link("."), "d/m": Link("..")}, "COPY d {to}/"),
    links("under a wildcard", {"l1": Link("file"), "l2": Link("real")}, "COPY l* {to}/"),
    # Links below a wildcard are not found: another one.
    links("a wildcard above", {"x1/l": Link("../file")}, "COPY x*/l {to}/", fails="not found"),
    links("to what is ignored", {"l": Link("file"), ".dockerignore": "file"}, EVERYTHING),
    links("ignored", {"l": Link("file"), ".dockerignore": "l"}, EVERYTHING, "COPY file {to}/"),
    links("through what is ignored", {"l": Link("real"), ".dockerignore": "l"}, "COPY real {to}/"),
    links("not ASCII", {"é": Link("zoë"), "zoë": "zoë"}, "COPY é {to}/", EVERYTHING),
    links("long", {"l": Link("d/" * 120 + "f"), "m": Link("./" * 80 + "file")}, EVERYTHING),
    links("very long", {"l": Link("x" * 200 + "/" + "é" * 120 + "/" + "z" * 255)}, EVERYTHING),
    links("with a space and a star", {"l": Link("a *"), "a *": "a"}, EVERYTHING, "COPY l {to}/"),
    links("--parents", {"d/l": Link("../real")}, "COPY --parents d/l real {to}/"),
]

HARD_LINKS = [
    links("two names", {"two": Name("file")}, EVERYTHING, "COPY file two {to}/"),
    links("the second alone", {"two": Name("file")}, "COPY two {to}/"),
    links("the first ignored", {"two": Name("file"), ".dockerignore": "file"}),
    links("in directories", {"a/one": "one", "b/two": Name("a/one"), "c/three": Name("a/one")}),
    links(
        "the middle",
        {"a/one": "one", "b/two": Name("a/one"), "c/three": Name("a/one")},
        *("COPY b {to}/", "COPY b c {to}/", "COPY --parents c/three a/one {to}/"),
    ),
    links("of an empty file", {"empty": "", "nothing": Name("empty")}),
    links("of a program", {"run": File("#!/bin/sh", 0o4755), "start": Name("run")}),
    links("two groups", {"1": "1", "2": "2", "1b": Name("1"), "2b": Name("2"), "0": Name("2")}),
    links("to a symbolic link", {"l": Link("file"), "m": Name("file")}, "COPY l m {to}/"),
    links("before its file", {"b": "b", "a": Name("b")}),
    links("in a file's directory", {"a/x": "x", "a.b": Name("a/x"), "a-b": Name("a/x")}),
]


def names(name: str, *paths: str) -> Case:
    """Files with these paths."""
    return Case(
        f"names: {name}", {f"d/{path}": path for path in paths}, (EVERYTHING, "COPY d {to}")
    )


NAMES = [
    names("100 bytes", "x" * 98, "y" * 99, "z" * 100, "w" * 101),
    names("155 and 100 bytes", "d" * 140 + "/" + "x" * 100, "e" * 153 + "/" + "y" * 99),
    names("as long as may be", "x" * 255, "é" * 127),
    names("longer than 255", "/".join(["long" * 20] * 5), "/".join(["é" * 50] * 4)),
    names("1000 bytes", "/".join(["n" * 199] * 5)),
    names("not ASCII", "é", "e\u0301", "日本語/テキスト.txt", "🦊.md", "\xa0", "ß/ÿ"),
    names(
        "in unusual order", "a", "a.b", "a-b/x", "a b", "a0", "A", "B/a", "b", "a!", "é", "z", "~"
    ),
    names("that are directories' beginnings", "a/x", "a.x", "a-x", "ab/x", "a0/x", "a!/x", "a~"),
    names("with dots", "...", "..a", ".a", "a.", "a..b", "..../x", "..x/y"),
    names(
        "with signs", " a", "a ", "-a", "--a", "$a", "a\\b", "a'b", 'a"b', "a;b", "%41", "a+b", "#"
    ),
    names("with wildcards", "*", "?", "[", "]", "[a]", "{a,b}", "a*b/c", "\\*", "^", "!"),
    names("with control characters", "a\tb", "a\nb", "a\rb", "\x01", "\x7f", "a\n"),
    names("in case", "readme", "README", "Readme", "rEADME/x"),
    names("like archives' own", "PaxHeader", "././@LongLink", "com.openfaas.docker.config"),
    Case("names: long, ignored", PROJECT | {"é" * 100 + "/x": "x", ".dockerignore": "é**\n"}),
    Case("names: not ASCII, copied", {"日本/é": "é", "日本/e": "e"}, ("COPY 日本/é* {to}/",)),
    Case("names: not ASCII, ignored", {"日本/é": "é", "日本/e": "e", ".dockerignore": "**/é\n"}),
    Case("names: with a plus and a per cent", {"a+b%41": "x"}, ("COPY a+b%41 {to}/",)),
    Case("names: with both", {"é+ %41": "x", "é  A": "y"}, ('COPY ["é+ %41", "{to}/"]',)),
]

SIZES = [
    Case(
        "sizes",
        {
            f"d/{size}": File(b"\x00" * size)
            for size in (0, 1, 511, 512, 513, 10240, 262144, 262145)
        },
        ("COPY d {to}/", "COPY d/0 {to}/", "COPY d/262144 {to}/"),
    ),
    Case("sizes: 3 MB", {"f": File(bytes(range(256)) * 12_000)}, ("COPY f {to}/",)),
    Case("sizes: 500 files", {f"d/{n // 50}/{n}": str(n) for n in range(500)}, (EVERYTHING,)),
    Case("sizes: a deep tree", {"/".join("abcdefghij" * 3): "deep"}, (EVERYTHING, "COPY a {to}/")),
    Case("sizes: empty directories", {f"d/{n}/e": Directory() for n in range(20)}, (EVERYTHING,)),
    Case("sizes: one file", {"f": "f"}, ("COPY f {to}/", EVERYTHING)),
]


def dockerfiles(name: str, tree: Tree, *instructions: str) -> Case:
    """A Dockerfile that is not where it usually is, or reads the context without COPY."""
    return Case(f"dockerfiles: {name}", PROJECT | tree, instructions or (EVERYTHING,))


DOCKERFILES = [
    dockerfiles("in lower case", {"dockerfile": WRITTEN}),
    dockerfiles(
        "behind a link", {"Dockerfile": Link("docs/Dockerfile"), "docs/Dockerfile": WRITTEN}
    ),
    dockerfiles(
        "behind two links",
        {"Dockerfile": Link("d/link"), "d/link": Link("/src/real"), "src/real": WRITTEN},
    ),
    dockerfiles(
        "that bind the context",
        {"busybox": Program("busybox"), ".dockerignore": "**/*.json\n"},
        "COPY busybox /bin/busybox",
        'RUN --mount=type=bind,source=src,target=/in ["/bin/busybox", "mkdir", "-p", "{to}"]',
        'RUN --mount=type=bind,target=/in ["/bin/busybox", "mkdir", "-p", "{to}"]',
    ),
]

CASES = [*IGNORE_FILES, *COPIES, *DOCKERFILES, *MODES, *SYMLINKS, *HARD_LINKS, *NAMES, *SIZES]
"""With what BuildKit's own client makes of the directory."""

OF_FILES = [*MODES, *SYMLINKS, *HARD_LINKS, *NAMES, *SIZES]
"""Those that try what a tree tells of its files: a directory of this machine is one, too."""

SHORT: Tree = {
    "a.txt": "a",
    "run": File("#!/bin/sh\n", 0o755),
    "private/key": File("k", 0o600),
    "src/app.py": "app",
    "src/deep/er/x": "x",
    "empty.txt": "",
    "large": File(b"\x01" * 300_000),
}
"""What any archive holds."""

LINKED: Tree = SHORT | {
    "l": Link("a.txt"),
    "src/up": Link("../private"),
    "abs": Link("/etc/passwd"),
    "two": Name("a.txt"),
    "src/three": Name("a.txt"),
    "private": Directory(0o700),
    "empty": Directory(),
    "suid": File("s", 0o4755),
}
"""What any archive with links and directories holds."""

LONG: Tree = LINKED | {
    "x" * 101: "long",
    "d" * 120 + "/" + "y" * 130: "longer",
    "/".join(["longest" * 20] * 3): "longest",
    "to": Link("x" * 101),
    "far": Link("t/" * 80 + "t"),
    "zz" * 60: Name("x" * 101),
    "é/日本語.txt": "not ASCII",
    "é" * 80: "long and not ASCII",
}
"""What takes an archive's extensions to hold."""
