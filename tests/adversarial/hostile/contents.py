"""The table of what hostile archives hold: ignore files, configs, image references, secrets."""

import base64
import json
from functools import cache
from typing import Any, Final

import yaml

from function_builder.contract.secrets import SecretsKey, seal
from tests.adversarial.hostile.cases import (
    BUDGET,
    CONFIG,
    KEY,
    MARK,
    SECRETS,
    Case,
    Entry,
    built,
    file,
    folder,
    many,
    refused,
    symlink,
)

_LONG_NAMES: Final = many(
    lambda n: file("context/" + "a" * 100 + f"{n % 50}/" + "a" * 240 + f"{n}"), 2000
)
"""A tree that costs a matcher the most: names that nearly match, for long."""


def _ignoring(*patterns: str | bytes) -> Entry:
    """An ignore file of these lines, over that tree."""
    lines = [line if isinstance(line, bytes) else line.encode() for line in patterns]
    return lambda: file("context/.dockerignore", b"\n".join(lines)) + _LONG_NAMES()


def _copying(*sources: str) -> bytes:
    """A Dockerfile whose COPYs name these, and itself, as there must be one."""
    copies = [f"COPY Dockerfile {source} /f/\n" for source in sources]
    return f"FROM scratch\n{''.join(copies)}".encode()


_STARS: Final = "*a" * 500 + "b"
_TRIES: Final = [f"*{'a*' * 500}{n}b" for n in range(30)]

PATTERNS: Final = {
    "five hundred stars": built(None, _ignoring("*/" + _STARS), seconds=90),
    "thirty times five hundred stars": built(None, _ignoring(*_TRIES), seconds=90),
    "a name of many **": built(None, _ignoring("**/" * 300 + "b"), seconds=90),
    "many ** within names": built(None, _ignoring("**a" * 30 + "b"), seconds=90),
    "expressions that would backtrack": built(None, _ignoring("[^b]*" * 30 + "b"), seconds=90),
    "a repeat of repeats": refused("pattern", _ignoring("a{1000}" * 140 + "*")),
    "a repeat that Go refuses": refused("pattern", _ignoring("a{1001}*")),
    "classes that are not closed": refused("pattern", _ignoring("[" * 1000)),
    "an exclamation mark alone": refused("illegal exclusion pattern", _ignoring("!")),
    "a pattern longer than names": refused("characters", _ignoring("*" * 2000)),
    "signs that take turns, 9,000 times": refused("take turns", _ignoring(*["a*", "!b*"] * 4500)),
    "signs that take turns, 400 times": built(None, _ignoring(*["a?*", "!b*"] * 200), seconds=90),
    "10,000 lines": refused("10000 lines", _ignoring(*["a"] * 10_001)),
    "9,999 lines": built(None, _ignoring(*(f"n{n}" for n in range(9_999))), seconds=90),
    "a line of 65,535 bytes": built(None, _ignoring("a" * 65_535), seconds=90),
    "a line of 65,536 bytes": refused("65535 bytes", _ignoring("a" * 65_536)),
    "more than a megabyte": refused("1048576 bytes", _ignoring("a" * ((1 << 20) + 1))),
    "bytes that are not UTF-8": built(None, _ignoring(b"\xff*", b"\xc0\x80")),
    "carriage returns and a mark of order": built(
        {"a": b""},
        file("context/.dockerignore", b"\xef\xbb\xbf.dockerignore\r\n\r\nb\r\n"),
        file("context/a"),
        file("context/b"),
    ),
    "NULs": refused("a control character in line 2", _ignoring("a", b"a\0b")),
    "all": refused("not found", _ignoring("**"), dockerfile=_copying("a"), status=500),
    "a COPY of many stars": built(None, _LONG_NAMES, dockerfile=_copying(*_TRIES), seconds=90),
    "a COPY of many stars over many links": refused(
        f"patterns that take more than {BUDGET} s",
        many(lambda n: symlink("context/" + "a" * 90 + f"{n}", "nowhere"), 5000),
        dockerfile=_copying(*(_TRIES * 4)),
        status=500,
        seconds=200,
        impatient=True,
    ),
    "links to stars to links to stars": refused(
        f"patterns that take more than {BUDGET} s",
        many(lambda n: symlink(f"context/{n}", "*/*"), 8000),
        dockerfile=_copying("*/*/*"),
        status=500,
        seconds=200,
        impatient=True,
    ),
    "links that multiply": refused(
        "too many links",
        many(lambda n: symlink(f"context/{n}", f"{n + 1}/../{n + 1}/../{n + 1}"), 1000),
        folder("context/1000"),
        dockerfile=_copying("0*"),
        status=500,
    ),
}


