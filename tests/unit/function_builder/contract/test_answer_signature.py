import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.answer_signature import (
    SIGNATURE_BYTES,
    build_answer,
    public_key_answer,
)
from function_builder.contract.result import BuildResult, BuildStatus
from tests.support import VECTORS

SECRET = b"a payload secret"
REQUEST = ("sha256=" + "ab" * 32, "1780000000.000001 sha256=" + "cd" * 32)
LINES = (
    b'{"log":["one"],"status":"in_progress","duration":0.1}\n',
    b'{"status":"in_progress","duration":9.1}\n',
)
LAST = b'{"image":"i","status":"success","duration":9.5}\n'


def signed(last: bytes = LAST, lines: tuple[bytes, ...] = LINES) -> bytes:
    signature = build_answer(SECRET, *REQUEST)
    for line in lines:
        signature.update(line)
    return signature.end(last)


def proven(
    last: bytes,
    lines: tuple[bytes, ...] = LINES,
    secret: bytes = SECRET,
    request: tuple[str, str] = REQUEST,
) -> bool | None:
    signature = build_answer(secret, *request)
    for line in lines:
        signature.update(line)
    return signature.proves(last)


def test_the_docs_check_it_in_python() -> None:
    text = (VECTORS.parents[1] / "docs" / "api.md").read_text("utf-8")
    (snippet,) = (code for code in text.split("```python\n")[1:] if "is_signed" in code)
    names: dict[str, Any] = {}
    exec(snippet.partition("```")[0], names)
    whole = b"".join(LINES) + signed()
    assert names["is_signed"](whole, SECRET, *REQUEST) is True
    assert names["is_signed"](whole, b"another secret", *REQUEST) is False
    assert names["is_signed"](whole.replace(b"success", b"SUCCESS"), SECRET, *REQUEST) is False
    assert names["is_signed"](b"".join(LINES) + LAST, SECRET, *REQUEST) is False


def test_it_is_the_last_key() -> None:
    """Made here with Python's own hmac."""

    def mac(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, hashlib.sha256).digest()

    key = mac(SECRET, b"function-builder answer to a build")
    key = mac(key, b"function-builder " + "\n".join(REQUEST).encode())
    covered = b"".join(LINES) + LAST.removesuffix(b"}\n")
    last = signed()
    assert last == LAST.removesuffix(b"}\n") + (
        b',"signature":"sha256=%b"}\n' % mac(key, covered).hex().encode()
    )
    assert list(json.loads(last))[-1] == "signature"
    assert len(last) - len(LAST) == SIGNATURE_BYTES
    assert proven(last) is True


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    whole = b"".join(LINES) + signed()
    place = data.draw(st.integers(0, len(whole) - 2))  # all but the newline at the end
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    changed = whole[:place] + bytes([other]) + whole[place + 1 :]
    *lines, last = changed.splitlines(keepends=True)
    assert proven(last, tuple(lines)) is not True


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"another secret"},
        {"request": (REQUEST[0], "")},
        {"request": ("sha256=" + "00" * 32, REQUEST[1])},
        {"lines": LINES[:1]},
        {"lines": ()},
        {"lines": LINES[::-1]},
    ],
)
def test_it_is_of_one_request_and_of_all_lines(change) -> None:
    assert proven(signed(), **change) is False


@pytest.mark.parametrize("last", [LAST, LAST.rstrip(), b"", b'{"signature":"sha256=00"}', b"\xff"])
def test_without_a_signature_it_says_nothing(last: bytes) -> None:
    assert proven(last) is None


def test_a_log_cannot_hold_what_looks_like_one() -> None:
    """JSON escapes the quotes, so that only the last key is read."""
    fake = ',"signature":"sha256=' + "00" * 32 + '"}'
    body = BuildResult(status=BuildStatus.FAILED, error=fake, log=[fake]).to_json()
    assert proven(body) is None
    assert proven(signed(body)) is True


def test_a_public_key_is_another_use() -> None:
    answer = public_key_answer(SECRET, "n").end(b'{"public_key":"k"}')
    assert public_key_answer(SECRET, "n").proves(answer) is True
    assert public_key_answer(SECRET, "m").proves(answer) is False
    assert build_answer(SECRET, "n", "").proves(answer) is False
