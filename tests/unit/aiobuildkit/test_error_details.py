import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.error_details import solve_error
from aiobuildkit.errors import ErrorDetail, RPCError, SourceLocation, SourceRange, StatusCode

KINDS = (
    "errdefs.Source+json",
    "errdefs.Vertex+json",
    "gatewayapi.ExitMessage+json",
    "errdefs.Frontend+json",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["info", "ranges", "start", "end", "line", "data", "filename", "digest", "Code"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def detail(kind: str, value: object) -> ErrorDetail:
    return ErrorDetail(f"github.com/moby/buildkit/{kind}", json.dumps(value).encode())


@given(
    details=st.lists(
        st.builds(detail, st.sampled_from(KINDS), JSON)
        | st.builds(ErrorDetail, st.sampled_from(KINDS), st.binary(max_size=20)),
        max_size=4,
    )
)
def test_whatever_the_details_hold_the_error_stands(details):
    error = solve_error(RPCError(StatusCode.UNKNOWN, "it broke", details))
    assert (error.code, str(error), error.details) == (2, "it broke", tuple(details))


def test_fields_that_go_leaves_out_are_zero():
    data = base64.b64encode(b"FROM a\xff").decode()
    source = {"info": {"filename": "D", "data": data}, "ranges": [{"start": {"line": 1}}]}
    details = [detail(KINDS[0], source), detail(KINDS[2], {})]
    error = solve_error(RPCError(StatusCode.UNKNOWN, "", details))
    assert error.source == SourceLocation("D", (SourceRange(1, 0, 0, 0),), "FROM a\ufffd")
    assert (error.exit_code, error.vertex, error.in_frontend) == (0, None, False)


def test_a_frontends_error_is_told_from_a_steps():
    details = [detail(KINDS[3], {"name": "dockerfile.v0"})]
    assert solve_error(RPCError(StatusCode.UNKNOWN, "", details)).in_frontend


def test_a_text_that_cannot_be_decoded_leaves_the_place():
    source = {"info": {"filename": "D", "data": "\u00e9"}, "ranges": 1}
    error = solve_error(RPCError(StatusCode.UNKNOWN, "", [detail(KINDS[0], source)]))
    assert error.source == SourceLocation("D", (), "")


def test_without_details_nothing_is_known():
    error = solve_error(RPCError(StatusCode.NOT_FOUND, "no"))
    assert (error.source, error.exit_code, error.vertex) == (None, None, None)
