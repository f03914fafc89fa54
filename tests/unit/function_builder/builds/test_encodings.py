"""Secrets in the forms that programs print, made by these programs where they are at hand."""

import base64
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.builds.encodings import MAX_ENCODED_BYTES
from function_builder.builds.masking import Mask

SECRET = 'it\'s "p/ss" <wörd> $1+2&3%\\'


def shell(*words: str) -> Callable[[str], str]:
    """What a shell's own quoting makes of a value."""

    def printed(value: str) -> str:
        done = subprocess.run([*words, value], capture_output=True, check=True)
        return (done.stdout + done.stderr).decode()

    return printed


FORMS: dict[str, Callable[[str], str]] = {
    "shlex": shlex.quote,
    "sh -x": shell("sh", "-xc", ': "$1"', "sh"),
    "bash -x": shell("bash", "-xc", ': "$1"', "bash"),
    "busybox -x": shell("busybox", "sh", "-xc", ': "$1"', "sh"),
    "bash %q": shell("bash", "-c", 'LC_ALL=C.UTF-8; printf "%q" "$1"', "bash"),
    "bash @Q": shell("bash", "-c", 'echo "${1@Q}"', "bash"),
    "repr": repr,
    "JSON": json.dumps,
    "JSON, UTF-8": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON of PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "URL": lambda value: quote(value, safe=""),
    "URL, lower": lambda value: re.sub(
        "%..", lambda match: match[0].lower(), quote(value, safe="")
    ),
    "path": quote,
    "form": quote_plus,
    "query": lambda value: urlencode({"password": value}),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64, url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "basic": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "basic, 1": lambda value: base64.b64encode(f"u:{value}\n".encode()).decode(),
    "basic, 2": lambda value: base64.b64encode(f"us:{value}:x".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_each_form(form: str) -> None:
    said = FORMS[form](SECRET)
    hidden = Mask({"s": SECRET.encode()}).text(said)
    assert "***" in hidden
    # What is left is what stands around it: quotes, padding, a neighbour's bits.
    assert len(hidden.replace("***", "")) <= len(said) - len(SECRET)
    assert not any(piece in hidden for piece in ("p/ss", "p%2F", "wörd", "w%C3", "+2&3"))


# What comes before it decides two of its bits, and so does what comes after.
@given(st.binary(min_size=12, max_size=60), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_masked_whatever_stands_around_it(
    secret: bytes, before: bytes, after: bytes
) -> None:
    said = base64.b64encode(before + secret + after)
    hidden = Mask({"s": secret}).output(said)
    assert b"***" in hidden
    edge = len(base64.b64encode(before)) + len(base64.b64encode(after))
    assert len(hidden.replace(b"***", b"")) <= edge + 4


@pytest.mark.parametrize("width", [64, 76])
def test_base64_is_masked_over_lines(width: int) -> None:
    secret = bytes(range(200))
    text = base64.b64encode(secret)
    mask = Mask({"s": secret})
    for start in range(0, len(text), width):
        assert mask.output(text[start : start + width]).rstrip(b"=") == b"***"


def test_each_line_of_a_value_has_its_forms() -> None:
    mask = Mask({"s": b'{\n  "key": "a/b c"\n}'})
    assert mask.text(json.dumps('"key": "a/b c"')) == '"***"'
    assert mask.text(quote('"key": "a/b c"', safe="")) == "***"


def test_a_long_value_is_masked_as_it_is() -> None:
    """Its forms would take a multiple of its memory."""
    secret = b"s" * (MAX_ENCODED_BYTES + 1)
    mask = Mask({"s": secret, "short": b"hunter22"})
    assert mask.longest == len(secret)
    assert mask.output(secret) == b"***"
    assert mask.output(base64.b64encode(b"hunter22")) == b"***="


def test_a_short_secret_shreds_no_words() -> None:
    assert Mask({"s": b"true"}).text("dHJ1 it is RydW here") == "dHJ1 it is RydW here"
