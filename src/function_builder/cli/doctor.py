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
from function_builder.cli.exit_codes import FAILED
from function_builder.cli.failing import failing_with
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
            help="The directory in which `serve` would keep BuildKit's cache. "
            "[default: ~/.local/share/function-builder]",
        ),
    ] = None,
    registry_listen: Annotated[
        str,
        typer.Option(
            envvar="registry_listen",
            metavar="HOST:PORT",
            help="The address of the registry of `up`.",
        ),
    ] = "127.0.0.1:5000",
) -> None:
    """Check whether this machine can run a BuildKit of its own, and show what is missing.

    Each finding has the command that fixes it. At the end a test build runs, in a directory that is
    then removed. The exit code is 0 if builds can run, and 1 if they cannot.

    \b
      function-builder doctor
      sudo -u builder function-builder doctor
    """
    configure_logging(json=False)
    with failing_with(SettingsError):
        settings = Settings.from_environment(os.environ)
    state = (state_dir or default_state()).absolute()
    findings = [*examine(_machine()), *_addresses(settings, registry_listen)]
    findings.append(disk("state_dir", state, "function-builder serve --state-dir DIR"))
    findings.append(disk("spool_dir", settings.spool_dir, "spool_dir=DIR function-builder serve"))
    for finding in findings:
        _print(finding)
    if all(finding.level is not Level.FAIL for finding in findings):
        trial = asyncio.run(_try(state))
        findings.append(trial)
        _print(trial)
    if any(finding.level is Level.FAIL for finding in findings):
        typer.echo("\nBuilds cannot run here until each FAIL above is fixed.")
        raise typer.Exit(FAILED)
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


def _print(finding: Finding) -> None:
    typer.echo(f"{finding.level:4}  {finding.subject:16}  {finding.found}")
    if finding.level is not Level.OK and finding.remedy:
        typer.echo(f"{'':24}fix: {finding.remedy}")


async def _try(state: Path) -> Finding:
    """Run a build as `serve` would, because the other checks cannot prove that builds run."""
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
        return Finding(subject, Level.FAIL, f"was tried and failed: {error or 'it took too long'}")
    if snapshotter == "native":
        slow = f"{said}; BuildKit copies each layer, because overlay cannot be mounted in {state}"
        return Finding(subject, Level.NOTE, slow, "function-builder serve --state-dir DIR")
    return Finding(subject, Level.OK, f"{said}, on {snapshotter}")


def _write_context(directory: Path) -> str:
    """Write the context of the test build; return the finding's text if it succeeds."""
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
    """A directory on the file system of `state`, or of its nearest existing parent."""
    while not state.exists():
        state = state.parent
    directory = Path(tempfile.mkdtemp(prefix=".doctor-", dir=state))
    try:
        yield directory
    finally:
        # Overlay leaves directories that their owner may not read.
        for work in directory.glob("bk/state/runc-*/snapshots/snapshots/*/work/work"):
            work.chmod(stat.S_IRWXU)
        shutil.rmtree(directory)
