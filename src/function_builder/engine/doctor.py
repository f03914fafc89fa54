"""Check what a machine needs to run its own BuildKit, without changing the machine.

Each check reads a `Machine`, so that a test can provide one: `/proc`, `/sys` and `/etc` below
another root, and programs with given answers. Only a build shows whether builds run. These checks
say why it does not run, and what would run better.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from function_builder.disk import Disk
from function_builder.engine.address import ensure_free
from function_builder.engine.cgroups import own_memory_limit
from function_builder.engine.errors import EngineError, ToolMissing
from function_builder.engine.tools import PLUGIN_DIRECTORIES

_NEEDED_IDS = 65536
"""User IDs that images need: up to 65534, `nobody`."""

_USERNS_OVERLAY = (5, 11)
"""The first Linux that lets root of a user namespace mount overlay."""

_LITTLE_DISK = 2 * 10**9
"""Fewer free bytes are reported, even if they are a large share of the disk."""


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"
    """Builds run, but something is slower or missing."""
    FAIL = "FAIL"
    """Builds cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: of the check.
        level: its severity.
        found: the state of the machine.
        remedy: the command that fixes it; empty if nothing must be fixed.
    """

    subject: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as a user sees it.

    Attributes:
        user: the name of BuildKit's user.
        uid: that user's ID.
        find: finds a program, or raises ToolMissing.
        run: runs a command; its output, or None if it fails.
        root: the directory to use as `/`.
    """

    user: str
    uid: int
    find: Callable[[str], Path]
    run: Callable[[Sequence[str | Path]], str | None]
    root: Path = Path("/")

    def text(self, path: str) -> str | None:
        """A file's text without surrounding white space; None if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None


def examine(machine: Machine) -> Iterator[Finding]:
    """All checks, programs first."""
    yield from _programs(machine)
    if machine.uid != 0:
        yield from _user_namespaces(machine)
        yield from _ids(machine)
        yield _memory(machine)
    else:
        yield _bridge(machine)
    yield _overlay(machine)
    yield _cgroups(machine)


_NAMES = ("buildkitd", "runc", "unshare", "setpriv")
_NAMES_ROOTLESS = ("rootlesskit", "newuidmap", "newgidmap")


def _programs(machine: Machine) -> Iterator[Finding]:
    rootless = machine.uid != 0
    for name in (*_NAMES, *(_NAMES_ROOTLESS if rootless else ())):
        yield _program(machine, name, Level.FAIL)
    for name in ("registry", "busybox"):
        yield _program(machine, name, Level.NOTE, " (only `up` needs it)")
    yield _program(machine, "git", Level.NOTE, " (only ADD of a git repository needs it)")
    yield _program(machine, "xz", Level.NOTE, " (only ADD of a .tar.xz needs it)")
    yield from _isolation(machine)


def _isolation(machine: Machine) -> Iterator[Finding]:
    """What gives BuildKit its own network."""
    why = " (only buildkit_network=isolated needs it)"
    for name in ("slirp4netns", "ip"):
        yield _program(machine, name, Level.NOTE, why)
    tun = "dev/net/tun"
    if not (machine.root / tun).exists():
        remedy = f"modprobe tun (in a container: --device /{tun})"
        yield Finding(f"/{tun}", Level.NOTE, f"missing{why}", remedy)


def _program(machine: Machine, name: str, missing: Level, why: str = "") -> Finding:
    try:
        path = machine.find(name)
    except ToolMissing as error:
        return Finding(name, missing, f"missing{why}", str(error).partition(": ")[2])
    if name in ("newuidmap", "newgidmap"):
        return _id_mapper(name, path)
    said = machine.run([path, "-V" if name == "ip" else "--version"]) or ""
    version = re.search(r"v?\d+\.\d+(\.\d+)?", said.partition("\n")[0])
    return Finding(name, Level.OK, f"{path}{f', {version[0]}' if version else ''}")


def _id_mapper(name: str, path: Path) -> Finding:
    """Whether a program may write ID maps: by its set-uid bit, or by a file capability."""
    if path.stat().st_mode & stat.S_ISUID or _has_capability(path):
        return Finding(name, Level.OK, str(path))
    return Finding(name, Level.FAIL, f"{path} is not setuid root", f"chmod u+s {path}")


def _has_capability(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _bridge(machine: Machine) -> Finding:
    """The programs that give root's RUN steps their own network."""
    for directory in PLUGIN_DIRECTORIES:
        if (machine.root / directory[1:] / "bridge").exists():
            return _program(machine, "iptables", Level.NOTE, " (only run_network=bridge needs it)")
    return Finding(
        "CNI's plugins",
        Level.NOTE,
        "missing (only run_network=bridge needs them)",
        "apt-get install containernetworking-plugins iptables",
    )