def _configured(**keys: object) -> bytes:
    return json.dumps({"skipPush": True, **keys}).encode()


CONFIGS: Final = {
    "not JSON": refused("not JSON", config=b"image: a"),
    "empty": refused("not JSON", file(CONFIG), config=None),
    "not UTF-8": refused("it is UTF-16 text", config='{"image": "a"}'.encode("utf-16")),
    "no object": refused("must be a JSON object", config=b"[1]"),
    "nested for a megabyte": refused("not JSON", config=b"[" * 1_000_000),
    "nested objects for a megabyte": refused("not JSON", config=b'{"a":' * 200_000),
    "a number of a million digits": refused(
        "image is missing", config=b'{"x": ' + b"1" * 1_000_000 + b"}"
    ),
    "more than a megabyte": refused("larger than 1048576 bytes", config=b" " * (1 << 20) + b"{}"),
    "a megabyte of keys": built(None, config=_configured(**{f"{n}": n for n in range(60_000)})),
    "an image that is a list": refused("image must be a string", config=b'{"image": ["a"]}'),
    "no image": refused("image is missing", config=b"{}"),
    "arguments in a list": refused("buildArgs must be", config=_configured(buildArgs=["a"])),
    "an argument that is a number": refused(
        "must be a string", config=_configured(buildArgs={"a": 1})
    ),
    "an argument without a name": refused("name is empty", config=_configured(buildArgs={"": "a"})),
    "an argument with a NUL": refused("holds NUL", config=_configured(buildArgs={"a": "b\0c"})),
    "an argument with half a surrogate": refused(
        "half a surrogate pair", config=_configured(buildArgs={"a": "\ud800"})
    ),
    "an argument named like an attribute": built(
        None, config=_configured(buildArgs={"a:b=c,d": "e", "context": "f", "build-arg:x": "g"})
    ),
    "a megabyte in one argument": built(None, config=_configured(buildArgs={"a": "x" * 1_000_000})),
    "70,000 arguments": built(
        None, config=_configured(buildArgs={f"a{n}": "" for n in range(70_000)}), seconds=90
    ),
    "platforms with commas": refused(
        "must look like", config=_configured(platforms=["linux/amd64,linux/arm64"])
    ),
    "50,000 platforms": refused(
        "more than 20 platforms", config=_configured(platforms=[f"a/{n}" for n in range(50_000)])
    ),
    "a frontend of one's own": built(None, config=_configured(frontend="gateway.v0")),
}


def _image(reference: str) -> Case:
    return refused("image ", config=json.dumps({"image": reference}).encode())


IMAGES: Final = {
    ascii(reference)[:40]: _image(reference)
    for reference in (
        "a,b",
        "a b",
        "a\nb:c",
        "a\0b",
        "\x1b[2J",
        "x" * 10_000,
        "a/" * 5_000 + "a",
        "a" + "-" * 5_000,
        "a:" + "t" * 129,
        "a:",
        ":a",
        "a:b:c",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a//b",
        "https://a/b",
        "a@sha256:" + "0" * 64,
        "a?b#c",
        "-a",
        "$(id)",
        "é/a",
        "\u212a/a",
        "a:\uff11",
        "a\u202eb",
        "[::1",
        '"a"',
    )
}


def _sealed(**changes: object) -> bytes:
    """A secrets file whose keys are changed; None takes one away."""
    keys = yaml.safe_load(seal({"token": b"canary-value"}, KEY.public)) | changes
    return yaml.safe_dump(
        {name: value for name, value in keys.items() if value is not None}
    ).encode()


