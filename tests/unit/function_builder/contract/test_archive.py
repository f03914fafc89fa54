import io
import stat
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from function_builder.contract.archive import Archive, open_archive
from function_builder.contract.context import Context, ContextEntry, read_context, read_folder
from function_builder.contract.errors import Refusal
from tests.support.archives import Bytes

SECOND = 10**9
CONFIG = "com.openfaas.docker.config"
SECRETS = "com.openfaas.secrets"


def file(name: str, data: bytes = b"", mode: int = 0o644, mtime: int = 0):
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.size = mode, mtime, len(data)
    return info, data


def folder(name: str, mode: int = 0o755, mtime: int = 0):
    return special(name, tarfile.DIRTYPE, mode=mode, mtime=mtime)


def symlink(name: str, target: str, mtime: int = 0):
    return special(name, tarfile.SYMTYPE, target, mode=0o777, mtime=mtime)


def hardlink(name: str, target: str, mode: int = 0o644, mtime: int = 0):
    return special(name, tarfile.LNKTYPE, target, mode=mode, mtime=mtime)


def special(name: str, kind: bytes, target: str = "", mode: int = 0o644, mtime: int = 0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, target, mode, mtime
    return info, b""


def tar(*entries) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return body.getvalue()


NEEDED = (file(CONFIG, b"{}"), file("context/Dockerfile", b"FROM scratch"))


def opened(*entries, needed=NEEDED, max_entries: int = 1000) -> Archive:
    return open_archive(Bytes(tar(*needed, *entries)), max_entries=max_entries)


def context_of(*entries, needed=NEEDED) -> Context:
    return read_context(opened(*entries, needed=needed))


def layout(*entries, needed=NEEDED) -> dict[str, ContextEntry]:
    context = context_of(*entries, needed=needed).entries
    return {entry.path: entry for entry in context if entry.path != "Dockerfile"}


def refused(*entries, needed=NEEDED, max_entries: int = 1000) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_context(opened(*entries, needed=needed, max_entries=max_entries))
    return caught.value


# What a request holds


def test_config_secrets_and_context_are_found():
    archive = opened(file(SECRETS, b"version: v1"))
    assert (archive.config, archive.secrets) == (b"{}", b"version: v1")
    context = read_context(archive)
    assert [entry.path for entry in context.entries] == ["Dockerfile"]
    assert context.dockerfile.path == "Dockerfile"
    assert opened().secrets is None


def test_entries_come_in_any_order_and_writing():
    context = context_of(
        folder("./"),
        folder("./context/"),
        file("./context/a//b/./c", b"x"),
        needed=(file("context/Dockerfile"), file("./" + CONFIG, b"{}")),
    ).entries
    assert [entry.path for entry in context] == ["Dockerfile", "a", "a/b", "a/b/c"]


def test_what_lies_beside_the_context_is_ignored():
    assert (
        layout(
            folder("build/"),
            file("template/Dockerfile"),
            special("template/pipe", tarfile.FIFOTYPE),
            special("null", tarfile.CHRTYPE),
            symlink("link", "/etc"),
            file("Context/other"),
            file("contextual"),
            file("by\udcfftes"),
        )
        == {}
    )


def test_the_order_is_that_of_path_components():
    names = ["a-b", "a.b", "a/b", "a", "a/b/c", "a/b-c", "é", "z", "𐀀", "\uffff"]
    context = context_of(*[folder(f"context/{name}") for name in names]).entries
    paths = [entry.path for entry in context]
    assert paths == sorted(paths, key=lambda path: [part.encode() for part in path.split("/")])


def test_absent_parents_are_made_alike_every_time():
    first, second = layout(file("context/a/b/c")), layout(file("context/a/b/c", mtime=5))
    assert first["a"] == second["a"]
    assert first["a/b"].mode == stat.S_IFDIR | 0o755
    # zip cannot store what is older than 1980.
    assert first["a"].mtime >= 315532800 * SECOND


def test_a_folders_own_entry_counts_before_and_after_what_is_in_it():
    for entries in (
        (folder("context/a", 0o700, 5), file("context/a/b")),
        (file("context/a/b"), folder("context/a", 0o700, 5)),
    ):
        entry = layout(*entries)["a"]
        assert (entry.mode, entry.mtime) == (stat.S_IFDIR | 0o700, 5 * SECOND)


def test_entries_are_told_as_stat_would():
    found = layout(file("context/run", b"#!", 0o4755, 7), symlink("context/link", "naïve/../x", 8))
    assert found["run"][:5] == ("run", stat.S_IFREG | 0o4755, 2, 7 * SECOND, "")
    assert found["link"][:5] == ("link", stat.S_IFLNK | 0o777, 11, 8 * SECOND, "naïve/../x")


# Refusals


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        ((file("context/Dockerfile"),), "has no com.openfaas.docker.config"),
        ((file(CONFIG), file(CONFIG), file("context/Dockerfile")), "two com.openfaas"),
        ((file(CONFIG),), "no context/"),
        ((file(CONFIG), file("context2/Dockerfile")), "no context/"),
        ((file(CONFIG), folder("context")), "Dockerfile"),
        ((file(CONFIG), file("context/DOCKERFILE")), "Dockerfile"),
        ((file(CONFIG), file("context/Dockerfi\u2113e")), "Dockerfile"),
        ((file(CONFIG), file("context/a/Dockerfile")), "Dockerfile"),
        ((file(CONFIG), folder("context/Dockerfile")), "Dockerfile"),
        ((file(CONFIG, bytes(2 << 20)), file("context/Dockerfile")), "larger"),
        ((symlink(CONFIG, "/etc/passwd"), file("context/Dockerfile")), "regular file"),
        ((folder(CONFIG), file("context/Dockerfile")), "regular file"),
    ],
)
def test_a_request_without_its_parts_is_refused(needed, reason: str):
    refusal = refused(needed=needed)
    assert refusal.status == 400
    assert reason in refusal.reason


