"""The token of the web pages."""

from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.web import parse_web_token, web_token

SECRETS = st.binary(min_size=6, max_size=64)
TENANTS = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
TIMES = st.integers(min_value=1, max_value=2**33)


def opens(text: str, secret: bytes, now: float) -> str | None:
    """The tenant that a text opens the pages of."""
    token = parse_web_token(text)
    return token.tenant if token and token.valid([b"another", secret], now) else None


@given(SECRETS, TENANTS, TIMES)
def test_a_token_is_valid_until_it_expires(secret, tenant, expires):
    text = web_token(secret, tenant, expires)
    assert opens(text, secret, expires - 1) == tenant
    assert opens(text, secret, expires) is None


@given(SECRETS, SECRETS, TENANTS, TIMES)
def test_a_token_of_another_secret_is_not_valid(secret, other, tenant, expires):
    assert (opens(web_token(secret, tenant, expires), other, 0) == tenant) == (secret == other)


@given(SECRETS, TENANTS, TIMES, st.data())
def test_a_token_that_was_changed_is_not_valid(secret, tenant, expires, data):
    text = web_token(secret, tenant, expires)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters().filter(lambda letter: letter != text[at]))
    assert opens(text[:at] + letter + text[at + 1 :], secret, 0) is None


@given(st.text())
def test_any_text_may_be_asked_about(text):
    assert opens(text, b"a payload secret", 0) is None
