"""Ask upstream's code random questions and keep its answers, as vectors for the unit tests.

In this directory: `go build . && python vectors.py >../../unit/aiobuildkit/fsutil/upstream.json`.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

DIRECTORY, SYMLINK = 1 << 31, 1 << 27

PLAIN = ["a", "b", "ab", "/", "/", "*", "**", "**/", "?", "/**/", "*a", "!", ".", "a*", "[ab]"]
PLAIN += ["[!a]", "[a-b]", "é", " ", "\\*", "\\a"]
ODD = ["a", "b", "1", "/", "*", "**", "?", "[", "]", "^", "-", "{", "}", "2", ",", "|", "\\", "w"]
ODD += ["x41", "Q", "E", "(", ")", "$", "+", ".", "[:alpha:]", "[:^digit:]", "[^a]", "{2}", "{1,2}"]
ODD += [
    "{0,}",
    "\\d",
    "\\W",
    "[\\d-",
    "\\b",
    "\\B",
    "\\A",
    "\\z",
    "\\x{61}",
    "\\101",
    "[^\\s]",
    "é",
]
NAMES = [
    "a",
    "b",
    "ab",
    "aab",
    "1",
    "é",
    "a.b",
    "!",
    "[",
    "]",
    "^",
    "-",
    "{",
    "}",
    "2",
    "a2",
    "{2}",
]
NAMES += [
    "|",
    "a|b",
    "d",
    "A",
    "x41",
    "(",
    "$",
    "+",
    "!a",
    "Q",
    " ",
    "aa",
    "bb",
    "*",
    "a b",
    "w\n1",
]
IN_TREES = ["a", "b", "c", "ab", "a.txt", "b.txt", "a-b", "é", "*x", "a b"]
OF_TREES = ["a", "b", "c", "ab", "*", "**", "**/", "/", "/", "?", "a*", "*.txt", "!", "é", "b.txt"]
OF_TREES += ["a.txt", "[ab]", "*x", "\\*x", "/*", "/**", " ", "."]


class Questions:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def ask(self) -> Iterator[dict[str, object]]:
        for _ in range(250):
            yield {"patterns": self.patterns(PLAIN), "paths": self.paths(NAMES[:-1])}
            yield {"patterns": [self.text(ODD)], "paths": self.paths(NAMES)}
        for _ in range(150):
            glob = self.text(ODD).replace("/", "")
            yield {"glob": glob, "paths": [self.text(NAMES, 2)]}
        for _ in range(150):
            yield {
                "tree": self.tree(),
                "patterns": self.patterns(OF_TREES),
                "include": self.random.choice([[], [], self.patterns(OF_TREES)]),
                "follow": self.random.choice([None, [self.path(), self.path()]]),
            }

    def text(self, parts: list[str], most: int = 7) -> str:
        return "".join(self.random.choices(parts, k=self.random.randint(1, most)))

    def patterns(self, parts: list[str]) -> list[str]:
        count = self.random.choice([0, 1, 1, 2, 3, 5])
        return [self.random.choice(["", "", "!"]) + self.text(parts, 5) for _ in range(count)]

    def paths(self, names: list[str]) -> list[str]:
        return ["/".join(self.random.choices(names, k=self.random.randint(1, 5))) for _ in range(9)]

    def path(self) -> str:
        names = [*IN_TREES, "*", "a*", "?", "*.txt", "[ab]", "."]
        return "/".join(self.random.choices(names, k=self.random.randint(1, 4)))

    def tree(self) -> list[dict[str, object]]:
        tree: dict[str, dict[str, object]] = {}
        directories = [""]
        files: list[str] = []
        for _ in range(self.random.randint(1, 20)):
            path = self.random.choice(directories) + self.random.choice(IN_TREES)
            if path in tree:
                continue
            mode, linkname = 0o644, ""
            match self.random.choice("ddddfffsssh"):
                case "d":
                    mode = DIRECTORY | 0o755
                    directories.append(f"{path}/")
                case "s":
                    mode = SYMLINK | 0o777
                    linkname = self.random.choice(["", "", "/", "../"]) + self.path()
                case "h":
                    # Upstream names the first in order, which is known once all are there.
                    mode = 0o600
                    files.append(path)
            tree[path] = {"path": path, "mode": mode, "linkname": linkname}
        if files:
            first = min(files, key=lambda path: path.replace("/", "\0"))
            for path in files:
                tree[path]["linkname"] = "" if path == first else first
        return sorted(tree.values(), key=lambda entry: str(entry["path"]).replace("/", "\0"))


def main() -> None:
    questions = list(Questions(seed=1).ask())
    lines = "\n".join(map(json.dumps, questions))
    program = Path(__file__).parent / "upstream"
    done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    answers = map(json.loads, done.stdout.splitlines())
    vectors = [
        json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
        for question, answer in zip(questions, answers, strict=True)
    ]
    sys.stdout.write("[\n" + ",\n".join(vectors) + "\n]\n")


if __name__ == "__main__":
    main()