@pytest.mark.parametrize(
    "entry",
    [
        file("/etc/passwd"),
        file("//context/a"),
        file("../a"),
        file("context/../../a"),
        file("context/a/../b"),
        file("context/.."),
        file("other/../context/a"),
        hardlink("context/a", "/etc/passwd"),
        hardlink("context/a", "../Dockerfile"),
        hardlink("context/a", "context/../../etc/passwd"),
        hardlink("context/a", "etc/passwd"),
        hardlink("context/a", "Dockerfile"),
        hardlink("context/a", ""),
        hardlink("context/a", "."),
        hardlink("context/a", "context/a"),
        hardlink("context/a", "context"),
        special("context/a", tarfile.CHRTYPE),
        special("context/a", tarfile.BLKTYPE),
        special("context/a", tarfile.FIFOTYPE),
        file("context"),
        symlink("context", "/etc"),
        symlink("context", "elsewhere"),
        hardlink("context", "com.openfaas.docker.config"),
        file("."),
        symlink("./", "/etc"),
        symlink("context/a", ""),
        file("context/\udcff"),
        symlink("context/a", "\udcff"),
        file("context/" + "n" * 256),
        file("context/" + "é" * 128),
        file("context/" + "/".join(["d"] * 2100)),
        symlink("context/a", "t" * 4096),
        file("context/Dockerfile/a"),
        file(CONFIG + "/a"),
    ],
    ids=lambda entry: ascii(f"{entry[0].type.decode()} {entry[0].name[-30:]}"),
)
def test_an_unsafe_entry_is_refused_and_named(entry):
    refusal = refused(entry, max_entries=10_000)
    assert refusal.status == 400
    assert len(refusal.reason) < 500
    assert refusal.reason.isprintable()
    name = entry[0].name.strip("/").replace("\udcff", "\\xff")
    assert name[-30:] in refusal.reason


