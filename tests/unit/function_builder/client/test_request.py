import hmac
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.client import ContextError
from function_builder.client.request import pack
from function_builder.contract.config import BuildConfig, parse_config

AsUser = Callable[[Path], str]
CONFIG = BuildConfig(image="127.0.0.1:5000/hello:1", build_args={"A": "b"})


def packed(directory: Path, secret: bytes | None = b"secret") -> bytes:
    with pack(directory, CONFIG, secret) as body:
        body.file.seek(0)
        data = body.file.read()
        assert body.size == len(data)
        if secret is not None:
            assert body.signature == "sha256=" + hmac.new(secret, data, "sha256").hexdigest()
        else:
            assert body.signature is None
        return data


def members(directory: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packed(directory))) as archive:
        return {member.name: member for member in archive}


def test_a_body_is_the_config_then_the_directory_sorted_by_component(hello: Path) -> None:
    for name in ("b/z", "b/a/deep", "b.txt", "B", "a"):
        (hello / name).parent.mkdir(parents=True, exist_ok=True)
        (hello / name).touch()
    assert list(members(hello)) == [
        "com.openfaas.docker.config",
        "context",
        "context/B",
        "context/Dockerfile",
        "context/a",
        "context/b",
        "context/b/a",
        "context/b/a/deep",
        "context/b/z",
        "context/b.txt",
    ]
    with tarfile.open(fileobj=io.BytesIO(packed(hello))) as archive:
        config = archive.extractfile("com.openfaas.docker.config")
        assert config is not None
        assert parse_config(config.read()) == CONFIG


def test_names_contents_modes_times_and_links_survive(hello: Path, tmp_path: Path) -> None:
    (hello / "run.sh").write_bytes(b"#!/bin/sh\n")
    (hello / "run.sh").chmod(0o4755)
    os.utime(hello / "run.sh", ns=(0, 1_700_000_000_999_999_999))
    (hello / "old").touch()
    os.utime(hello / "old", ns=(0, -1_500_000_000))
    (hello / "empty").mkdir(mode=0o700)
    (hello / "naïve file.txt").write_text("é")
    (hello / ("n" * 240)).write_text("long")
    (hello / "link").symlink_to("../outside")
    (hello / "copy").hardlink_to(hello / "run.sh")
    seen = members(hello)
    run = seen["context/copy"]  # the first of the two names in sorted order is the file
    assert (run.mode, run.mtime, run.size) == (0o4755, 1_700_000_000, 10)
    assert seen["context/run.sh"].islnk()
    assert seen["context/run.sh"].linkname == "context/copy"
    assert seen["context/old"].mtime == -2
    assert seen["context/empty"].isdir()
    assert seen["context/empty"].mode == 0o700
    assert seen["context/link"].linkname == "../outside"
    assert {"context/naïve file.txt", "context/" + "n" * 240} <= seen.keys()
    unpacked = tmp_path / "unpacked"
    with tarfile.open(fileobj=io.BytesIO(packed(hello))) as archive:
        # Debian's Python 3.11 has no argument `filter`.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(unpacked)
    command = ["diff", "-r", "--no-dereference", str(hello), str(unpacked / "context")]
    assert subprocess.run(command, check=False).returncode == 0


def test_nothing_of_the_sender_but_the_files_is_told(hello: Path) -> None:
    for member in members(hello).values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


def test_the_same_directory_gives_the_same_bytes(hello: Path) -> None:
    (hello / "sub").mkdir()
    (hello / "sub" / "file").write_text("x")
    assert packed(hello) == packed(hello)


def test_a_builder_without_signatures_is_sent_none(hello: Path) -> None:
    packed(hello, secret=None)


def test_a_directory_reached_by_a_link_is_followed(hello: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(hello)
    assert members(tmp_path / "link").keys() == members(hello).keys()


def test_a_lower_case_dockerfile_is_one(hello: Path) -> None:
    (hello / "Dockerfile").rename(hello / "dockerfile")
    assert "context/dockerfile" in members(hello)


def test_a_socket_is_left_out(hello: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(hello / "s"))
        assert "context/s" not in members(hello)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda hello: (hello / "Dockerfile").unlink(), "has no Dockerfile$"),
        (
            lambda hello: (hello / "Dockerfile").rename(hello / "Containerfile"),
            'has no Dockerfile; there is "Containerfile": name it with --file',
        ),
        (lambda hello: os.mkfifo(hello / "pipe"), "pipe is a device or a fifo.*or leave it out"),
        (lambda hello: (hello / os.fsdecode(b"caf\xe9")).touch(), r"caf\\xe9' is not UTF-8"),
        (lambda hello: (hello / "l").symlink_to(os.fsdecode(b"\xff")), r"xff' is not UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_named(hello: Path, spoil, words: str) -> None:
    spoil(hello)
    with pytest.raises(ContextError, match=words):
        packed(hello)


def test_no_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="is not a directory"):
        packed(tmp_path / "absent")


def truncated(victim: Path) -> None:
    os.truncate(victim, 10)


