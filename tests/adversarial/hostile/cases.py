"""How a hostile request and its answer are written.

An archive is written as what it holds besides a config and a Dockerfile that copies all of the
context to `/f`; `refused` and `built` say what must become of it.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from function_builder.contract.secrets import SecretsKey
from tests.support.archives import END, extended, header, octal, padded, record

MARK: Final = f"escaped-{uuid.uuid4().hex}"
"""In every name that leads out of its archive: nothing of this name may ever be found."""

CONFIG: Final = "com.openfaas.docker.config"
SECRETS: Final = "com.openfaas.secrets"
KEY: Final = SecretsKey.generate()
"""The builder's, for build secrets."""

BUDGET: Final = 1
"""Seconds that the impatient builder computes to select files; the other gives up after 10."""

COPIES_ALL: Final = b"FROM scratch\nCOPY . /f/\n"
COPIES_ITSELF: Final = b"FROM scratch\nCOPY Dockerfile /f/\n"
DIRECTORY: Final = "a directory"

Body = Callable[[str], Iterable[bytes]]
"""The pieces of a request's body, for the image that it is to push."""

Entry = bytes | Callable[[], bytes]
"""What an archive holds; large ones are made when they are sent, and equal each time, as every
process that runs tests reads the whole table."""

Held = bytes | str
"""What a path holds: a file's bytes, or `-> target`, or `DIRECTORY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and its answer.

    Attributes:
        status: of the answer.
        words: in its error; empty for a build that succeeds.
        image: what such a build's image holds in /f, apart from its Dockerfile; None: not
            looked at.
        seconds: within which the answer comes, generously.
        megabytes: by which the builder's memory may grow meanwhile.
        impatient: whether it is for the builder that gives up after `BUDGET`.
    """

    body: Body
    status: int
    words: str = ""
    image: Mapping[str, Held] | None = None
    seconds: float = 30
    megabytes: float = 48
    impatient: bool = False


def refused(
    words: str, *entries: Entry, status: int = 400, body: Body | None = None, **how: Any
) -> Case:
    """An archive that is refused, in these words among others."""
    bounds = {name: how.pop(name) for name in ("seconds", "megabytes", "impatient") if name in how}
    return Case(body=body or archive(*entries, **how), status=status, words=words, **bounds)


def built(
    image: Mapping[str, Held] | None, *entries: Entry, body: Body | None = None, **how: Any
) -> Case:
    """An archive that is what it seems to be: it is built, and the image holds just that."""
    bounds = {name: how.pop(name) for name in ("seconds", "megabytes") if name in how}
    return Case(body=body or archive(*entries, **how), status=200, image=image, **bounds)


def archive(
    *entries: Entry,
    config: bytes | None = b"",
    dockerfile: bytes | None = COPIES_ALL,
    end: bytes = END,
) -> Body:
    """A body of these entries, a config unless it is None, and a Dockerfile unless it is None."""

    def body(image: str) -> Iterable[bytes]:
        if config is not None:
            yield file(CONFIG, config or json.dumps({"image": image}).encode())
        if dockerfile is not None:
            yield file("context/Dockerfile", dockerfile)
        for entry in entries:
            yield entry if isinstance(entry, bytes) else entry()
        yield end

    return body


def many(entry: Callable[[int], bytes], count: int) -> Callable[[], bytes]:
    """One entry for each number below `count`."""
    return lambda: b"".join(map(entry, range(count)))


def file(name: str | bytes, data: bytes = b"", **fields: Any) -> bytes:
    """One entry; a name or target too long for a header gets a pax header before it."""
    raw = name if isinstance(name, bytes) else name.encode()
    target = fields.pop("target", b"")
    long = [(b"path", raw)] if len(raw) > 100 else []
    long += [(b"linkpath", target)] if len(target) > 100 else []
    pax = extended(b"".join(record(*each) for each in long)) if long else b""
    fields.setdefault("size", octal(len(data)))
    return pax + header(raw[:100], target=target[:100], **fields) + padded(data)


def folder(name: str) -> bytes:
    return file(name, flag=b"5", mode=b"0000755\0")


def symlink(name: str, target: str | bytes) -> bytes:
    return file(name, flag=b"2", target=target if isinstance(target, bytes) else target.encode())


def hardlink(name: str, target: str) -> bytes:
    return file(name, flag=b"1", target=target.encode())


def pax(*records: tuple[bytes, bytes]) -> bytes:
    """A pax header for the entry that follows."""
    return extended(b"".join(record(key, value) for key, value in records))


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    """A GNU long name (L) or link target (K) for the entry that follows."""
    return extended(name + b"\0", flag)
