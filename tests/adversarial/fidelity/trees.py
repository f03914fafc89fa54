"""Directories to build from, described in a few words and laid out on disk."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    content: str | bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Directory:
    mode: int = 0o755


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Name:
    """One more name of a file that is there already: a hard link."""

    of: str


@dataclass(frozen=True)
class Program:
    """A program of this machine that needs no libraries."""

    name: str


Node = Program | File | Directory | Link | Name | str
Tree = dict[str, Node]
"""Paths and what is there; a text stands for a file that holds it. Parents are made."""


def lay_out(tree: Tree, root: Path) -> None:
    """Write a tree into an empty directory. Modes are set last, so that none hinders."""
    root.mkdir(parents=True)
    modes: dict[Path, int] = {}
    for path, node in tree.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        match node:
            case str():
                place.write_text(node)
            case File(content, mode):
                place.write_bytes(content.encode() if isinstance(content, str) else content)
                modes[place] = mode
            case Directory(mode):
                place.mkdir(exist_ok=True)
                modes[place] = mode
            case Program(name):
                shutil.copy(shutil.which(name) or name, place)
            case Link(target):
                place.symlink_to(target)
            case Name(of):
                os.link(root / of, place)
    for place, mode in modes.items():
        place.chmod(mode)