def _user_namespaces(machine: Machine) -> Iterator[Finding]:
    for name, forbids, remedy in (
        ("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ):
        if machine.text(_sysctl(name)) == forbids:
            yield Finding("user namespaces", Level.FAIL, f"forbidden: {name} is {forbids}", remedy)
            return
    if machine.run(["unshare", "--user", "--map-root-user", "--mount", "true"]) is not None:
        yield Finding("user namespaces", Level.OK, "this user may create them")
        return
    name = "kernel.apparmor_restrict_unprivileged_userns"
    if machine.text(_sysctl(name)) == "1":
        yield _apparmor(machine, name)
    else:
        yield Finding(
            "user namespaces",
            Level.FAIL,
            "refused: in a container, by its seccomp or AppArmor profile",
            "run the container with --security-opt seccomp=unconfined --security-opt"
            " apparmor=unconfined",
        )


def _sysctl(name: str) -> str:
    return f"proc/sys/{name.replace('.', '/')}"


def _apparmor(machine: Machine, sysctl: str) -> Finding:
    """Ubuntu's restriction, by which only programs with a suitable profile have capabilities."""
    try:
        rootlesskit = machine.find("rootlesskit")
    except ToolMissing:
        rootlesskit = Path("/usr/bin/rootlesskit")
    profile = f"etc/apparmor.d/{str(rootlesskit)[1:].replace('/', '.')}"
    if any((machine.root / path).exists() for path in (profile, "etc/apparmor.d/rootlesskit")):
        found = f"{sysctl} is 1, and there is a profile for rootlesskit"
        return Finding("user namespaces", Level.OK, found)
    lines = (
        "abi <abi/4.0>,",
        "include <tunables/global>",
        f"profile rootlesskit {rootlesskit} flags=(unconfined) {{ userns, }}",
    )
    return Finding(
        "user namespaces",
        Level.FAIL,
        f"restricted: {sysctl} is 1, and rootlesskit has no profile that allows them",
        rf"printf '%s\n' {shlex.join(lines)}"
        f" >/{profile} && apparmor_parser --replace /{profile}",
    )


def _ids(machine: Machine) -> Iterator[Finding]:
    for file, option in (("etc/subuid", "--add-subuids"), ("etc/subgid", "--add-subgids")):
        lines = _id_ranges(machine.text(file) or "")
        count = sum(size for who, _, size in lines if who in (machine.user, str(machine.uid)))
        if count >= _NEEDED_IDS:
            yield Finding(f"/{file}", Level.OK, f"{count} ids for {machine.user}")
            continue
        first = max([100000, *(start + size for _, start, size in lines)])
        yield Finding(
            f"/{file}",
            Level.FAIL,
            f"{count or 'no'} ids for {machine.user}, and {_NEEDED_IDS} are needed",
            f"usermod {option} {first}-{first + _NEEDED_IDS - 1} {machine.user}",
        )


def _id_ranges(text: str) -> list[tuple[str, int, int]]:
    """The lines of subuid(5): who, the first id, how many."""
    matches = re.findall(r"^([^:\n]+):(\d+):(\d+)$", text, re.MULTILINE)
    return [(who, int(start), int(size)) for who, start, size in matches]


def _overlay(machine: Machine) -> Finding:
    """Whether an overlay can be mounted; without one, BuildKit copies whole trees."""
    listed = "\toverlay" in (machine.text("proc/filesystems") or "")
    loadable = machine.run(["modprobe", "--dry-run", "overlay"]) is not None
    if not (listed or loadable):
        slow = "the kernel has none: BuildKit copies each layer, which is slow"
        return Finding("overlay", Level.NOTE, slow, "modprobe overlay")
    release = machine.text("proc/sys/kernel/osrelease") or ""
    version = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if machine.uid == 0 or version >= _USERNS_OVERLAY:
        return Finding("overlay", Level.OK, "the kernel's")
    old = f"Linux {release} does not mount it without root"
    try:
        path = machine.find("fuse-overlayfs")
    except ToolMissing:
        remedy = "apt-get install fuse-overlayfs"
    else:
        if (machine.root / "dev/fuse").exists():
            return Finding("overlay", Level.OK, f"{path}: {old}")
        remedy = "modprobe fuse (in a container: --device /dev/fuse)"
    return Finding("overlay", Level.NOTE, f"{old}: BuildKit copies each layer", remedy)


def _cgroups(machine: Machine) -> Finding:
    controllers = machine.text("sys/fs/cgroup/cgroup.controllers")
    if controllers is None:
        if " cgroup" not in (machine.text("proc/self/mounts") or ""):
            level = Level.NOTE if machine.uid else Level.FAIL
            remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
            return Finding("cgroups", level, "not mounted: runc cannot measure a step", remedy)
        return Finding("cgroups", Level.OK, "version 1")
    if machine.uid == 0:
        return Finding("cgroups", Level.OK, "version 2")
    own = (machine.text("proc/self/cgroup") or "").rpartition("0::/")[2]
    if os.access(machine.root / "sys/fs/cgroup" / own / "cgroup.procs", os.W_OK):
        return Finding("cgroups", Level.OK, "version 2, delegated to this user")
    return Finding(
        "cgroups",
        Level.NOTE,
        "version 2, not delegated to this user: a step's memory and time are not measured",
        "systemd-run --user --scope --property=Delegate=yes function-builder serve",
    )


def _memory(machine: Machine) -> Finding:
    """What bounds BuildKit and its steps, because an ordinary user makes no groups for them."""
    limit = own_memory_limit(machine.root)
    if limit is not None:
        return Finding("memory", Level.OK, f"at most {limit >> 20} MiB for all processes here")
    return Finding(
        "memory",
        Level.NOTE,
        "no limit: builds can take all memory of this machine",
        "systemd-run --user --scope --property=MemoryMax=8G function-builder serve",
    )


def address(subject: str, where: str, remedy: str) -> Finding:
    """Whether the address `where` (`host:port`) is free."""
    try:
        ensure_free(where)
    except ValueError as error:
        return Finding(subject, Level.NOTE, f"{where} {error}", remedy)
    except EngineError as error:
        return Finding(subject, Level.NOTE, str(error), remedy)
    return Finding(subject, Level.OK, f"{where} is free")


def disk(subject: str, directory: Path, remedy: str) -> Finding:
    """The free space in `directory`, or in its nearest existing parent."""
    while not directory.exists():
        directory = directory.parent
    space = Disk.of(directory)
    found = f"{space.available / 1e9:.1f} GB free in {directory}"
    if not os.access(directory, os.W_OK):
        return Finding(subject, Level.FAIL, f"{directory} cannot be written to", remedy)
    if space.nearly_full or space.available < _LITTLE_DISK:
        return Finding(subject, Level.NOTE, f"only {found}", remedy)
    return Finding(subject, Level.OK, found)
