"""The author's command, `function-builder build`, as a contender."""

import os
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

from bench import usage
from bench.contenders import SECRET, BuildFailed, Job
from bench.contexts import Context

PROGRAM = str(Path(sys.executable).with_name("function-builder"))

_LOOK_SECONDS = 0.02


class Command:
    """The command as a whole process, with its start and its reading of the directory.

    Attributes:
        name: what the table calls it.
    """

    def __init__(self, name: str, url: str, root: Path, *options: str) -> None:
        self.name = name
        root.mkdir(parents=True, exist_ok=True)
        secret = root / "payload-secret"
        secret.write_text(SECRET)
        self._command = [
            *(PROGRAM, "build", "--url", url, "--payload-secret", str(secret)),
            *("--progress", "plain", "--build-arg", "SOURCE_DATE_EPOCH=0", *options),
        ]
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(root)}
        self._cpu = self._peak = 0.0

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Put the command together."""
        assert reproducible
        return partial(self._run, [*self._command, "--image", image, str(context.directory)])

    def cpu(self) -> float:
        """Of all its runs."""
        return self._cpu

    def idle(self) -> None:
        """It does not wait for builds."""

    def peak(self) -> float:
        """Of all its runs."""
        return self._peak

    def _run(self, argv: list[str]) -> None:
        with tempfile.TemporaryFile() as output:
            pid = os.posix_spawn(
                argv[0],
                argv,
                self._environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), each) for each in (1, 2)],
            )
            ended = threading.Event()
            looking = threading.Thread(target=self._look, args=(pid, ended))
            looking.start()
            _, status, spent = os.wait4(pid, 0)
            ended.set()
            looking.join()
            if os.waitstatus_to_exitcode(status):
                output.seek(0)
                said = output.read()[-2000:].decode(errors="replace")
                raise BuildFailed(f"{self.name}: {said}")
        self._cpu += spent.ru_utime + spent.ru_stime

    def _look(self, pid: int, ended: threading.Event) -> None:
        # The kernel's own maximum (ru_maxrss) begins with what its parent, we, held at the fork.
        while not ended.wait(_LOOK_SECONDS):
            try:
                self._peak = max(self._peak, usage.peak(pid))
            except (OSError, ValueError):
                return
