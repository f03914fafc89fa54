"""The form of a callback, judged by Standard Webhooks' own library."""

import base64
import dataclasses
import hmac
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from function_builder.contract.builds import BuildInfo, BuildState, new_id, parse_build_info
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.queue import webhooks
from function_builder.queue.webhooks import CallbackKeys, EventType, Webhook

KEY = bytes(range(32))
OLD = bytes(range(64))
SECRET = webhooks.format_secret(KEY)


BODY = webhooks.make_body(EventType.FINISHED, 1.5, {"buildId": "1", "status": "success"})
FINISHED = Webhook(
    id="msg_1_finished",
    url="https://hooks.example.com/",
    tenant="default",
    build_id="1",
    body=BODY,
    status=200,
    seconds=1.25,
)


def finished(**changes) -> Webhook:
    return dataclasses.replace(FINISHED, **changes)


@pytest.mark.parametrize(
    ("message_id", "timestamp", "body", "signature"),
    [
        # Of the specification and of the libraries' tests, with the secret that they use.
        (
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            '{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ],
)
def test_a_signature_of_the_libraries_own_tests(message_id, timestamp, body, signature):
    key = webhooks.parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert webhooks.signatures([key], message_id, timestamp, body.encode()) == signature


@pytest.mark.parametrize("secret", [KEY, OLD], ids=["new", "old"])
def test_the_library_accepts_it_under_each_secret_while_they_rotate(secret):
    webhook = finished()
    headers = webhook.headers(CallbackKeys([KEY, OLD], b"payload"), time.time())
    verified = Verifier(webhooks.format_secret(secret)).verify(webhook.body, headers)
    assert verified == json.loads(webhook.body)
    assert verified["timestamp"] == "1970-01-01T00:00:01.500Z"
    assert verified["type"] == "build.finished"


@given(body=st.text(), build_id=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True))
def test_the_library_accepts_every_body(body, build_id):
    webhook = finished(body=body.encode("utf-8", "replace"), build_id=build_id)
    headers = webhook.headers(CallbackKeys([KEY], None), time.time())
    Verifier(SECRET).verify(webhook.body, headers, json_parse=False)


def test_the_library_refuses_another_body_id_time_and_secret():
    webhook = finished()
    headers = webhook.headers(CallbackKeys([KEY], b"payload"), time.time())
    others = [
        (webhook.body + b" ", headers, SECRET),
        (webhook.body, headers | {"webhook-id": "msg_2_finished"}, SECRET),
        (webhook.body, headers, webhooks.format_secret(OLD)),
        (webhook.body, webhook.headers(CallbackKeys([KEY], b"payload"), time.time() - 400), SECRET),
    ]
    for body, sent, secret in others:
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(body, sent)


def test_openfaas_headers_are_beside_it():
    webhook = finished()
    headers = webhook.headers(CallbackKeys([KEY], b"payload"), 7.9)
    mac = hmac.new(b"payload", webhook.body, "sha256").hexdigest()
    assert headers["X-Build-Signature"] == f"sha256={mac}"
    assert headers["X-Call-Id"] == "1"
    assert headers["X-Function-Status"] == "200"
    assert headers["X-Duration-Seconds"] == "1.250000"
    assert headers["webhook-timestamp"] == "7"


def test_a_build_that_goes_on_has_no_status_and_an_open_builder_no_signature():
    headers = finished(status=0).headers(CallbackKeys([KEY], None), 0)
    assert not {"X-Function-Status", "X-Duration-Seconds", "X-Build-Signature"} & headers.keys()


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_of_a_size_that_the_specification_allows(size):
    text = webhooks.format_secret(bytes(size))
    assert webhooks.parse_secret(text) == bytes(size)
    assert Verifier(text).sign("a", time_of(0), "b").startswith("v1,")


def time_of(seconds):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begin with whsec_"),
        (base64.b64encode(KEY).decode(), "begin with whsec_"),
        ("whsec_", "has 0"),
        (webhooks.format_secret(bytes(23)), "has 23"),
        (webhooks.format_secret(bytes(65)), "has 65"),
        (SECRET.rstrip("="), "padding"),
        ("whsec_!" + SECRET[7:], "base64"),
    ],
)
def test_a_secret_of_another_form_is_refused_without_its_text(text, words):
    with pytest.raises(ValueError, match=words) as refused:
        webhooks.parse_secret(text)
    assert len(text) < 8 or text[7:] not in str(refused.value)


def test_the_log_and_the_callbacks_are_left_out():
    document = {"log": ["x"], "steps": [""], "callback": {"url": "https://a"}, "image": "a"}
    body = webhooks.make_body(EventType.FINISHED, 0, document)
    assert json.loads(body)["data"] == {"image": "a"}


