"""The options of each command that speaks to a builder: where it is, and how it is trusted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from function_builder.cli.given import (
    DEFAULT_URL,
    DEFAULT_WAIT_SECONDS,
    LOCAL_SECRET,
    BuilderOptions,
    Mistake,
)

UrlOption = Annotated[
    str,
    typer.Option(metavar="URL", envvar="OPENFAAS_REMOTE_BUILDER", help="The builder's URL."),
]
PayloadSecretOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="OPENFAAS_PAYLOAD_SECRET",
        help=f"The file of the payload secret. Without it: {LOCAL_SECRET}, if that file exists.",
        exists=True,
        dir_okay=False,
    ),
]
CacertOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The trusted authorities for https, in PEM. Without it: the system's, or those "
        "that SSL_CERT_FILE names.",
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A client certificate for https, in PEM."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The private key of --cert, if --cert does not contain it."),
]
HeadersOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME:VALUE",
        help="A header for a proxy in front of the builder; may be repeated. @FILE reads one "
        "header from each line, so that a secret is not in the list of processes.",
    ),
]
BuilderKeyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The builder's public key: secrets that were sealed for another key are not "
        "sent. Without it, the builder is asked for its key if it signs its answers.",
        exists=True,
        dir_okay=False,
    ),
]
SignedAnswersOption = Annotated[
    bool | None,
    typer.Option(
        "--require-signed-answers/--allow-unsigned-answers",
        help="Whether an answer without a signature is rejected. pro-builder does not sign "
        "answers. Without it: they are rejected with a payload secret, unless the URL is https.",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0, help="How long to wait for a busy builder."),
]


@contextmanager
def usage_errors() -> Iterator[None]:
    """Have Typer say which option is wrong, and how the command is used."""
    try:
        yield
    except Mistake as mistake:
        raise typer.BadParameter(str(mistake), param_hint=mistake.option or None) from mistake


def with_builder(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a builder, after its own; their values are its first argument.

    Typer makes the options of a function's signature, so this extends the signature.
    """

    def options(
        *,
        url: UrlOption = DEFAULT_URL,
        payload_secret: PayloadSecretOption = None,
        cacert: CacertOption = None,
        cert: CertOption = None,
        key: KeyOption = None,
        header: HeadersOption = None,
        signed_answers: SignedAnswersOption = None,
        wait: WaitOption = DEFAULT_WAIT_SECONDS,
    ) -> BuilderOptions:
        return BuilderOptions(
            url=url,
            payload_secret=payload_secret,
            headers=header or (),
            cacert=cacert,
            cert=cert,
            key=key,
            signed_answers=signed_answers,
            wait=wait,
        )

    common = inspect.signature(options, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        builder = options(**{name: given.pop(name) for name in common})
        command(builder, **given)

    parameters = [*own, *common.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
