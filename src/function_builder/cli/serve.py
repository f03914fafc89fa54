"""The command `function-builder serve`: a builder in production."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
import uvloop

from function_builder import server
from function_builder.cli.exit_codes import INTERRUPTED
from function_builder.cli.failing import failure
from function_builder.engine import (
    BuildKitConfig,
    BuildKitDaemon,
    BuildKitNetwork,
    CacheLimits,
    EngineError,
    NatsServer,
    Network,
    StepLogLimits,
    read_config,
)
from function_builder.logs import configure_logging
from function_builder.server import StartError
from function_builder.settings import EMBEDDED, OWN_BUILDKIT, Settings, SettingsError, near_misses

_log = structlog.get_logger(__name__)

_NETWORKS: Final = ("run_network", "buildkit_network")
"""Variables of the command itself."""


def serve(
    *,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The address of the API.")
    ] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The address of the metrics.")
    ] = None,
    buildkit_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="BuildKit's address: unix:///path or tcp://host:port."),
    ] = None,
    tlscacert: Annotated[
        str | None,
        typer.Option(
            "--tlscacert",
            "-tlscacert",
            metavar="FILE",
            help="The CA that signed BuildKit's certificate.",
        ),
    ] = None,
    tlscert: Annotated[
        str | None,
        typer.Option(
            "--tlscert", "-tlscert", metavar="FILE", help="The client certificate for BuildKit."
        ),
    ] = None,
    tlskey: Annotated[
        str | None,
        typer.Option("--tlskey", "-tlskey", metavar="FILE", help="The key of --tlscert."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="state_dir",
            metavar="DIR",
            help="The directory of the builder's own BuildKit, with its cache. "
            "[default: ~/.local/share/function-builder]",
        ),
    ] = None,
    run_network: Annotated[
        Network,
        typer.Option(
            envvar="run_network",
            help="The network of RUN steps with the builder's own BuildKit: BuildKit's; bridge, "
            "for root, without its 127.0.0.1; slirp4netns, for others, without this host's.",
        ),
    ] = Network.HOST,
    buildkit_network: Annotated[
        BuildKitNetwork,
        typer.Option(
            envvar="buildkit_network",
            help="The network of the builder's own BuildKit, for ADD, pulls and pushes: this "
            "host's; or isolated, without its 127.0.0.1 and a cloud's metadata service.",
        ),
    ] = BuildKitNetwork.HOST,
    _license_file: Annotated[
        str | None,
        typer.Option("--license-file", "-license-file", metavar="FILE", help="Ignored."),
    ] = None,
) -> None:
    """Serve the Function Builder API until SIGTERM.

    Without `buildkit_url`, it starts a BuildKit of its own: as root with runc, as an ordinary user
    with rootlesskit. The payload secret must exist before it starts.

    \b
      echo secret > /var/openfaas/secrets/payload-secret
      function-builder serve
      buildkit_url=tcp://buildkitd:1234 max_inflight=4 function-builder serve
    """
    flags = {
        "listen": listen,
        "metrics_listen": metrics_listen,
        "buildkit_url": buildkit_url,
        "tlscacert": tlscacert,
        "tlscert": tlscert,
        "tlskey": tlskey,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    state = (state_dir or default_state()).absolute()
    run_until_signal(_serve({**os.environ, **given}, state, run_network, buildkit_network))


def run_until_signal(main: Coroutine[None, None, None]) -> None:
    """Run a command's coroutine; a StartError or the like is one line and exit code 1."""
    with errors_in_a_line():
        uvloop.run(main)


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the command with one line and exit code 1 after an error, with 130 after Ctrl-C."""
    try:
        yield
    except (EngineError, SettingsError, StartError) as error:
        raise failure(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _serve(
    environment: dict[str, str], state: Path, network: Network, own_network: BuildKitNetwork
) -> None:
    configure_logging(json=not sys.stderr.isatty())
    settings = Settings.from_environment(environment)
    warn_of_near_misses(environment, ("state_dir", *_NETWORKS))
    if settings.buildkit_url:
        # A queue of our own is in that directory too.
        unused = _NETWORKS if settings.nats_url == EMBEDDED else ("state_dir", *_NETWORKS)
        for name in filter(environment.get, (*OWN_BUILDKIT, *unused)):
            _log.warning("a setting has no effect, because buildkit_url is set", name=name)
        if settings.nats_url == EMBEDDED:
            server.check_start(settings)
        async with own_queue(environment, state) as own:
            await server.serve(Settings.from_environment(own))
        return
    # Before BuildKit starts, because that takes seconds, and its log would hide the error.
    server.check_start(settings)
    if network is Network.HOST and own_network is BuildKitNetwork.HOST:
        _log.warning("RUN steps use this host's network, its 127.0.0.1 included")
    _log.info("starting a BuildKit of its own", state=str(state), network=network.value)
    daemon = BuildKitDaemon(
        state / "buildkit",
        config=own_buildkit(settings),
        network=network,
        own_network=own_network,
        memory=settings.buildkit_memory,
    )
    async with daemon, own_queue(environment, state) as own:
        await server.serve(Settings.from_environment({**own, "buildkit_url": daemon.address}))


@contextlib.asynccontextmanager
async def own_queue(
    environment: Mapping[str, str], state: Path, log: Path | None = None
) -> AsyncIterator[Mapping[str, str]]:
    """Run a nats-server of our own, if `nats_url` asks for it.

    Args:
        environment: the settings' variables.
        state: the absolute directory below which the queue and its store are.
        log: the file that receives the output of nats-server; None: our log.

    Yields:
        The variables, with the server's address in place of `embedded`.
    """
    if environment.get("nats_url") != EMBEDDED:
        yield environment
        return
    async with NatsServer(state / "nats", log=log) as nats:
        store = environment.get("store_url") or (state / "store").as_uri()
        yield {**environment, "nats_url": nats.url, "store_url": store}


def own_buildkit(
    settings: Settings, *, mirrored: Sequence[str] = (), registry: str = ""
) -> BuildKitConfig:
    """The configuration of our own BuildKit.

    Args:
        settings: the operator's.
        mirrored: registries that `registry` mirrors below their names, after the operator's
            mirrors.
        registry: one over plain HTTP, as `host:port`.

    Raises:
        EngineError: `buildkit_config`, or a file of `registry_authorities`, cannot be used.
    """
    mirrors: dict[str, list[str]] = {}
    own = [(host, f"{registry}/{host}") for host in mirrored]
    for host, mirror in (*settings.registry_mirrors, *own):
        mirrors.setdefault(host, []).append(mirror)
    authorities: dict[str, list[Path]] = {}
    for host, file in settings.registry_authorities:
        if not os.access(file, os.R_OK):
            # BuildKit would say so in each build that needs the registry, and not before.
            raise EngineError(f"registry_authorities: {file}, for {host}, cannot be read")
        authorities.setdefault(host, []).append(Path(file).absolute())
    return BuildKitConfig(
        mirrors=mirrors,
        plain_http=[*settings.plain_http_registries, *filter(None, (registry,))],
        authorities=authorities,
        cache=CacheLimits.within(settings.buildkit_cache_size),
        nameservers=settings.run_dns,
        log_level=settings.buildkit_log_level,
        step_log=StepLogLimits(settings.step_log_max_size, settings.step_log_max_speed),
        extra=read_config(Path(settings.buildkit_config)) if settings.buildkit_config else {},
    )


def warn_of_near_misses(environment: Mapping[str, str], others: Sequence[str]) -> None:
    """Tell the operator of variables that are not read, and look like one that is.

    Args:
        environment: what was given.
        others: variables that the command reads beside the settings.
    """
    for name, meant in sorted(near_misses(environment, others).items()):
        _log.warning("a variable is not a setting, and is ignored", name=name, did_you_mean=meant)


def default_state() -> Path:
    """The default directory of our own BuildKit."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data, "function-builder")


def _variables() -> str:
    lines = ["\b", "Environment variables:"]
    for setting in fields(Settings):
        lines.append(f"  {setting.metadata['variable']}")
        lines += textwrap.wrap(
            setting.metadata["doc"], 74, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)


# The command's help is its docstring: what Settings says of itself is said there, not repeated.
serve.__doc__ = f"{inspect.cleandoc(serve.__doc__ or '')}\n\n{_variables()}"
