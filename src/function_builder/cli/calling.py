"""The client of a command, and how the client's errors end the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import Final

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from function_builder.cli.builder_options import DEFAULT_URL, LOCAL_SECRET, BuilderOptions
from function_builder.cli.steps import printable
from function_builder.client import (
    AsyncClient,
    BuildResult,
    ClientError,
    ContextError,
    Refused,
    Unreachable,
    tls_context,
)

USAGE: Final = 2
REFUSED: Final = 3
INTERRUPTED: Final = 130


def client_of(
    options: BuilderOptions,
    note: Callable[[str], None],
    upload: Callable[[int, int], None] | None = None,
) -> AsyncClient:
    """Make the client that the options describe.

    Args:
        options: of the command.
        note: shows that a request is repeated.
        upload: shows how many bytes of how many are sent.

    Raises:
        typer.BadParameter: an option is wrong.
    """

    def on_retry(error: ClientError, seconds: float) -> None:
        note(f"{error}; trying again in {seconds:.0f} s")

    def on_manifest(sent: int, files: int) -> None:
        if sent < files:
            note(f"Sending {decimal(sent)} of {decimal(files)}, the rest is unchanged")

    def on_left_out(files: int, directories: int) -> None:
        counts = {"file": files, "directory": directories}
        note(f".dockerignore leaves out {' and '.join(_counted(counts))}")

    key = options.public_key
    try:
        return AsyncClient(
            options.url,
            payload_secret=_secret(options.payload_secret),
            headers=_headers(options.headers),
            ssl_context=_ssl_context(options),
            retry_timeout=options.wait,
            on_retry=on_retry,
            on_upload=upload,
            require_signed_answers=options.signed_answers,
            builder_public_key=read_file(key, "--builder-public-key") if key else None,
            manifest=not options.full,
            on_manifest=on_manifest,
            on_left_out=on_left_out,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    """`1 file`, `2 directories`."""
    for name, number in counts.items():
        if number:
            plural = name.replace("y", "ie") + "s"
            yield f"{number} {name if number == 1 else plural}"


def note_on(console: Console) -> Callable[[str], None]:
    """A function that shows a message outside the log."""
    return lambda text: console.print(Text(printable(text), "yellow"), soft_wrap=True)


def print_image(result: BuildResult) -> None:
    """Print the image with its digest, one word, whatever answered in a builder's place."""
    image = "@".join(part for part in (result.image, result.digest) if part)
    typer.echo("".join(printable(image).split()))


@contextmanager
def exits(console: Console, options: BuilderOptions, *, interrupted: str) -> Iterator[None]:
    """End the command with one line and an exit code if a call to the builder fails.

    Args:
        console: where the line is printed.
        options: what the client was made of.
        interrupted: what an interrupt means for the build.
    """
    try:
        yield
    except KeyboardInterrupt:
        _say(console, interrupted)
        raise typer.Exit(INTERRUPTED) from None
    except ClientError as error:
        _say(console, printable(f"{error}{_advice(error, options)}"))
        raise typer.Exit(USAGE if isinstance(error, ContextError) else REFUSED) from None


def _ssl_context(options: BuilderOptions) -> SSLContext | None:
    cacert, cert, key = options.cacert, options.cert, options.key
    if cacert is cert is key is None:
        return None
    try:
        return tls_context(cacert=cacert, cert=cert, key=key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cacert, --cert, --key") from error


def _headers(texts: Sequence[str]) -> dict[str, str]:
    lines: list[str] = []
    for text in texts:
        if text.startswith("@"):
            content = read_file(Path(text[1:]), "--header").decode("latin-1")
            lines += filter(str.strip, content.splitlines())
        else:
            lines.append(text)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            # Without the text, which may contain a password.
            raise typer.BadParameter("write NAME:VALUE, or @FILE", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers


def _secret(file: Path | None) -> bytes | None:
    if file is None and not LOCAL_SECRET.is_file():
        return None
    file = file or LOCAL_SECRET
    secret = read_file(file, "--payload-secret").strip()
    if not secret:
        raise typer.BadParameter(f"{file} is empty", param_hint="--payload-secret")
    return secret


def read_file(file: Path, option: str) -> bytes:
    """The content of the file that an option names."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {file}: {error.strerror}", param_hint=option
        ) from error


def _advice(error: ClientError, options: BuilderOptions) -> str:
    """What to do about an error, if the error does not say it."""
    if isinstance(error, Unreachable) and options.url == DEFAULT_URL:
        return "; `function-builder up` starts a builder here, --url names another"
    if isinstance(error, Refused) and not error.from_builder:
        return ""
    if isinstance(error, Refused) and error.status == HTTPStatus.UNAUTHORIZED:
        if options.payload_secret or LOCAL_SECRET.is_file():
            return "; is the payload secret the one that this builder has?"
        return "; sign with the builder's secret: --payload-secret FILE"
    if isinstance(error, Refused) and error.status == HTTPStatus.TOO_MANY_REQUESTS:
        return "; try later, or wait longer with --wait"
    return ""


def _say(console: Console, text: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