def test_the_largest_values_are_reduced_first_and_named():
    document = {
        "status": "failed",
        "error": "exit code: 1 " + "é" * 30_000,
        "digests": {f"linux/{number}": "sha256:" + "0" * 64 for number in range(300)},
        "step": "RUN make",
    }
    data = json.loads(webhooks.make_body(EventType.FINISHED, 0, document))["data"]
    assert data["truncated"] == ["error", "digests"]
    assert data["error"].startswith("exit code: 1 é")
    assert data["error"].endswith("…")
    assert 4000 < len(data["error"].encode()) <= 4096
    assert "digests" not in data
    assert (data["status"], data["step"]) == ("failed", "RUN make")


VALUES = st.one_of(
    st.text(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(lambda text, times: text * times, st.text(min_size=1), st.integers(0, 20_000)),
    st.lists(st.text(), max_size=3).map(lambda texts: texts * 500),
)


# Hypothesis draws the words of our own modules too.
NAMES = st.text(max_size=20).filter(
    lambda name: name not in {"log", "steps", "callback", "truncated"}
)


@given(document=st.dictionaries(NAMES, VALUES, max_size=30))
def test_every_body_is_json_below_the_limit_with_every_small_value(document):
    body = webhooks.make_body(EventType.FINISHED, 0, document)
    assert len(body) < webhooks.MAX_BODY_BYTES
    data = json.loads(body)["data"]
    for name in document.keys() - set(data.get("truncated", [])):
        assert name in data or not name.isprintable()


def test_events_are_read_in_their_order():
    assert webhooks.parse_events(None) == (EventType.FINISHED,)
    assert webhooks.parse_events(" , ") == (EventType.FINISHED,)
    named = webhooks.parse_events("build.finished, build.queued,build.finished")
    assert named == (EventType.QUEUED, EventType.FINISHED)


def test_an_unknown_event_is_refused():
    with pytest.raises(Refusal, match=r"build\.queued, build\.started, build\.finished") as refused:
        webhooks.parse_events("build.finished, push\n")
    assert refused.value.status == 400


def test_an_id_is_the_same_for_each_attempt_and_has_no_full_stop():
    assert webhooks.webhook_id("a1", EventType.FINISHED, 3) == "msg_a1_finished"
    assert webhooks.webhook_id("a1", EventType.STARTED) == "msg_a1_started"
    assert webhooks.webhook_id("a1", EventType.STARTED, 2) == "msg_a1_started_2"
    with pytest.raises(ValueError, match="id"):
        webhooks.webhook_id("a.1", EventType.FINISHED)


ENDED = BuildInfo(
    id=new_id(5.0),
    state=BuildState.RUNNING,
    created=5.0,
    started=6.0,
    attempt=2,
    image="registry.example.com/acme/f:1",
).end(BuildState.FAILED, BuildResult(status=BuildStatus.FAILED, error="no", duration=2.5), 9.25)


def test_the_end_of_a_build_is_its_document():
    webhook = webhooks.make_webhook(EventType.FINISHED, ENDED, url="https://h/", tenant="default")
    body = json.loads(webhook.body)
    assert (body["type"], body["timestamp"]) == ("build.finished", "1970-01-01T00:00:09.250Z")
    assert parse_build_info(body["data"]) == ENDED
    assert webhook.id == f"msg_{ENDED.id}_finished"
    assert (webhook.status, webhook.seconds, webhook.created) == (500, 2.5, 9.25)


@pytest.mark.parametrize(
    ("state", "status"),
    [(BuildState.SUCCESS, 200), (BuildState.CANCELLED, 499), (BuildState.RUNNING, 0)],
)
def test_the_status_is_that_of_the_request_to_build(state, status):
    info = dataclasses.replace(ENDED, state=state)
    webhook = webhooks.make_webhook(EventType.FINISHED, info, url="https://h/", tenant="default")
    assert webhook.status == status


@pytest.mark.parametrize(("event", "moment"), [(EventType.QUEUED, 5.0), (EventType.STARTED, 6.0)])
def test_an_earlier_event_has_its_own_time(event, moment):
    info = dataclasses.replace(ENDED, state=BuildState.RUNNING, ended=None, result=None)
    webhook = webhooks.make_webhook(event, info, url="https://h/", tenant="default")
    assert webhook.created == moment


def test_it_waits_as_a_message():
    webhook = finished(body='{"ü":"\\n"}'.encode(), attempt=3, not_before=12.5)
    assert Webhook.parse(webhook.to_message()) == webhook


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"body":1}', b'{"body":"","new":1}', b"\xff"]
)
def test_another_message_is_told_apart(data):
    with pytest.raises(ValueError, match=r"not a callback|Expecting|codec"):
        Webhook.parse(data)