@pytest.mark.parametrize(
    "entries",
    [
        (file("context/a"), file("context/a/b")),
        (symlink("context/a", "b"), file("context/a/b")),
        (symlink("context/a", "/etc"), folder("context/a/b"), folder("context/a")),
        (hardlink("context/a", "context/z"), file("context/a/b"), file("context/z")),
        (file("context/a/b"), file("context/a")),
        (file("context/a/b"), symlink("context/a", "/etc")),
        (file("context/a/b"), hardlink("context/a", "context/a/b")),
    ],
)
def test_nothing_lies_in_what_is_no_folder(entries):
    refusal = refused(*entries)
    assert refusal.status == 400
    assert "folder" in refusal.reason


def test_names_that_only_look_odd_are_names():
    names = ["a\nb", "a\\b", " ", "...", "..a", "-rf", "a\u202eb", "Å", "A\u030a", "A", "a"]
    names += ["n" * 255, ".tmp.123", "*?[", "ﬁ"]
    assert set(layout(*[file(f"context/{name}") for name in names])) == set(names)


# Equal names and hard links


def test_of_equal_names_the_last_wins():
    found = layout(
        file("context/a", b"one"),
        file("context/a", b"second", 0o600),
        file("context/b"),
        folder("context/b"),
        folder("context/c"),
        symlink("context/c", "x"),
        symlink("context/d", "/etc"),
        folder("context/d"),
        file("context/d/e"),
    )
    assert (found["a"].size, stat.S_IMODE(found["a"].mode)) == (6, 0o600)
    assert stat.S_ISDIR(found["b"].mode)
    assert stat.S_ISLNK(found["c"].mode)
    assert stat.S_ISDIR(found["d"].mode)


def test_hard_links_share_the_files_mode_time_and_data():
    found = layout(
        file("context/b", b"data", 0o750, 9),
        hardlink("context/a", "context/b", 0o600, 1),
        hardlink("context/c", "./context/a", 0o600, 1),
        file("context/d", b"data", 0o750, 9),
    )
    shared = {found[name][1:] for name in "abc"}
    assert len(shared) == 1
    assert found["a"].link_group != 0 == found["d"].link_group
    assert (found["a"].size, found["a"].mtime) == (4, 9 * SECOND)


def test_a_hard_link_may_come_before_its_target():
    found = layout(
        hardlink("context/a", "context/b"),
        hardlink("context/b", "context/c"),
        file("context/c", b"data"),
        hardlink("context/d", "context/b"),
    )
    assert len({found[name].link_group for name in "abcd"}) == 1
    assert found["a"].size == 4


def test_a_hard_link_to_a_symbolic_link_is_another_symbolic_link():
    found = layout(symlink("context/a", "target"), hardlink("context/b", "context/a"))
    assert found["a"][1:] == found["b"][1:]
    assert stat.S_ISLNK(found["b"].mode)
    assert found["b"].link_group == 0


def test_a_hard_link_may_lead_to_a_file_beside_the_context():
    found = layout(file("lib/common", b"data"), hardlink("context/a", "lib/common"))
    assert (found["a"].size, found["a"].link_group) == (4, 0)


def test_a_hard_link_keeps_the_file_that_its_target_was():
    found = layout(
        file("context/a", b"old"),
        hardlink("context/b", "context/a"),
        file("context/a", b"newer"),
    )
    assert (found["a"].size, found["b"].size) == (5, 3)
    assert found["a"].link_group == found["b"].link_group == 0


@pytest.mark.parametrize("length", [1, 2, 50])
def test_hard_links_in_a_circle_are_refused(length: int):
    circle = [
        hardlink(f"context/{number}", f"context/{(number + 1) % length}")
        for number in range(length)
    ]
    assert refused(*circle).status == 400


def test_a_hard_link_to_a_device_beside_the_context_is_refused():
    entries = special("null", tarfile.CHRTYPE), hardlink("context/a", "null")
    assert refused(*entries).status == 400
    assert refused(*reversed(entries)).status == 400


