"""The command `function-builder doctor`: what this machine needs, and how to install it."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from aiobuildkit import BuildKitError, Client
from function_builder.cli.serve import default_state
from function_builder.engine import BuildKitDaemon, EngineError, find_tool
from function_builder.engine.base_image import is_static
from function_builder.engine.doctor import Finding, Level, Machine, address, disk, examine
from function_builder.engine.process import child_environment
from function_builder.logs import configure_logging
from function_builder.settings import Settings, SettingsError

_TRIAL_SECONDS = 90.0


def doctor(
    *,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="state_dir",
            metavar="DIR",
            help="Where a BuildKit of its own would keep its cache. "
            "[default: ~/.local/share/function-builder]",
        ),
    ] = None,
    registry_listen: Annotated[
        str,
        typer.Option(
            envvar="registry_listen", metavar="HOST:PORT", help="Where `up` has its registry."
        ),
    ] = "127.0.0.1:5000",
) -> None:
    """Say whether this machine can build with a BuildKit of its own, and what it lacks.

    Each finding has the line that mends it. At the end a build is tried, in a directory that is
    removed again. The exit code is 0 when builds can run, 1 when they cannot.

    \b
      function-builder doctor
      sudo -u builder function-builder doctor
    """
    configure_logging(json=False)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    state = (state_dir or default_state()).absolute()
    findings = [*examine(_machine()), *_addresses(settings, registry_listen)]
    findings.append(disk("state_dir", state, "function-builder serve --state-dir DIR"))
    findings.append(disk("spool_dir", settings.spool_dir, "spool_dir=DIR function-builder serve"))
    for finding in findings:
        _tell(finding)
    if all(finding.level is not Level.LACK for finding in findings):
        trial = asyncio.run(_try(state))
        findings.append(trial)
        _tell(trial)
    if any(finding.level is Level.LACK for finding in findings):
        typer.echo("\nNo build can run here until what is marked LACK is mended.")
        raise typer.Exit(1)
    typer.echo("\nBuilds can run here.")


def _machine() -> Machine:
    return Machine(user=getpass.getuser(), uid=os.geteuid(), find=find_tool, run=_run)


def _run(command: Sequence[str | Path]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 (no shell)
            [find_tool(str(command[0])), *command[1:]],
            check=True,
            capture_output=True,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=30,
        )
    except (EngineError, OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _addresses(settings: Settings, registry: str) -> Iterator[Finding]:
    for name in ("listen", "metrics_listen"):
        remedy = f"function-builder serve --{name.replace('_', '-')} HOST:PORT"
        yield address(name, str(getattr(settings, name)), remedy)
    remedy = "function-builder up --registry-listen HOST:PORT"
    yield address("registry_listen", registry, remedy)


def _tell(finding: Finding) -> None:
    typer.echo(f"{finding.level:4}  {finding.subject:16}  {finding.found}")
    if finding.level is not Level.OK and finding.remedy:
        typer.echo(f"{'':24}mend: {finding.remedy}")


async def _try(state: Path) -> Finding:
    """Run a build as `serve` would: nothing that was only read says more than that."""
    subject = "a build"
    try:
        with _scratch(state) as directory:
            said = _write_context(directory / "context")
            async with (
                asyncio.timeout(_TRIAL_SECONDS),
                BuildKitDaemon(directory / "bk", log=directory / "log") as daemon,
                Client(daemon.address) as client,
            ):
                await client.build(directory / "context")
            snapshotter = next((directory / "bk" / "state").glob("runc-*")).name[5:]
    except (EngineError, BuildKitError, OSError, TimeoutError) as error:
        return Finding(subject, Level.LACK, f"was tried and failed: {error or 'it took too long'}")
    if snapshotter == "native":
        slow = f"{said}; BuildKit copies each layer, for overlay cannot be mounted in {state}"
        return Finding(subject, Level.NOTE, slow, "function-builder serve --state-dir DIR")
    return Finding(subject, Level.OK, f"{said}, on {snapshotter}")


def _write_context(directory: Path) -> str:
    """Write what the trial builds; what is said of it if it works."""
    directory.mkdir()
    lines = ["FROM scratch", "COPY Dockerfile /"]
    try:
        program = find_tool("busybox").read_bytes()
    except EngineError:
        program = b""
    if is_static(program):
        (directory / "busybox").write_bytes(program)
        lines += ["COPY --chmod=755 busybox /", 'RUN ["/busybox", "true"]']
        said = "was tried, RUN step included"
    else:
        said = "was tried, without a RUN step, because there is no static busybox"
    (directory / "Dockerfile").write_text("\n".join(lines))
    return said


@contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """A directory on the file system of `state`, or of where that will be made."""
    while not state.exists():
        state = state.parent
    directory = Path(tempfile.mkdtemp(prefix=".doctor-", dir=state))
    try:
        yield directory
    finally:
        # Overlay leaves directories that not even their owner may look into.
        for work in directory.glob("bk/state/runc-*/snapshots/snapshots/*/work/work"):
            work.chmod(stat.S_IRWXU)
        shutil.rmtree(directory)
