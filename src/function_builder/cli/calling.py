"""The client of a command, and how the client's errors end the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from function_builder.cli.exit_codes import INTERRUPTED, REFUSED, USAGE
from function_builder.cli.given import DEFAULT_URL, LOCAL_SECRET, BuilderOptions, Mistake
from function_builder.cli.output import Output, write
from function_builder.cli.steps import printable
from function_builder.client import (
    AsyncClient,
    BuildResult,
    ClientError,
    ContextError,
    Refused,
    Unreachable,
)

if TYPE_CHECKING:
    from ssl import SSLContext

    from function_builder.client.runtime import Runtime


def client_of(
    options: BuilderOptions,
    note: Callable[[str], None],
    upload: Callable[[int, int], None] | None = None,
    runtime: Runtime | None = None,
) -> AsyncClient:
    """Make the client that the options describe.

    Args:
        options: of the command.
        note: shows that a request is repeated.
        upload: shows how many bytes of how many are sent.
        runtime: as for `AsyncClient`.

    Raises:
        Mistake: an option is wrong.
    """

    def on_retry(error: ClientError, seconds: float) -> None:
        note(f"{error}; trying again in {seconds:.0f} s")

    def on_manifest(sent: int, files: int) -> None:
        if sent < files:
            from rich.filesize import decimal

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
            runtime=runtime,
        )
    except ValueError as error:
        raise Mistake(str(error)) from error


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    """`1 file`, `2 directories`."""
    for name, number in counts.items():
        if number:
            plural = name.replace("y", "ie") + "s"
            yield f"{number} {name if number == 1 else plural}"


def note_on(output: Output) -> Callable[[str], None]:
    """A function that shows a message outside the log."""
    return lambda text: write(output, (printable(text), "yellow"))


def print_image(result: BuildResult) -> None:
    """Print the image with its digest, one word, whatever answered in a builder's place."""
    image = "@".join(part for part in (result.image, result.digest) if part)
    print("".join(printable(image).split()), flush=True)  # noqa: T201 (standard output is for it)


@contextmanager
def exits(output: Output, options: BuilderOptions, *, interrupted: str) -> Iterator[None]:
    """End the command with one line and an exit code if a call to the builder fails.

    Args:
        output: where the line is printed.
        options: what the client was made of.
        interrupted: what an interrupt means for the build.
    """
    try:
        yield
    except KeyboardInterrupt:
        _say(output, interrupted)
        raise SystemExit(INTERRUPTED) from None
    except ClientError as error:
        _say(output, printable(f"{error}{_advice(error, options)}"))
        raise SystemExit(USAGE if isinstance(error, ContextError) else REFUSED) from None


def _ssl_context(options: BuilderOptions) -> SSLContext | None:
    cacert, cert, key = options.cacert, options.cert, options.key
    if cacert is cert is key is None:
        return None
    from function_builder.client import tls_context

    try:
        return tls_context(cacert=cacert, cert=cert, key=key)
    except ValueError as error:
        raise Mistake(str(error), "--cacert, --cert, --key") from error


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
            raise Mistake("write NAME:VALUE, or @FILE", "--header")
        headers[name.strip()] = value.strip()
    return headers


def _secret(file: Path | None) -> bytes | None:
    if file is None and not LOCAL_SECRET.is_file():
        return None
    file = file or LOCAL_SECRET
    secret = read_file(file, "--payload-secret").strip()
    if not secret:
        raise Mistake(f"{file} is empty", "--payload-secret")
    return secret


def read_file(file: Path, option: str) -> bytes:
    """The content of the file that an option names."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Mistake(f"cannot read {file}: {error.strerror}", option) from error


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


def _say(output: Output, text: str) -> None:
    write(output, ("error: ", "bold red"), text)