def extracted(body: bytes) -> dict[str, tuple[int, bytes, int, set[str]]] | None:
    """What GNU tar makes of an archive's context: mode, size, data or target, mtime, names."""
    with tempfile.TemporaryDirectory() as root:
        command = ["tar", "--no-same-owner", "--delay-directory-restore", "-xpf", "-", "-C", root]
        done = subprocess.run(command, input=body, capture_output=True, umask=0o022, check=False)
        if done.returncode:
            return None
        found = {}
        names = defaultdict(set)
        for path in Path(root, "context").rglob("*"):
            info = path.lstat()
            name = str(path.relative_to(Path(root, "context")))
            if not stat.S_ISDIR(info.st_mode):
                names[info.st_ino].add(name)
            data = b""
            if stat.S_ISLNK(info.st_mode):
                data = str(path.readlink()).encode()
            elif stat.S_ISREG(info.st_mode):
                data = path.read_bytes()
            found[name] = (info.st_mode, data, info.st_mtime_ns, info.st_ino)
        return {
            name: (mode, data, mtime, names[inode] if stat.S_ISREG(mode) else set())
            for name, (mode, data, mtime, inode) in found.items()
        }


def as_extracted(context: Context, body: bytes) -> dict[str, tuple[int, bytes, int, set[str]]]:
    groups = defaultdict(set)
    for entry in context.entries:
        groups[entry.link_group or entry.path].add(entry.path)
    return {
        entry.path: (
            entry.mode,
            entry.target.encode() or body[entry.offset : entry.offset + entry.size],
            entry.mtime,
            groups[entry.link_group or entry.path] if stat.S_ISREG(entry.mode) else set(),
        )
        for entry in context.entries
    }


PATHS = st.sampled_from(["a", "b", "c", "d", "a/x", "b/x", "b/y", "a/x/z"]).map("context/{}".format)
TIMES = st.integers(1, 10**9)
ENTRIES = st.one_of(
    st.builds(file, PATHS, st.binary(max_size=3), st.sampled_from((0o400, 0o755, 0o4711)), TIMES),
    st.builds(folder, PATHS, st.sampled_from((0o700, 0o755)), TIMES),
    st.builds(symlink, PATHS, st.sampled_from(("a", "b/x", "nowhere")), TIMES),
    st.builds(hardlink, PATHS, PATHS, mtime=TIMES),
)


@given(st.lists(ENTRIES, max_size=9))
@example([file("context/a", b"1"), hardlink("context/b", "context/a"), file("context/a", b"2")])
@example([folder("context/a"), symlink("context/a", "b"), folder("context/b")])
@example([symlink("context/a", "b"), folder("context/a"), file("context/a/x")])
def test_it_lays_entries_out_as_gnu_tar_extracts_them(entries):
    body = tar(*NEEDED, *entries)
    there = extracted(body)
    try:
        context = read_context(open_archive(Bytes(body), max_entries=1000))
    except Refusal:
        links = {info.name for info, _ in entries if info.issym()}
        inside = any(info.name.startswith(f"{link}/") for link in links for info, _ in entries)
        itself = any(info.name == info.linkname for info, _ in entries)
        assert there is None or inside or itself
        event("refused")
        return
    if there is None:
        # Only ours takes a hard link before its target.
        assert any(info.islnk() for info, _ in entries)
        event("ours alone")
        return
    event("both")
    given_folders = {info.name for info, _ in entries if info.isdir()}
    here = as_extracted(context, body)
    for name, (mode, data, mtime, names) in here.items():
        made = stat.S_ISDIR(mode) and f"context/{name}" not in given_folders
        assert there[name] == (mode, data, there[name][2] if made else mtime, names)
    assert here.keys() == there.keys()


