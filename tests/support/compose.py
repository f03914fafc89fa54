"""The services of a compose file, or of a `docker run`, as containers of runc in this network.

What Docker adds is here as Docker has it: capabilities, the file systems of a container, paths that
it hides, names of the services. Ports need no mapping, because all services are on one host.

Source: the Compose specification; the OCI runtime specification, `config.md`; moby's
`daemon/pkg/oci/defaults.go` and `caps/defaults.go`.
"""

import argparse
import asyncio
import json
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from function_builder.engine import find_tool

_CAPABILITIES: Final = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
]
_FILE_SYSTEMS: Final = (
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
)
_HIDDEN: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class ServiceImage:
    """What stands for a service's image.

    Attributes:
        root: its files.
        entrypoint: what runs, unless the service says something else.
        command: its arguments, likewise.
        user: `uid:gid`.
        env: the image's variables.
        cwd: where it runs.
    """

    root: Path
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = "0:0"
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    cwd: str = "/"


@dataclass
class Composition:
    """The services of one compose file.

    Attributes:
        document: the file.
        images: by service.
        work: a directory for bundles, volumes and logs.
        source: where the file's own paths begin.
    """

    document: Mapping[str, Any]
    images: Mapping[str, ServiceImage]
    work: Path
    source: Path
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Start all services in the order of their dependencies; stop them at the end."""
        for volume in self.document["volumes"]:
            (self.work / "volumes" / volume).mkdir(parents=True)
        for name, config in self.document["configs"].items():
            (self.work / name).write_text(config["content"])
        hosts = " ".join(self.document["services"])
        (self.work / "hosts").write_text(f"127.0.0.1 localhost {hosts}\n")
        async with AsyncExitStack() as stack:
            for name in self._ordered():
                await stack.enter_async_context(self._running(name))
            yield

    def log(self, name: str) -> str:
        """What a service has written."""
        return (self.work / f"{name}.log").read_text(errors="replace")

    def _ordered(self) -> list[str]:
        order: list[str] = []
        services = self.document["services"]
        while missing := [name for name in services if name not in order]:
            order += [n for n in missing if {*services[n].get("depends_on", ())} <= {*order}]
        return order

    @asynccontextmanager
    async def _running(self, name: str) -> AsyncIterator[None]:
        for other, condition in self.document["services"][name].get("depends_on", {}).items():
            await self._meets(other, condition["condition"])
        bundle = self.work / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._spec(name)))
        with (self.work / f"{name}.log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *self._runc("run", "--bundle", str(bundle), name), stdout=output, stderr=output
            )
        self._processes[name] = process
        try:
            yield
        finally:
            end = await asyncio.create_subprocess_exec(*self._runc("delete", "--force", name))
            await end.wait()
            await process.wait()

    async def _meets(self, name: str, condition: str) -> None:
        process = self._processes[name]
        async with asyncio.timeout(60):
            if condition == "service_completed_successfully":
                assert await process.wait() == 0, self.log(name)
            elif condition == "service_healthy":
                program, *arguments = self.document["services"][name]["healthcheck"]["test"]
                assert program == "CMD"
                while await self.execute(name, *arguments) != 0:
                    assert process.returncode is None, self.log(name)
                    await asyncio.sleep(0.1)

    async def execute(self, name: str, *command: str) -> int:
        """Run a command in a service's container, with its variables; its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self._runc("exec", name, *command),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    def _runc(self, *arguments: str) -> tuple[str, ...]:
        return ("runc", "--root", str(self.work / "runc"), *arguments)

    def _spec(self, name: str) -> dict[str, Any]:
        service, image = self.document["services"][name], self.images[name]
        user, group = map(int, image.user.split(":"))
        command = service.get("command", () if "entrypoint" in service else image.command)
        dropped = service.get("cap_drop") == ["ALL"]
        allowed = [] if dropped else _CAPABILITIES
        options = service.get("security_opt", ())
        variables = service.get("environment", {})
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [*service.get("entrypoint", image.entrypoint), *command],
                "env": [*image.env, *(f"{key}={value}" for key, value in variables.items())],
                "cwd": image.cwd,
                "capabilities": {
                    "bounding": allowed,
                    "effective": [] if user else allowed,
                    "permitted": [] if user else allowed,
                },
                "noNewPrivileges": "no-new-privileges:true" in options,
            },
            "root": {"path": str(image.root), "readonly": service.get("read_only", False)},
            "mounts": list(self._mounts(service)),
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
                "maskedPaths": _HIDDEN,
                "readonlyPaths": _READ_ONLY,
            },
        }

    def _mounts(self, service: Mapping[str, Any]) -> list[dict[str, Any]]:
        mounts = [
            {"destination": where, "type": kind, "source": source, "options": options}
            for where, kind, source, options in _FILE_SYSTEMS
        ]
        mounts += [
            {"destination": where, "type": "tmpfs", "source": "tmpfs"}
            for where in service.get("tmpfs", ())
        ]
        bound = [(self.work / "hosts", "/etc/hosts", "ro")]
        for volume in service.get("volumes", ()):
            source, where, *access = volume.split(":")
            named = self.work / "volumes" / source
            path = named if named.is_dir() else Path(source)
            bound.append((path, where, access[0] if access else "rw"))
        bound += [
            (self.work / config["source"], config["target"], "ro")
            for config in service.get("configs", ())
        ]
        for secret in service.get("secrets", ()):
            file = self.source / self.document["secrets"][secret["source"]]["file"]
            bound.append((file, secret["target"], "ro"))
        mounts += [
            {
                "destination": where,
                "type": "bind",
                "source": str(source),
                "options": ["rbind", access],
            }
            for source, where, access in bound
        ]
        return mounts


