"""W3C Trace Context: what is taken, what is handed on."""

import pytest

from function_builder.builds.phases import Measures
from function_builder.server.tracing import Trace, forwarded

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.mark.parametrize(
    "parent",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f" 00-{TRACE}-{PARENT}-01 ",
        f"01-{TRACE}-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01-what-may-come",
    ],
)
def test_a_trace_is_forwarded_as_it_came(parent):
    with forwarded({"traceparent": parent, "tracestate": "a=1"}, Measures(0)) as trace:
        assert trace.id == TRACE
        assert trace.headers == {"traceparent": parent.strip(), "tracestate": "a=1"}


@pytest.mark.parametrize("state", ["", "é=1", "a=\n", "a=" + "1" * 511])
def test_a_state_that_is_none_is_not_forwarded(state):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"} | ({"tracestate": state} if state else {})
    assert Trace.of(headers).headers.keys() == {"traceparent"}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\r\nx: y",
    ],
)
def test_what_is_malformed_is_no_trace(parent):
    assert Trace.of({"traceparent": parent, "tracestate": "a=1"}) == Trace()
