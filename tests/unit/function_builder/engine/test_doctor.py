"""What the doctor says of machines that are made up."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aiobuildkit.hostport import HostPort
from function_builder.engine import ToolMissing
from function_builder.engine.doctor import Finding, Level, Machine, address, disk, examine
from tests.support import free_address

FILES = {
    "etc/subuid": "other:100000:65536\napp:165536:65536\n",
    "etc/subgid": "1000:100000:65536\n",
    "proc/filesystems": "nodev\tproc\nnodev\toverlay\n",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/sys/user/max_user_namespaces": "96365\n",
    "proc/self/cgroup": "0::/user.slice/app\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/user.slice/app/cgroup.procs": "1\n",
    "sys/fs/cgroup/user.slice/app/memory.max": "max\n",
    "sys/fs/cgroup/user.slice/memory.max": "1073741824\n",
    "dev/fuse": "",
    "dev/net/tun": "",
    "usr/lib/cni/bridge": "",
}
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "true")
MODPROBE = ("modprobe", "--dry-run", "overlay")


@dataclass
class Made:
    """A machine that lacks nothing, until a test takes something away."""

    root: Path
    missing: set[str] = field(default_factory=set)
    refused: set[tuple[str, ...]] = field(default_factory=set)

    def find(self, name: str) -> Path:
        if name in self.missing:
            raise ToolMissing(f"{name} is missing: install {name}")
        program = self.root / "usr" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        if not program.exists():
            program.touch(0o4755)
            program.chmod(0o4755)
        return program

    def run(self, command) -> str | None:
        words = tuple(map(str, command))
        return None if words in self.refused else f"{Path(words[0]).name} version 1.2.3\nmore\n"

    def write(self, **changes: str | None) -> None:
        for path, text in changes.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if text is not None:
                place.write_text(text)

    def examined(self, uid: int = 1000) -> dict[str, Finding]:
        user = "app" if uid else "root"
        machine = Machine(user=user, uid=uid, find=self.find, run=self.run, root=self.root)
        return {finding.subject: finding for finding in examine(machine)}


@pytest.fixture
def made(tmp_path) -> Made:
    machine = Made(tmp_path)
    machine.write(**FILES)
    return machine


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_machine_that_lacks_nothing(made, uid):
    findings = made.examined(uid)
    assert {finding.level for finding in findings.values()} == {Level.OK}
    assert not any(finding.remedy for finding in findings.values())
    assert findings["runc"].found == f"{made.root}/usr/bin/runc, 1.2.3"


def test_root_needs_nothing_of_what_makes_an_ordinary_user_root(made):
    made.missing = {"rootlesskit", "newuidmap", "newgidmap"}
    made.write(**{"etc/subuid": None, "proc/sys/user/max_user_namespaces": "0"})
    findings = made.examined(uid=0)
    assert {finding.level for finding in findings.values()} == {Level.OK}
    assert not findings.keys() & {*made.missing, "user namespaces", "/etc/subuid"}


@pytest.mark.parametrize(
    ("program", "level"),
    [
        *((name, Level.FAIL) for name in ("buildkitd", "runc", "rootlesskit", "newuidmap")),
        *((name, Level.NOTE) for name in ("registry", "busybox", "git", "xz")),
        *((name, Level.NOTE) for name in ("slirp4netns", "ip")),
    ],
)
def test_a_missing_program(made, program, level):
    made.missing = {program}
    finding = made.examined()[program]
    assert (finding.level, finding.remedy) == (level, f"install {program}")


def test_roots_bridge_wants_plugins_and_iptables(made):
    made.missing = {"iptables"}
    assert made.examined(uid=0)["iptables"].level is Level.NOTE
    made.write(**{"usr/lib/cni/bridge": None})
    finding = made.examined(uid=0)["CNI's plugins"]
    assert finding.level is Level.NOTE
    assert finding.remedy == "apt-get install containernetworking-plugins iptables"


def test_a_network_for_buildkit_wants_a_tun_device(made):
    made.write(**{"dev/net/tun": None})
    finding = made.examined(uid=0)["/dev/net/tun"]
    assert finding.level is Level.NOTE
    assert finding.remedy.startswith("modprobe tun ")


def test_an_id_mapper_without_its_privilege(made):
    path = made.find("newgidmap")
    path.chmod(0o755)
    finding = made.examined()["newgidmap"]
    assert (finding.level, finding.remedy) == (Level.FAIL, f"chmod u+s {path}")


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("user/max_user_namespaces", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ],
)
def test_user_namespaces_that_a_sysctl_forbids(made, file, remedy):
    made.write(**{f"proc/sys/{file}": "0\n"})
    finding = made.examined()["user namespaces"]
    assert (finding.level, finding.remedy) == (Level.FAIL, remedy)


def test_user_namespaces_that_a_container_refuses(made):
    made.refused = {UNSHARE}
    finding = made.examined()["user namespaces"]
    assert finding.level is Level.FAIL
    assert "--security-opt seccomp=unconfined" in finding.remedy


def test_user_namespaces_that_apparmor_restricts_want_a_profile(made):
    made.refused = {UNSHARE}
    made.write(**{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"})
    finding = made.examined()["user namespaces"]
    assert finding.level is Level.FAIL
    assert f"profile rootlesskit {made.root}/usr/bin/rootlesskit flags=" in finding.remedy
    made.write(**{"etc/apparmor.d/rootlesskit": "profile"})
    assert made.examined()["user namespaces"].level is Level.OK


@pytest.mark.parametrize("text", [None, "", "other:100000:65536\n", "app:165536:1000\n"])
def test_too_few_ids_are_mended_with_a_range_that_nobody_has(made, text):
    made.write(**{"etc/subuid": text})
    finding = made.examined()["/etc/subuid"]
    first = {"other:100000:65536\n": 165536, "app:165536:1000\n": 166536}.get(text or "", 100000)
    assert finding.level is Level.FAIL
    assert finding.remedy == f"usermod --add-subuids {first}-{first + 65535} app"


def test_ids_in_several_ranges_count_together(made):
    made.write(**{"etc/subgid": "app:100000:60000\n1000:200000:60000\n"})
    assert made.examined()["/etc/subgid"].level is Level.OK


def test_without_overlay_builds_are_slow(made):
    made.write(**{"proc/filesystems": "nodev\tproc\n"})
    assert made.examined()["overlay"].level is Level.OK  # the module can be loaded
    made.refused = {MODPROBE}
    finding = made.examined()["overlay"]
    assert (finding.level, finding.remedy) == (Level.NOTE, "modprobe overlay")


def test_an_old_kernel_wants_fuse_for_ordinary_users(made):
    made.write(**{"proc/sys/kernel/osrelease": "5.10.0-28-amd64\n"})
    assert made.examined(uid=0)["overlay"].found == "the kernel's"
    assert "fuse-overlayfs" in made.examined()["overlay"].found
    made.write(**{"dev/fuse": None})
    assert made.examined()["overlay"].remedy.startswith("modprobe fuse")
    made.missing = {"fuse-overlayfs"}
    assert made.examined()["overlay"].remedy == "apt-get install fuse-overlayfs"


def test_cgroups_of_version_1(made):
    made.write(
        **{
            "sys/fs/cgroup/cgroup.controllers": None,
            "proc/self/mounts": "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n",
        }
    )
    assert made.examined(uid=0)["cgroups"].found == "version 1"


@pytest.mark.parametrize(("uid", "level"), [(0, Level.FAIL), (1000, Level.NOTE)])
def test_cgroups_that_are_not_mounted(made, uid, level):
    made.write(**{"sys/fs/cgroup/cgroup.controllers": None})
    assert made.examined(uid)["cgroups"].level is level


def test_cgroups_that_are_not_delegated(made, monkeypatch):
    # Root, which may run this test, could write to any file.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    finding = made.examined()["cgroups"]
    assert finding.level is Level.NOTE
    assert "Delegate=yes" in finding.remedy


def test_an_address(made):
    where = free_address()
    with socket.create_server(HostPort.parse(where)):
        taken = address("listen", where, "choose another")
    free = address("listen", where, "choose another")
    assert (taken.level, taken.remedy) == (Level.NOTE, "choose another")
    assert taken.found == f"{where} is taken by another program"
    assert free == Finding("listen", Level.OK, f"{where} is free")


@pytest.mark.parametrize(
    ("free_blocks", "level"), [(10**6, Level.OK), (10**5, Level.NOTE), (4 * 10**6, Level.OK)]
)
def test_a_disk(tmp_path, monkeypatch, free_blocks, level):
    real = os.statvfs(tmp_path)
    blocks = os.statvfs_result(
        [4096, 4096, 10**7, free_blocks, free_blocks, *tuple(real)[5:]]  # 41 GB
    )
    monkeypatch.setattr(os, "statvfs", lambda path: blocks)
    finding = disk("state_dir", tmp_path / "not" / "there", "another")
    assert finding.level is level
    assert str(tmp_path) in finding.found


def test_a_disk_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert disk("spool_dir", tmp_path, "another").level is Level.FAIL


def test_an_ordinary_user_without_a_memory_limit_is_told(made):
    assert made.examined()["memory"].found == "at most 1024 MiB for all processes here"
    made.write(**{"sys/fs/cgroup/user.slice/memory.max": "max\n"})
    finding = made.examined()["memory"]
    assert (finding.level, "no limit" in finding.found) == (Level.NOTE, True)
    assert "MemoryMax" in finding.remedy
    # Root gives BuildKit a group of its own.
    assert "memory" not in made.examined(0)
