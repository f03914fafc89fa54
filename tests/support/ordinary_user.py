"""An ordinary user to run programs as, for tests that may run as root.

The user exists in a mount namespace alone: nothing is added to the machine's /etc, and nothing is
left to clean up but its home.
"""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from function_builder.engine import find_tool
from function_builder.engine.tools import search_path

REPOSITORY = Path(__file__).parents[2]
UID = 21000
IDS = "ordinary:2100000:65536\n"


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """A user without privileges.

    Attributes:
        home: a directory of its own, with a path short enough for sockets.
        enter: the command that runs another one as this user.
        environment: what its programs get.
    """

    home: Path
    enter: tuple[str, ...]
    environment: Mapping[str, str]

    def python(self, *arguments: str | Path) -> tuple[str, ...]:
        """The command that runs a module or script as this user."""
        return (*self.enter, sys.executable, *map(str, arguments))


@contextmanager
def ordinary_user(*, ids: str = IDS) -> Iterator[OrdinaryUser]:
    """A user for the time of a `with`: ourselves, or one made up if we are root.

    Args:
        ids: the lines of /etc/subuid and /etc/subgid, for one made up.
    """
    home = Path(tempfile.mkdtemp(prefix="fb-user-"))
    environment = {"HOME": str(home), "PATH": search_path()}
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.chown(home, UID, UID)
            script = "\n".join(["set -e", *_opened(_needed()), *_identity(home, ids), 'exec "$@"'])
            unshare = (str(find_tool("unshare")), "--mount", "sh", "-c", script, "sh")
            setpriv = (str(find_tool("setpriv")), f"--reuid={UID}", f"--regid={UID}")
            enter = (*unshare, *setpriv, "--clear-groups", "--inh-caps=-all", "--")
            yield OrdinaryUser(home, enter, environment)
        else:
            yield OrdinaryUser(home, (), environment)
    finally:
        # What rootless BuildKit wrote belongs to ids that only its user namespace may remove.
        inside = [] if is_root else [str(find_tool("rootlesskit"))]
        subprocess.run([*inside, "rm", "-rf", str(home)], check=True)
        shutil.rmtree(home, ignore_errors=True)


def _needed() -> list[Path]:
    """The directories that hold what we run: programs, Python, ourselves."""
    places = [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]
    # The cache's programs are links into directories beside it.
    return [*places, *(Path(path).parent for path in search_path().split(":") if "tools" in path)]


def _opened(needed: list[Path]) -> list[str]:
    """Lines of shell that make directories reachable which lie in another user's home."""
    closed: dict[Path, set[Path]] = {}
    for path in needed:
        for ancestor in [*reversed(path.parents), path]:
            if ancestor.exists() and not ancestor.stat().st_mode & 0o001:
                closed.setdefault(ancestor, set()).add(path)
                break
    lines = []
    for ancestor, paths in closed.items():
        kept = [(f"/mnt/{n}", shlex.quote(str(path))) for n, path in enumerate(sorted(paths))]
        lines.append("mount -t tmpfs tmpfs /mnt")
        lines += [f"mkdir {held} && mount --bind {path} {held}" for held, path in kept]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(ancestor))}")
        lines += [f"mkdir -p {path} && mount --bind {held} {path}" for held, path in kept]
        lines.append("umount --lazy /mnt")
    return lines


def _identity(home: Path, ids: str) -> list[str]:
    """Lines of shell that give the user a name, ids of its own, and the devices all users have."""
    etc = home / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nordinary:x:{UID}:{UID}::{home}:/bin/sh\n"
    )
    (etc / "group").write_text(f"root:x:0:\nordinary:x:{UID}:\n")
    (etc / "subuid").write_text(ids)
    (etc / "subgid").write_text(ids)
    lines = [f"mount --bind {path} /etc/{path.name}" for path in etc.iterdir()]
    device = Path("/dev/net/tun")
    if device.exists():
        # Open to everybody on most machines, and not on all.
        tun = home / "tun"
        os.mknod(tun, stat.S_IFCHR, device.stat().st_rdev)
        tun.chmod(0o666)
        lines.append(f"mount --bind {tun} {device}")
    return lines
