"""The configuration's JSON, read as Go reads it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.errors import Refusal


def refusal(data: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        parse_config(data)
    assert caught.value.status == 400
    return caught.value.reason


def test_what_faas_cli_sends():
    config = parse_config(
        b'{"image":"127.0.0.1:5000/functions/envfn:latest",'
        b'"buildArgs":{"ADDITIONAL_PACKAGE":""},"platforms":["linux/amd64"]}'
    )
    assert config.image == "127.0.0.1:5000/functions/envfn:latest"
    assert config.repository == "127.0.0.1:5000/functions/envfn"
    assert dict(config.build_args) == {"ADDITIONAL_PACKAGE": ""}
    assert config.platforms == ("linux/amd64",)
    assert not config.skip_push


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ('{"ref": "a/b:1"}', "a/b:1"),
        ('{"ref": "a/old", "image": "a/new"}', "a/new"),
        ('{"IMAGE": "a/b"}', "a/b"),
        ('{"image": "a/b", "Image": "a/b"}', "a/b"),
        ('{"image": "a/b", "Image": null}', "a/b"),
        ('{"image": "a/b", "frontend": "dockerfile.v0", "unknown": [1, {"a": 2}]}', "a/b"),
        ('\ufeff{"image": "a/b"}', "a/b"),
        ('{"image": "  a/b:1 "}', "a/b:1"),
        ('{"image": "GHCR.io/Alex/FN:V1"}', "ghcr.io/alex/fn:V1"),
        ('{"image": "localhost:5000/Fn"}', "localhost:5000/fn"),
        ('{"image": "[::1]:5000/fn:x"}', "[::1]:5000/fn:x"),
    ],
)
def test_keys_match_as_in_go(text, image):
    assert parse_config(text.encode()).image == image


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"image": "a/x", "IMAGE": "a/b"}', "image"),
        ('{"image": "a/x", "IMAGE": "a/y", "image": "a/x"}', "image"),
        ('{"image": "a/b", "skipPush": true, "SKIPPUSH": false}', "skipPush"),
        ('{"image": "a/b", "skipPush": true, "\u017fKipPush": false}', "skipPush"),
        ('{"image": "a/b", "skipPush": true, "s\u212aipPush": false}', "skipPush"),
        ('{"image": "a/b", "buildArgs": {"A": "1"}, "BuildArgs": {"A": "2"}}', "buildArgs"),
    ],
)
def test_a_key_with_two_values_is_refused(text: str, key: str):
    with pytest.raises(Refusal, match=f"{key} is there twice"):
        parse_config(text.encode())


def test_keys_are_compared_as_in_go():
    assert parse_config(b'{"\xc5\xbf\xe2\x84\xaaipPush": true}').skip_push


@pytest.mark.parametrize("platforms", ["[]", '[""]', "null"])
def test_no_platform_is_the_builders_own(platforms):
    assert parse_config(f'{{"image":"a/b","platforms":{platforms}}}'.encode()).platforms == ()


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("null", {}),
        ('{"X": null}', {}),
        ('{"X": null, "Y": ""}', {"Y": ""}),
        ('{"X": "1", "X": null}', {}),
        ('{"X": null, "X": "1"}', {"X": "1"}),
    ],
)
def test_null_arguments_are_absent(written, arguments):
    config = parse_config(f'{{"image":"a/b","buildArgs":{written}}}'.encode())
    assert config.build_args == arguments


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("build_args", "buildArgs"),
        ("build-args", "buildArgs"),
        ("buildArg", "buildArgs"),
        ("args", "buildArgs"),
        ("platform", "platforms"),
        ("skip_push", "skipPush"),
        ("push", "skipPush"),
        ("file", "dockerfile"),
        ("img", "image"),
        ("Xyzzy", ""),
        ("", ""),
    ],
)
def test_an_unknown_key_is_noted_with_the_one_that_is_meant(key, meant):
    config = parse_config(json.dumps({"image": "a/b", key: {"A": "1"}}).encode())
    assert config == BuildConfig(image="a/b")
    (note,) = config.notes
    assert f'"{key}"' in note
    assert note.endswith(f"Did you mean {meant}?" if meant else "ignored.")


def test_known_keys_are_not_noted():
    document = (
        b'{"REF": "a/b", "image": "a/b", "buildargs": {}, "Platforms": [], "skipPush": false,'
        b' "frontend": "dockerfile.v0"}'
    )
    assert not parse_config(document).notes


def test_many_unknown_keys_are_counted():
    document = {f"key-{number}\n": number for number in range(1000)}
    notes = parse_config(json.dumps({"image": "a/b", **document}).encode()).notes
    assert len(notes) == 11
    assert "990 more" in notes[-1]
    assert all(note.isprintable() for note in notes)


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ('{"image": "a/b",}', "line 1, column"),
        ('{\n  "image": "a/b"\n  "skipPush": true\n}', "line 3, column 3"),
        ("{'image': 'a/b'}", "line 1, column 2"),
        ('{"image": "a/b"} // comment', "line 1, column 18"),
    ],
)
def test_broken_json_has_its_place(written, place):
    assert place in refusal(written.encode())


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", "not UTF-8 text, at line 2, column 15"),
    ],
)
def test_another_encoding_is_named(encoding, word):
    text = '{"image": "a/b",\n "other": "caf\xe9"}'
    assert word in refusal(text.encode(encoding))


def test_a_number_of_any_length_is_json():
    assert parse_config(b'{"image": "a/b", "x": ' + b"1" * 10_000 + b"}").image == "a/b"


def test_without_a_push_no_image_is_needed():
    assert parse_config(b'{"skipPush": true}').image == ""


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"skipPush": true, "other": NaN}', "not JSON"),
        (b'{"skipPush": true, "other": -Infinity}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"[]", "JSON object"),
        (b"{}", "image is missing"),
        (b'{"image": ""}', "image is missing"),
        (b'{"image": 1}', "must be a string"),
        (b'{"image": ["a"]}', "must be a string"),
        (b'{"image": "a/b", "buildArgs": []}', "buildArgs"),
        (b'{"image": "a/b", "buildArgs": {"A": 1}}', '"A"'),
        (b'{"image": "a/b", "buildArgs": {"": "x"}}', "name is empty"),
        (b'{"image": "a/b", "buildArgs": {"A": "x\\u0000y"}}', "NUL"),
        (b'{"image": "a/b", "buildArgs": {"A": "\\ud800"}}', "surrogate"),
        (b'{"image": "a/b", "platforms": "linux/amd64"}', "platforms"),
        (b'{"image": "a/b", "platforms": [1]}', "platforms"),
        (b'{"image": "a/b", "platforms": ["linux/amd64,linux/arm64"]}', "linux/amd64"),
        (json.dumps({"image": "a", "platforms": list("abcdefghijklmnopqrstu")}).encode(), "20"),
        (b'{"image": "a/b", "skipPush": "yes"}', "skipPush"),
        (b'{"image": "a/b,c/d"}', "comma"),
        (b'{"image": "a/b@sha256:' + b"0" * 64 + b'"}', "digest"),
        (b'{"image": "a b"}', "not a valid reference"),
        (b'{"image": "a/b:"}', "not a valid reference"),
        (b'{"image": "a/b:x/y"}', "not a valid reference"),
        ('{"image": "\u212a/b"}'.encode(), "not a valid reference"),
        (b'{"image": "https://a/b"}', "not a valid reference"),
        (b'{"image": "a\\n/b"}', "not a valid reference"),
        (b'{"image": "' + b"a" * 10_000 + b'"}', "not a valid reference"),
        (b'{"image": "a/b:' + b"t" * 129 + b'"}', "not a valid reference"),
        (b'{"image": "a/b"}' + b" " * (1 << 20), "larger than"),
    ],
    ids=range(33),
)
def test_what_is_wrong_is_named(data, word):
    reason = refusal(data)
    assert word in reason
    assert len(reason) < 500
    assert reason.isprintable()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_refusal(data):
    try:
        assert isinstance(parse_config(data), BuildConfig)
    except Refusal as refused:
        assert refused.status == 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).flatmap(
        lambda value: st.dictionaries(
            st.sampled_from(["image", "ref", "buildArgs", "platforms", "skipPush"]), st.just(value)
        )
    )
)
def test_any_types_are_a_config_or_a_refusal(document):
    try:
        assert isinstance(parse_config(json.dumps(document).encode()), BuildConfig)
    except Refusal as refused:
        assert refused.status == 400


@given(
    st.builds(
        BuildConfig,
        image=st.sampled_from(["a/b", "r:5000/x/y:T_1.0", "fn"]),
        build_args=st.dictionaries(st.text("AZaz_", min_size=1), st.text("x =\n", max_size=5)),
        platforms=st.sampled_from([(), ("linux/amd64",), ("linux/amd64", "linux/arm/v7")]),
        skip_push=st.booleans(),
    )
)
def test_what_a_client_writes_is_read_back(config):
    assert parse_config(config.to_json()) == config
