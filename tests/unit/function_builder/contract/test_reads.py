"""The proof of a request without a body."""

from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.builds import new_id
from function_builder.contract.reads import build_token, opens, read_signer, sign_read
from function_builder.contract.signature import SIGNATURE_HEADER, sign
from function_builder.contract.timestamp import TIMESTAMP_HEADER, read_timestamp

SECRET, OTHER = b"secret of a test", b"another one"
targets = st.text().map(lambda text: f"/builds{text}")
methods = st.sampled_from(["GET", "DELETE", "POST"])


@given(methods, targets, st.integers(0, 10**10))
def test_a_signature_proves_its_request_and_its_time(method: str, target: str, now: int):
    headers = sign_read(SECRET, method, target, float(now))
    signature = headers[SIGNATURE_HEADER]
    assert read_signer([OTHER, SECRET], method, target, signature) == SECRET
    timestamp = read_timestamp(headers[TIMESTAMP_HEADER], signature, [SECRET])
    assert timestamp is not None
    assert timestamp.seconds == now


@given(methods, targets, methods, targets)
def test_a_signature_proves_no_other_request(one: str, target: str, two: str, other: str):
    signature = sign_read(SECRET, one, target, 0)[SIGNATURE_HEADER]
    same = (one, target) == (two, other)
    # What is not Unicode cannot be sent, and counts as "?".
    if same or (target.isascii() and other.isascii()):
        assert (read_signer([SECRET], two, other, signature) is not None) == same
    assert read_signer([OTHER], one, target, signature) is None


def test_the_text_is_the_one_of_the_documentation():
    # printf 'GET /builds?limit=5' | openssl dgst -sha256 -hmac 'secret of a test'
    assert sign_read(SECRET, "GET", "/builds?limit=5", 0)[SIGNATURE_HEADER] == sign(
        SECRET, b"GET /builds?limit=5"
    )


@given(st.text())
def test_a_token_opens_its_build_alone(text: str):
    build = new_id()
    token = build_token(SECRET, "default", build)
    assert opens(token, [OTHER, SECRET], "default", build)
    assert not opens(token, [SECRET], "default", new_id())
    assert not opens(token, [SECRET], "acme", build)
    assert not opens(token, [OTHER], "default", build)
    assert not opens(text, [SECRET], "default", build)
