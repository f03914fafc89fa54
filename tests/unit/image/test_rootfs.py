"""The builder's root file system: what is copied from a Debian that may be of another machine."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from function_builder.engine import find_tool
from image.rootfs import Elf, Layout

SHELL = Path("/bin/sh")
EM_AARCH64 = 183


def libraries(program: Path) -> set[str]:
    """What this machine's loader finds for a program."""
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"=> (/\S+)", said))


def loader_of(program: Path) -> Path:
    elf = Elf.read(program)
    assert elf is not None
    return elf.loader


def names(paths: set[str]) -> set[str]:
    return {Path(path).name for path in paths}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of an empty target."""
    for folder in ("target", "root"):
        (tmp_path / folder).mkdir()
    return Layout(tmp_path / "target", tmp_path / "root")


def test_it_copies_the_libraries_that_the_loader_finds(tmp_path):
    layout = Layout(Path("/"), tmp_path)
    for program in (SHELL, Path(shutil.which("curl") or "/usr/bin/curl")):
        layout.copy(program)
        layout.copy_shared_libraries(program)
    found = {path.name for path in tmp_path.rglob("*.so*")}
    loader = loader_of(SHELL)
    assert found == names(libraries(SHELL) | libraries(Path("/usr/bin/curl"))) | {loader.name}
    assert (tmp_path / loader.relative_to("/")).is_file()
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_a_program_that_is_linked_statically_needs_nothing():
    elf = Elf.read(find_tool("probe-arm64"))
    assert elf == Elf(EM_AARCH64, Path(), (), ())


def test_what_is_no_program_is_not_read(tmp_path):
    (tmp_path / "libc.so").write_text("/* GNU ld script */\n")
    assert Elf.read(tmp_path / "libc.so") is None


def elf(needed: str, search: str) -> bytes:
    """A program for arm64 that needs a library, or a library."""
    begin, address = 64 + 3 * 56, 0x400000
    names = f"\0{needed}\0{search}\0/lib/loader\0".encode()
    end, loader = begin + len(names), begin + names.index(b"/lib/loader")
    strings, needs, runpath = (5, address + begin), (1, 1), (29, len(needed) + 2)
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in (needs, runpath, strings, (0, 0)))
    # Type, offset, address, size: PT_LOAD, PT_DYNAMIC, PT_INTERP.
    segments = [(1, 0, address, end), (2, end, 0, len(dynamic)), (3, loader, 0, 12)]
    header = struct.pack("<HHIQQQIHHHHHH", 3, EM_AARCH64, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    packed = b"".join(struct.pack("<I4xQQ8xQ16x", *segment) for segment in segments)
    return b"\x7fELF\2\1\1" + bytes(9) + header + packed + names + dynamic


@pytest.mark.parametrize("search", ["$ORIGIN/../lib", "/x:${ORIGIN}/../lib", "/opt/python/lib"])
def test_the_folders_that_a_program_names_are_searched(layout, search):
    """As the interpreters in the images of python do."""
    program, library = Path("/opt/python/bin/python3"), Path("/opt/python/lib/libpython.so")
    for file in (program, library, Path("/lib/loader")):
        layout.in_target(file).parent.mkdir(parents=True)
        layout.in_target(file).write_bytes(elf("loader", ""))
    layout.in_target(program).write_bytes(elf(library.name, search))
    layout.copy(program)
    layout.copy_shared_libraries(program)
    assert layout.in_root(library).read_bytes() == layout.in_target(library).read_bytes()


def test_a_library_that_the_target_does_not_have_is_named(layout):
    loader = loader_of(SHELL)
    there = layout.target / loader.relative_to("/")
    there.parent.mkdir(parents=True)
    shutil.copy(loader, there)
    shutil.copy(SHELL, layout.root / "sh")
    with pytest.raises(
        SystemExit, match=r"PYTHON_IMAGE does not have libc\.so\.6, which /sh needs"
    ):
        layout.copy_shared_libraries(Path("/sh"))


def test_an_extension_of_another_machine_is_named(tmp_path):
    layout = Layout(Path("/"), tmp_path)
    layout.copy(SHELL)
    shutil.copy(find_tool("probe-arm64"), tmp_path / "extension.so")
    with pytest.raises(SystemExit, match=r"/extension\.so is for another machine than /bin/sh"):
        layout.copy_shared_libraries(SHELL)


def test_an_interpreter_that_cannot_load_extensions_is_named(layout):
    shutil.copy(find_tool("probe-arm64"), layout.root / "python3")
    with pytest.raises(SystemExit, match="/python3 of PYTHON_IMAGE is static"):
        layout.copy_shared_libraries(Path("/python3"))


@pytest.mark.parametrize("link", ["python3.0", "/usr/bin/python3.0", "missing"])
def test_another_python_is_refused(layout, link):
    programs = layout.target / "usr/bin"
    programs.mkdir(parents=True)
    (programs / "python3.0").touch()
    (programs / "python3").symlink_to(link)
    ours = re.escape(str(Path(sys.executable).resolve()))
    with pytest.raises(SystemExit, match=f"PYTHON_IMAGE does not have {ours} for this platform"):
        layout.copy_interpreter(Path("/usr/bin/python3"))


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("b", "etc/b"),
        ("/etc/b", "etc/b"),
        ("../../../etc/b", "etc/b"),
        ("/x/../etc/./b", "etc/b"),
        ("folder/b", "usr/lib/b"),
    ],
)
def test_links_of_the_target_are_followed_as_if_it_were_the_root(layout, link, found):
    (layout.target / "etc").mkdir()
    (layout.target / "etc/a").symlink_to(link)
    (layout.target / "etc/folder").symlink_to("/usr/lib")
    assert layout.in_target(Path("/etc/a")) == layout.target / found


def test_a_loop_of_links_in_the_target_is_named(layout):
    (layout.target / "a").symlink_to("b/c")
    (layout.target / "b").symlink_to("a")
    with pytest.raises(SystemExit, match="/a/d of PYTHON_IMAGE is a loop of links"):
        layout.in_target(Path("/a/d"))