def docker_run(line: str) -> tuple[str, dict[str, Any]]:
    """The name and the service of a `docker run`, in the words of a compose file.

    Source: `docs/reference/commandline/container_run.md` of docker/cli.
    """
    parser = argparse.ArgumentParser("docker run", allow_abbrev=False)
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--name")
    for option in ("publish", "tmpfs", "env", "volume"):
        parser.add_argument(f"--{option}", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args(shlex.split(line)[2:])
    service = {
        "image": given.image,
        "ports": given.publish,
        "read_only": given.read_only,
        "tmpfs": given.tmpfs,
        "environment": dict(each.split("=", 1) for each in given.env),
        "volumes": given.volume,
    }
    return given.name, service | ({"command": given.command} if given.command else {})


def lay_out(root: Path, *programs: str) -> Path:
    """Make a root with programs, the libraries that they name, and a shell."""
    for name in ("bin", "etc", "run", "tmp", "var"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in (*programs, "busybox"):
        program = find_tool(name).resolve()
        shutil.copy(program, root / "bin" / name)
        linked = subprocess.run(["ldd", program], check=False, capture_output=True, text=True)
        for library in (Path(word) for word in linked.stdout.split() if word.startswith("/")):
            target = root / library.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    for name in ("sh", "chown"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def rootless_buildkit(root: Path) -> ServiceImage:
    """What BuildKit's own image has for an ordinary user, from this machine's programs."""
    lay_out(root, "buildkitd", "buildctl", "runc", "rootlesskit", "newuidmap", "newgidmap")
    # As in that image. Debian's are set-uid, and then cannot open what the ordinary user owns.
    for program, capability in (("newuidmap", "cap_setuid"), ("newgidmap", "cap_setgid")):
        (root / "bin" / program).chmod(0o755)
        subprocess.run(["setcap", f"{capability}+ep", root / "bin" / program], check=True)
    (root / "etc/passwd").write_text("user:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("user:x:1000:\n")
    for name in ("subuid", "subgid"):
        (root / "etc" / name).write_text("user:100000:65536\n")
    owned = [root / "home/user", root / "run/user/1000"]
    for path in owned:
        path.mkdir(parents=True)
    subprocess.run(["chown", "1000:1000", *owned], check=True)
    variables = ("USER=user", "HOME=/home/user", "XDG_RUNTIME_DIR=/run/user/1000", "PATH=/bin")
    return ServiceImage(root, ("rootlesskit", "buildkitd"), user="1000:1000", env=variables)