# The Dockerfile


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        ((file("context/dockerfile"),), "dockerfile"),
        ((file("context/dockerfile"), file("context/Dockerfile")), "Dockerfile"),
        ((symlink("context/Dockerfile", "x"), file("context/dockerfile")), "dockerfile"),
        ((folder("context/Dockerfile"), file("context/dockerfile")), "dockerfile"),
        ((symlink("context/Dockerfile", "docker/a"), file("context/docker/a")), "docker/a"),
        ((symlink("context/Dockerfile", "/docker/a"), file("context/docker/a")), "docker/a"),
        ((symlink("context/Dockerfile", "../../a"), file("context/a")), "a"),
        (
            (
                symlink("context/Dockerfile", "now/a/../a/D"),
                symlink("context/now", "v/1"),
                symlink("context/v/1/a", "/v/2"),
                file("context/v/2/D"),
                file("context/v/a/D"),
                folder("context/v/1"),
            ),
            None,
        ),
        (
            (
                symlink("context/Dockerfile", "now/../D"),
                symlink("context/now", "v/1"),
                folder("context/v/1"),
                file("context/v/D"),
            ),
            None,
        ),
        ((file("context/a"), hardlink("context/Dockerfile", "context/a")), "Dockerfile"),
        ((symlink("context/Dockerfile", "Dockerfile"),), None),
        ((symlink("context/Dockerfile", "a"), symlink("context/a", "Dockerfile")), None),
        ((symlink("context/Dockerfile", "/etc/passwd"),), None),
        ((symlink("context/Dockerfile", "../com.openfaas.docker.config"),), None),
        ((symlink("context/Dockerfile", "a/"), file("context/a")), "a"),
        ((symlink("context/Dockerfile", "nope/../a"), file("context/a")), "a"),
        ((symlink("context/Dockerfile", "a"), folder("context/a")), None),
        ((symlink("context/Dockerfile", "."), file("context/a")), None),
    ],
)
def test_the_dockerfile_is_what_its_links_lead_to_inside_the_context(entries, path: str | None):
    config = (file(CONFIG),)
    if path is None:
        assert "Dockerfile" in refused(*entries, needed=config).reason
    else:
        assert context_of(*entries, needed=config).dockerfile.path == path


def test_links_that_multiply_are_followed_in_bounded_steps():
    chain = [symlink(f"context/{n}", f"{n + 1}/../{n + 1}") for n in range(100)]
    start = symlink("context/Dockerfile", "0")
    assert refused(start, *chain, folder("context/100"), needed=(file(CONFIG),)).status == 400


# Bounds


def test_parents_without_an_entry_count_as_entries():
    deep = file("context/" + "/".join("d" * 50))
    assert len(context_of(deep).entries) == 51
    assert refused(deep, max_entries=40).status == 413
    assert refused(*[file(f"context/{n}") for n in range(50)], max_entries=40).status == 413


def test_folders_in_folders_are_bounded():
    assert len(context_of(file("context/" + "d/" * 256 + "f")).entries) == 258
    assert "256 nested folders" in refused(file("context/" + "d/" * 257 + "f")).reason


def test_names_are_bounded_all_together():
    parts = "/".join(["d" * 100] * 38)
    entries = [file(f"context/{n}/{parts}") for n in range(1000)]
    assert refused(*entries, max_entries=200_000).status == 413


def test_names_and_targets_that_no_system_has_are_refused_wherever_they_lie():
    assert refused(file("./" * 5000 + "a")).status == 400
    assert refused(symlink("a", "t" * 10_000)).status == 400
    many = [symlink(f"{number}", "t" * 8000) for number in range(9000)]
    assert refused(*many, max_entries=200_000).status == 413


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize(
    "content",
    [b"a\n" * 10_000, b"a\n" * ((1 << 19) + 1), b"# " + b"a" * ((1 << 16) - 2)],
    ids=["lines", "bytes", "a line"],
)
def test_an_ignore_file_that_nobody_wrote_is_refused(name, content):
    assert refused(file(f"context/{name}", content)).status == 400
    hidden = [symlink(f"context/{name}", "/elsewhere"), file("context/elsewhere", content)]
    assert f"context/{name} has" in refused(*hidden).reason