def grown(victim: Path) -> None:
    with victim.open("ab") as file:
        file.write(b"more")


def rewritten(victim: Path) -> None:
    victim.write_bytes(b"x" * 100)


@pytest.mark.parametrize("change", [truncated, grown, rewritten])
def test_a_file_that_changes_while_it_is_read_is_named(
    hello: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    victim = hello / "victim"
    victim.write_bytes(bytes(100))
    os.utime(victim, (0, 0))
    status_of = os.fstat

    def before_the_read(descriptor: int) -> os.stat_result:
        status = status_of(descriptor)
        if status.st_size == 100 and not status.st_mtime:
            change(victim)
        return status

    monkeypatch.setattr("function_builder.client.request.os.fstat", before_the_read)
    with pytest.raises(ContextError, match="victim changed while it was read"):
        packed(hello)


def a_link(victim: Path) -> None:
    victim.symlink_to("/etc/passwd")


def a_directory(victim: Path) -> None:
    victim.mkdir()


@pytest.mark.parametrize(
    ("kind", "replacement"),
    [
        *[("file", None), ("file", a_link), ("file", a_directory), ("file", os.mkfifo)],
        *[("directory", None), ("directory", a_link), ("directory", os.mkfifo)],
    ],
)
def test_an_entry_that_is_replaced_before_it_is_opened_is_named(
    hello: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    replacement: Callable[[Path], None] | None,
) -> None:
    victim = hello / "victim"
    if kind == "file":
        victim.touch()
    else:
        victim.mkdir()
    opened = os.open

    def replaced_before(path: str, flags: int) -> int:
        if str(path).endswith("victim"):
            victim.unlink() if kind == "file" else victim.rmdir()
            if replacement is not None:
                replacement(victim)
        return opened(path, flags)

    monkeypatch.setattr("function_builder.client.context.os.open", replaced_before)
    with pytest.raises(ContextError, match="victim changed while it was read"):
        packed(hello)


def test_a_directory_that_cannot_be_looked_into_is_named(hello: Path, as_user: AsUser) -> None:
    hello.chmod(0)
    assert "cannot read" in as_user(hello)
    hello.chmod(0o755)
    (hello / "inner").mkdir(mode=0)
    assert "inner: Permission denied; .dockerignore can leave it out" in as_user(hello)


def test_an_unreadable_file_is_named_unless_it_is_left_out(hello: Path, as_user: AsUser) -> None:
    (hello / "private").touch(mode=0)
    assert "private: Permission denied; .dockerignore can leave it out" in as_user(hello)
    (hello / ".dockerignore").write_text("private\n")
    assert as_user(hello) == ""


@pytest.fixture
def as_user(hello: Path) -> AsUser:
    """Packs a directory without root's right to read everything; returns what is wrong."""
    program = """
import sys
from pathlib import Path
from function_builder.client import ContextError
from function_builder.client.request import pack
from function_builder.contract.config import BuildConfig
try:
    pack(Path(sys.argv[1]), BuildConfig(image="a/b"), b"secret").file.close()
except ContextError as error:
    print(error)
"""
    drop = "-dac_override,-dac_read_search"
    as_root = ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")

    def pack_it(directory: Path) -> str:
        command = [*(as_root if os.geteuid() == 0 else ()), sys.executable, "-c", program]
        done = subprocess.run(
            [*command, str(directory)], check=True, capture_output=True, text=True
        )
        return done.stdout

    return pack_it


def test_a_full_disk_is_said_with_what_helps(hello: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    (hello / "large").write_bytes(bytes(4 << 20))
    with pytest.raises(ContextError, match=r"No space left on device; TMPDIR names another"):
        packed(hello)


def test_an_abandoned_packing_ends(hello: Path) -> None:
    abandoned = Event()
    abandoned.set()
    with pytest.raises(ContextError, match="abandoned"):
        pack(hello, CONFIG, None, abandoned=abandoned)


def test_memory_does_not_grow_with_the_directory(hello: Path) -> None:
    with (hello / "large").open("wb") as large:
        large.truncate(256 << 20)
    (hello / "many").mkdir()
    for number in range(2000):
        (hello / "many" / str(number)).touch()
    program = f"""
import resource
from pathlib import Path
from function_builder.client.request import pack
from function_builder.contract.config import BuildConfig
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pack(Path({str(hello)!r}), BuildConfig(image="a/b"), b"secret").file.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 8 << 10  # KiB


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 256)


@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6))
def test_any_names_and_contents_are_read_back(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "Dockerfile").touch()
        for name, data in files.items():
            (Path(directory) / name).write_bytes(data)
        with tarfile.open(fileobj=io.BytesIO(packed(Path(directory)))) as archive:
            for name, data in files.items():
                file = archive.extractfile(f"context/{name}")
                assert file is not None
                assert file.read() == data
                assert (
                    stat.S_IMODE((Path(directory) / name).stat().st_mode)
                    == archive.getmember(f"context/{name}").mode
                )
