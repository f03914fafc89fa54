"""Lay out in ROOT what a virtual environment needs to run, under the same paths.

`python3 rootfs.py VENV TARGET ROOT`: this Python made VENV. TARGET is the root directory of a
Debian with the same Python. The interpreter, its standard library and the shared libraries are
copied from there. TARGET can be for another machine, because none of its programs is run.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

_LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
# What no service runs: tests, windows, installers. The slim images of python do not have Tk.
_NOT_RUN: Final = (
    *("test", "tests", "idlelib", "tkinter", "lib-dynload/_tkinter.*", "turtledemo", "turtle.py"),
    *("ensurepip", "lib2to3", "pydoc_data", "config-*", "site-packages", "dist-packages"),
)
# Where Debian's loader looks, in its order: /etc/ld.so.conf.d, then glibc's own.
_LIBRARIES: Final = (
    *("usr/local/lib", "usr/local/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib/*-linux-gnu"),
    *("lib", "usr/lib"),
)
_LOADER_CACHE: Final = Path("/etc/ld.so.cache")
# For credential helpers; the builder itself speaks to BuildKit only.
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# The last is for COPY, which would make it with the time of the build.
_FOLDERS: Final = (
    *("/home/app/.docker", "/home/app/.local/run/buildkit", "/var/openfaas/secrets"),
    *("/etc", "/tmp", "/usr/local/bin"),
)
_PYCACHE: Final = shutil.ignore_patterns("__pycache__")
# As many as Linux follows (path_resolution(7)); more are a loop.
_MAX_LINKS: Final = 40

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29


@dataclass(frozen=True)
class Elf:
    """What the loader reads of a program or a shared library: ldd would run the target's loader.

    Source: elf(5), ld.so(8).

    Attributes:
        machine: whose instructions it has.
        loader: the path of a program's loader.
        needed: the names of the libraries that it needs.
        search: the folders to search first; `$ORIGIN` is the file's own.
    """

    machine: int
    loader: Path
    needed: tuple[str, ...]
    search: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Elf | None:
        """Read a file; None: it is not an ELF file of 64 bits, little-endian."""
        data = path.read_bytes()
        if not data.startswith(b"\x7fELF\x02\x01"):
            return None

        def text(offset: int) -> str:
            return data[offset : data.index(b"\0", offset)].decode()

        machine, first = struct.unpack_from("<H12xQ", data, 18)
        each, count = struct.unpack_from("<HH", data, 54)
        loader, names = Path(), 0
        dynamic: list[tuple[int, int]] = []
        segments = [
            struct.unpack_from("<I4xQQ8xQ", data, first + index * each) for index in range(count)
        ]
        for kind, offset, _, size in segments:
            if kind == _PT_INTERP:
                loader = Path(text(offset))
            elif kind == _PT_DYNAMIC:
                entries = struct.iter_unpack("<QQ", data[offset : offset + size])
                dynamic = list(takewhile(lambda entry: entry[0] != _DT_NULL, entries))
        for kind, offset, address, size in segments:
            at = dict(dynamic).get(_DT_STRTAB, 0) - address
            if kind == _PT_LOAD and 0 <= at < size:
                names = offset + at
        needed = [text(names + at) for tag, at in dynamic if tag == _DT_NEEDED]
        search = [text(names + at) for tag, at in dynamic if tag in {_DT_RPATH, _DT_RUNPATH}]
        return cls(machine, loader, tuple(needed), tuple(filter(None, ":".join(search).split(":"))))


@dataclass(frozen=True)
class Layout:
    """Copies files to the same path of the root.

    Attributes:
        target: the root directory of the target.
        root: what is laid out.
    """

    target: Path
    root: Path

    def in_target(self, path: Path) -> Path:
        """A file of the target: links are followed as there, where the target is `/`."""
        found = self.target
        parts = [*reversed(path.parts[1:])]
        links = 0
        while parts:
            part = parts.pop()
            if (found / part).is_symlink():
                links += 1
                if links > _MAX_LINKS:
                    sys.exit(f"image: {path} of PYTHON_IMAGE is a loop of links")
                link = (found / part).readlink()
                if link.is_absolute():
                    found = self.target
                parts += reversed(link.parts[link.is_absolute() :])
            elif part == "..":
                found = found if found == self.target else found.parent
            else:
                found /= part
        return found

    def in_root(self, path: Path) -> Path:
        """A file of the root."""
        return self.root / path.relative_to("/")

    def copy(self, path: Path) -> None:
        """Copy a file of the target, whatever links lead to it."""
        self.in_root(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.in_target(path), self.in_root(path))

    def copy_venv(self, venv: Path) -> None:
        """Copy the virtual environment, without installers and programs of libraries."""
        place = self.in_root(venv)
        shutil.copytree(venv, place, symlinks=True, ignore=_PYCACHE)
        for program in (place / "bin").iterdir():
            if not program.name.startswith("python") and program.name != "function-builder":
                program.unlink()
        # With --target, pip puts programs of libraries there.
        for programs in place.glob("lib/python3*/site-packages/bin"):
            shutil.rmtree(programs)

    def copy_interpreter(self, program: Path) -> Path:
        """Copy the interpreter, and the links on the way to it, by which it finds its library.

        Its path names the minor version, on which extensions and compiled modules depend.
        """
        while (link := self.in_target(program.parent) / program.name).is_symlink():
            self.in_root(program.parent).mkdir(parents=True, exist_ok=True)
            self.in_root(program).symlink_to(link.readlink())
            program = Path(os.path.normpath(program.parent / link.readlink()))
        ours = Path(sys.executable).resolve()
        if program != ours or not self.in_target(program).exists():
            sys.exit(f"image: PYTHON_IMAGE does not have {ours} for this platform")
        self.copy(program)
        return program

    def copy_standard_library(self) -> None:
        """Copy what services run of the standard library."""
        shutil.copytree(
            self.in_target(_LIBRARY), self.in_root(_LIBRARY), symlinks=True, ignore=_PYCACHE
        )
        for pattern in _NOT_RUN:
            for path in self.in_root(_LIBRARY).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def copy_shared_libraries(self, python: Path) -> None:
        """Copy what the interpreter and the extensions need, and what that needs in turn."""
        program = Elf.read(self.in_root(python))
        if program is None:
            sys.exit(f"image: {python} of PYTHON_IMAGE is not for a 64-bit, little-endian machine")
        if not program.loader.is_absolute():
            sys.exit(f"image: {python} of PYTHON_IMAGE is static: it cannot load extensions")
        self.copy(program.loader)
        files = [python]
        for extensions in ("*.so", "*.so.*"):
            found = self.root.rglob(extensions)
            files += [Path("/", path.relative_to(self.root)) for path in found if path.is_file()]
        while files:
            file = files.pop()
            elf = Elf.read(self.in_root(file))
            if elf is None:
                continue
            if elf.machine != program.machine:
                sys.exit(f"image: {file} is for another machine than {python} of PYTHON_IMAGE")
            # The loader itself is loaded already.
            for name in set(elf.needed) - {program.loader.name}:
                library = self._find(name, file, elf)
                if not self.in_root(library).exists():
                    self.copy(library)
                    files.append(library)

    def _find(self, name: str, file: Path, elf: Elf) -> Path:
        """Where the loader finds a library that a file needs."""
        origin = re.compile(r"\$(ORIGIN|\{ORIGIN\})")
        folders = [Path("/", origin.sub(str(file.parent), folder)) for folder in elf.search]
        for pattern in _LIBRARIES:
            found = sorted(self.target.glob(pattern))
            folders += [Path("/", folder.relative_to(self.target)) for folder in found]
        for folder in folders:
            library = Path(os.path.normpath(folder / name))
            for place in (self.in_root(library), self.in_target(library)):
                if place.is_file() and (read := Elf.read(place)) and read.machine == elf.machine:
                    return library
        sys.exit(f"image: PYTHON_IMAGE does not have {name}, which {file} needs")


def write_user(layout: Layout, venv: Path) -> None:
    """Write the user, its home, and the folders that are mounted or copied to."""
    for folder in _FOLDERS:
        layout.in_root(Path(folder)).mkdir(parents=True, exist_ok=True)
    layout.in_root(Path("/tmp")).chmod(0o1777)
    layout.in_root(Path("/etc/passwd")).write_text("app:x:1000:1000::/home/app:/nonexistent\n")
    layout.in_root(Path("/etc/group")).write_text("app:x:1000:\n")
    # The name under which compose files and pro-builder's chart call the builder.
    program = layout.in_root(Path("/home/app/pro-builder"))
    program.write_text(
        f"#!{venv}/bin/python3\nfrom function_builder.cli import pro_builder\npro_builder()\n"
    )
    program.chmod(0o755)


def compile_modules(layout: Layout, *folders: Path) -> None:
    """Compile once, here, because nothing can be written there later.

    By content, not by time, so that the same sources give the same bytes. In a process of its own,
    because some of these bytes depend on what else is loaded.
    """
    places = [layout.in_root(folder) for folder in folders]
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    options += ["-s", str(layout.root), "-p", "/"]
    subprocess.run([sys.executable, "-m", "compileall", *options, *places], check=True)


def main() -> None:
    """Lay out the root, whose files all have the same time."""
    venv, target, root = map(Path, sys.argv[1:])
    layout = Layout(target, root)
    layout.copy_venv(venv)
    python = layout.copy_interpreter((venv / "bin" / "python3").readlink())
    layout.copy_standard_library()
    layout.copy_shared_libraries(python)
    for path in (_LOADER_CACHE, _CERTIFICATES):
        if layout.in_target(path).exists():
            layout.copy(path)
    write_user(layout, venv)
    compile_modules(layout, _LIBRARY, venv / "lib")
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in (root, *root.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)


if __name__ == "__main__":
    main()