@pytest.mark.parametrize("line", [b"a\0b", b"a\tb", b" \x1b[0m ", b"!a\rb", b"\x7f"])
def test_an_ignore_file_that_no_header_can_hold_is_refused(line):
    reason = refused(file("context/.dockerignore", b"a\n# \0\n" + line)).reason
    assert "control character in line 3" in reason


def test_white_space_around_patterns_and_anything_in_comments_is_taken():
    content = b"\xef\xbb\xbf# a\tb\r\n\ta \t\r\n#\0\n\xff\n"
    assert ".dockerignore" in layout(file("context/.dockerignore", content))


def test_a_long_ignore_file_is_taken():
    assert ".dockerignore" in layout(file("context/.dockerignore", b"node_modules\n" * 9_999))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Containerfile", '"Containerfile"'),
        ("DockerFile", '"DockerFile"'),
        ("Dockerfile.txt", '"Dockerfile.txt"'),
        ("app.Dockerfile", '"app.Dockerfile"'),
        ("Dockerfile ", '"Dockerfile "'),
        ("app/Dockerfile", 'There is "app/Dockerfile": send its folder'),
        ("Dockerfile.dockerignore", "context/."),
        ("docker/file", "context/."),
    ],
)
def test_a_file_that_may_be_meant_as_the_dockerfile_is_named(name: str, told: str):
    reason = refused(file(f"context/{name}"), needed=NEEDED[:1]).reason
    assert told in reason
    assert ("There is" in reason) is not told.startswith("context")


def test_backslashes_between_folders_are_told_of():
    reason = refused(file("context\\Dockerfile"), needed=NEEDED[:1]).reason
    assert "backslashes" in reason


# What the config names


def test_a_folder_that_the_config_names_is_read_as_the_context_is():
    archive = opened(
        folder("lib"),
        file("lib/b/c", b"x"),
        symlink("lib/a", "../.."),
        hardlink("lib/d", "lib/b/c"),
    )
    assert [(entry.path, entry.link_group) for entry in read_folder(archive, "lib")] == [
        ("a", 0),
        ("b", 0),
        ("b/c", 1),
        ("d", 1),
    ]
    assert [entry.path for entry in read_context(archive).entries] == ["Dockerfile"]


@pytest.mark.parametrize(
    "entry",
    [
        file("other/a"),
        file("lib"),
        symlink("lib", "context"),
        special("lib/a", tarfile.CHRTYPE),
        special("lib/a", tarfile.FIFOTYPE),
        file("lib/" + "n" * 256),
        file("lib/" + "d/" * 257 + "f"),
        file("lib/.dockerignore", b"a\n[\n"),
    ],
)
def test_a_folder_that_cannot_be_a_context_is_refused(entry):
    archive = opened(entry)
    with pytest.raises(Refusal) as caught:
        read_folder(archive, "lib")
    assert caught.value.status == 400
    # Without the config's word it may be anything.
    assert read_context(archive)


@pytest.mark.parametrize(
    ("path", "target"),
    [("a/Build", "a/Build"), ("a/link", "a/Build"), ("l/Build", "a/Build"), ("a/Dockerfile", "")],
)
def test_the_dockerfile_is_where_the_config_says(path, target):
    archive = opened(
        file("context/a/Build", b"x"),
        symlink("context/a/link", "../../../a/Build"),
        symlink("context/l", "/a"),
        file("context/a/dockerfile"),
    )
    assert read_context(archive, path).dockerfile.path == (target or "a/dockerfile")


@pytest.mark.parametrize("path", ["absent", "a", "out", "Dockerfile/a", "dockerFile"])
def test_a_dockerfile_that_is_not_a_file_of_the_context_is_refused(path):
    archive = opened(folder("context/a"), symlink("context/out", "/etc/passwd"), file("etc/passwd"))
    with pytest.raises(Refusal, match="has no"):
        read_context(archive, path)