def _secrets(words: str, data: bytes, **how: Any) -> Case:
    return refused(words, file(SECRETS, data), **how)


def _of_many(number: int) -> bytes:
    """A secrets file of so many names for one value: to seal each would take a second."""
    keys = yaml.safe_load(seal({"n": b"x"}, KEY.public))
    value = keys.pop("secrets")["n"]
    names = b"".join(b"  n%d: %s\n" % (each, value.encode()) for each in range(number))
    return yaml.safe_dump(keys).encode() + b"secrets:\n" + names


_PLAIN: Final = "not YAML, or YAML with aliases, tags or nesting"
_BASE64: Final = "public_key is not base64 of 32 bytes"
_MUST_MAP: Final = "secrets must map names to sealed values"

SEALED: Final = {
    "empty": _secrets(_PLAIN, b""),
    "random bytes": _secrets(_PLAIN, bytes(range(256))),
    "a list": _secrets("must be a YAML mapping", b"- a"),
    "not closed": _secrets(_PLAIN, b"{a: 'b"),
    "UTF-16": _secrets("it is UTF-16 text", _sealed().decode().encode("utf-16")),
    "an alias": _secrets(_PLAIN, b"a: &a b\nc: *a\n"),
    "aliases that multiply": _secrets(_PLAIN, b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "an object of Python's": _secrets(
        "must be a YAML mapping", b"!!python/object/apply:os.system [id]"
    ),
    "nested for a megabyte": _secrets(_PLAIN, b"[" * (1 << 20)),
    "a megabyte of directives": _secrets(_PLAIN, b"%TAG !a! b\n" * 90_000 + b"--- a"),
    "a megabyte of documents": _secrets("", b"---\n" * 260_000),
    "a megabyte of keys": _secrets(_BASE64, b"a: b\n" * 200_000),
    "more than a megabyte": _secrets("larger than 1048576 bytes", b"#" * ((1 << 20) + 1)),
    "of another version": _secrets("version must be v1", _sealed(version="v2")),
    "of another algorithm": _secrets("algorithm must be", _sealed(algorithm="rot13")),
    "without a key": _secrets(_BASE64, _sealed(public_key=None)),
    "with a key that is none": _secrets(_BASE64, _sealed(public_key="AAAA")),
    "with a key of low order": _secrets(
        "not one that a key pair has", _sealed(public_key=base64.b64encode(bytes(32)).decode())
    ),
    "for another builder": _secrets(
        "seal it again with the builder's current key",
        seal({"token": b"x"}, SecretsKey.generate().public),
    ),
    "whose secrets are a list": _secrets(_MUST_MAP, _sealed(secrets=["a"])),
    "whose secret is a list": _secrets(_MUST_MAP, _sealed(secrets={"a": ["b"]})),
    "not base64": _secrets('secret "token" cannot be decrypted', _sealed(secrets={"token": "?"})),
    "shorter than a nonce": _secrets(
        'secret "token" cannot be decrypted',
        _sealed(secrets={"token": base64.b64encode(b"x").decode()}),
    ),
    "of another's sealing": _secrets(
        'secret "token" cannot be decrypted',
        _sealed(secrets={"token": base64.b64encode(bytes(80)).decode()}),
    ),
    "a name with escapes, in a refusal": _secrets(
        '"a\\n\\x1b" cannot be decrypted', _sealed(secrets={"a\n\x1b": "?"})
    ),
    "a name of 10,000 characters, in a refusal": _secrets(
        "cannot be decrypted", _sealed(secrets={"n" * 10_000: "?"})
    ),
    "names that lead out": built(
        {}, file(SECRETS, seal({f"../{MARK}": b"x", f"/tmp/{MARK}": b"y", "": b"z"}, KEY.public))
    ),
    "of 2,000 lines": _secrets("more than 1000 lines", seal({"a": b"x\n" * 2000}, KEY.public)),
    "a thousand of them": built(
        {}, cache(lambda: file(SECRETS, seal({f"n{n}": b"x" for n in range(1000)}, KEY.public)))
    ),
    "10,000 of them": _secrets("more than 1000 lines", _of_many(10_000)),
}
