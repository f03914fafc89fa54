"""The keys that come from `docker build`: their values, good and bad."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.config import _KEYS, BuildConfig, parse_config
from function_builder.contract.errors import Refusal
from function_builder.contract.options import Annotation, Attest, annotation, cache_attrs

ROOT = Path(__file__).parents[4]
DIGEST = "sha256:" + "0" * 64


def parse(**keys: Any) -> BuildConfig:
    return parse_config(json.dumps({"image": "r:5000/a:1", **keys}).encode())


def refusal(**keys: Any) -> str:
    with pytest.raises(Refusal) as caught:
        parse(**keys)
    assert caught.value.status == 400
    assert caught.value.reason.isprintable()
    return caught.value.reason


@pytest.mark.parametrize(
    ("key", "value", "field", "read"),
    [
        ("TARGET", " Release ", "target", "Release"),
        ("target", 0, None, None),
        ("dockerfile", "./a//b/./Containerfile", "dockerfile", "a/b/Containerfile"),
        ("dockerfile", "", "dockerfile", ""),
        ("tags", ["R:5000/B:X", "r:5000/b:X", ""], "tags", ("r:5000/b:X",)),
        ("labels", {"a": "b", "c": None, "d": ""}, "labels", {"a": "b", "d": ""}),
        ("noCache", True, "no_cache", True),
        ("noCache", ["a", "b"], "no_cache", ("a", "b")),
        ("noCache", [], "no_cache", ()),
        ("pull", True, "pull", True),
        ("ociMediaTypes", False, "oci_media_types", False),
        ("compression", " ZSTD ", "compression", "zstd"),
        ("compression", "", "compression", ""),
        ("addHosts", ["a=1.2.3.4"], "add_hosts", ("a=1.2.3.4",)),
        ("addHosts", ["a:1.2.3.4"], "add_hosts", ("a=1.2.3.4",)),
        ("addHosts", ["a=[::1]", "b:::1", "c_d.e=::ffff:1.2.3.4"], "add_hosts",
         ("a=::1", "b=::1", "c_d.e=::ffff:1.2.3.4")),
        ("shmSize", 1000, "shm_size", 1000),
        ("shmSize", "2M", "shm_size", 2 << 20),
        ("shmSize", "1GiB", "shm_size", 1 << 30),
        ("shmSize", "1kb", "shm_size", 1 << 10),
        ("ulimits", ["nofile=1"], "ulimits", ("nofile=1:1",)),
        ("ulimits", ["memlock=-1:-1", "core=0:-1"], "ulimits", ("memlock=-1:-1", "core=0:-1")),
        ("cacheFrom", ["R:5000/c"], "cache_from", ("R:5000/c",)),
        ("contexts", {"docker.io/library/alpine:latest": "lib"}, "contexts", {"alpine": "lib"}),
        ("contexts", {"index.docker.io/me/a:1": "lib"}, "contexts", {"me/a:1": "lib"}),
        ("contexts", {"library/a/b": "lib"}, "contexts", {"library/a/b": "lib"}),
        ("contexts", {"r:5000/library/a": "lib"}, "contexts", {"r:5000/library/a": "lib"}),
        ("contexts", {"a": f"docker-image://R/b@{DIGEST}"}, "contexts",
         {"a": f"docker-image://r/b@{DIGEST}"}),
        ("attest", {"Provenance": True}, "attest", Attest("min")),
        ("attest", {"provenance": "max", "SBOM": True}, "attest", Attest("max", sbom=True)),
        ("attest", {"provenance": None, "sbom": None}, "attest", Attest()),
    ],
)  # fmt: skip
def test_a_value_is_read(key, value, field, read):
    if field is None:
        refusal(**{key: value})
        return
    config = parse(**{key: value})
    assert getattr(config, field) == read
    assert not config.notes
    assert parse_config(config.to_json()) == config


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"target": "a b"}, "stage"),
        ({"target": "a,b"}, "stage"),
        ({"target": "0"}, "FROM … AS name"),
        ({"noCache": ["0"]}, "FROM … AS name"),
        ({"target": "é"}, "stage"),
        ({"dockerfile": "/etc/passwd"}, "inside the context"),
        ({"dockerfile": "a/../../b"}, "inside the context"),
        ({"dockerfile": ".."}, "inside the context"),
        ({"dockerfile": "Docker*"}, "character"),
        ({"dockerfile": "a\nb"}, "character"),
        ({"dockerfile": "a\x00b"}, "character"),
        ({"dockerfile": "a\\b"}, "character"),
        ({"dockerfile": "\ud800"}, "character"),
        ({"dockerfile": "a" * 5000}, "character"),
        ({"dockerfile": ["a"]}, "must be a string"),
        ({"tags": "r/a:1"}, "list of strings"),
        ({"tags": ["latest"]}, "whole reference"),
        ({"tags": ["r/a,r/b"]}, "no comma"),
        ({"tags": [f"r/a@{DIGEST}"]}, "digest"),
        ({"tags": [f"r/{number}" for number in range(21)]}, "more than 20"),
        ({"tags": ["r/a:1"], "image": "", "skipPush": True}, "name the first in image"),
        ({"labels": {"a": 1}}, "must be a string"),
        ({"labels": ["a=b"]}, "object of strings"),
        ({"labels": {"": "b"}}, "printable"),
        ({"labels": {"a\nb": ""}}, "printable"),
        ({"labels": {"a\u2028b": ""}}, "printable"),
        ({"labels": {"a=b": ""}}, "space or ="),
        ({"labels": {"a": "\x1b[2J"}}, "control characters"),
        ({"labels": {"a": "\x00"}}, "control characters"),
        ({"labels": {"a": "\udc80"}}, "control characters"),
        ({"labels": {"a": "b" * 20_000}}, "more than 16384"),
        ({"labels": {f"l{number}": "" for number in range(201)}}, "more than 200"),
        ({"annotations": {"a b": ""}}, "not a name"),
        ({"annotations": {"other:a": ""}}, "not a name"),
        ({"annotations": {"manifest:": ""}}, "not a name"),
        ({"annotations": {"manifest[a b]:c": ""}}, "not a name"),
        ({"annotations": {"index:a": ""}}, "only with several platforms"),
        ({"annotations": {"manifest-descriptor:a": ""}}, "only with several platforms"),
        ({"annotations": {"manifest[linux/arm64]:a": ""}}, "not one of platforms"),
        ({"annotations": {"a": ""}, "ociMediaTypes": False}, "OCI's media types"),
        ({"compression": "brotli"}, "one of uncompressed, gzip, estargz, zstd"),
        ({"compression": "zstd", "ociMediaTypes": False}, "zstd needs OCI's media types"),
        ({"compression": "gzip", "compressionLevel": 10}, "level of gzip is 9"),
        ({"compression": "zstd", "compressionLevel": 23}, "from 0 to 22"),
        ({"compressionLevel": 3}, "needs a compression"),
        ({"compressionLevel": True}, "whole number"),
        ({"noCache": "all"}, "true, false, or a list"),
        ({"noCache": ["a,b"]}, "stage"),
        ({"noCache": [""] * 3 + ["a\n"] * 2 + [1]}, "list of strings"),
        ({"pull": "yes"}, "true or false"),
        ({"rewriteTimestamp": True}, "SOURCE_DATE_EPOCH"),
        ({"addHosts": {"a": "1.2.3.4"}}, "list of strings"),
        ({"addHosts": ["a"]}, "must look like"),
        ({"addHosts": ["a=host-gateway"]}, "must look like"),
        ({"addHosts": ["a=1.2.3.4 b"]}, "must look like"),
        ({"addHosts": ["a=1.2.3.4\nevil"]}, "must look like"),
        ({"addHosts": ["a\nb=1.2.3.4"]}, "must look like"),
        ({"addHosts": ["a b=1.2.3.4"]}, "must look like"),
        ({"addHosts": ["a=1.2.3.4,b=1.2.3.4"]}, "must look like"),
        ({"addHosts": ["a=fe80::1%eth0"]}, "must look like"),
        ({"addHosts": ["a=010.1.1.1"]}, "must look like"),
        ({"addHosts": [f"a{number}=1.1.1.1" for number in range(101)]}, "more than 100"),
        ({"shmSize": -1}, "number of bytes"),
        ({"shmSize": True}, "number of bytes"),
        ({"shmSize": 1.5}, "number of bytes"),
        ({"shmSize": "1t"}, "number of bytes"),
        ({"shmSize": "lots"}, "number of bytes"),
        ({"ulimits": ["nofile"]}, "must look like"),
        ({"ulimits": ["rtprio=99"]}, "must look like"),
        ({"ulimits": ["nice=40"]}, "must look like"),
        ({"ulimits": ["nofile=2:1"]}, "above its hard limit"),
        ({"ulimits": ["nofile=-1:1"]}, "above its hard limit"),
        ({"ulimits": ["nofile=1,nproc=1"]}, "must look like"),
        ({"cacheFrom": ["type=local,src=/etc"]}, "not offered"),
        ({"cacheFrom": ["type=gha,url=http://10.0.0.1,ref=r/a"]}, "not offered"),
        ({"cacheFrom": ["type=s3,ref=r/a"]}, "not offered"),
        ({"cacheFrom": ["ref=r/a,mode=max"]}, "not offered"),
        ({"cacheFrom": ["ref=r/a,registry.insecure=true"]}, "not offered"),
        ({"cacheTo": ["ref=r/a,mode=all"]}, "min or max"),
        ({"cacheTo": ["ref=r/a,ignore-error=maybe"]}, "true or false"),
        ({"cacheTo": ["type=registry"]}, "not a valid reference"),
        ({"cacheTo": ["r/a", "type=registry,ref=r/a"]}, "twice"),
        ({"cacheTo": ['"ref=r/a,type=local"']}, "not offered"),
        ({"contexts": {"a": "https://example.com/x.git"}}, "not offered"),
        ({"contexts": {"a": "git://example.com/x"}}, "not offered"),
        ({"contexts": {"a": "git@example.com:x"}}, "not offered"),
        ({"contexts": {"a": "oci-layout://x@" + DIGEST}}, "not offered"),
        ({"contexts": {"a": "local:context"}}, "not offered"),
        ({"contexts": {"a": "input:x"}}, "not offered"),
        ({"contexts": {"a": "target:x"}}, "not offered"),
        ({"contexts": {"a": "docker-image://"}}, "not a valid reference"),
        ({"contexts": {"a": "docker-image://r/b@sha256:0"}}, "digest"),
        ({"contexts": {"a": "../x"}}, "not the name of a folder"),
        ({"contexts": {"a": "context"}}, "not the name of a folder"),
        ({"contexts": {"a": "context/sub"}}, "not the name of a folder"),
        ({"contexts": {"a": ".."}}, "not the name of a folder"),
        ({"contexts": {"a": "HTTP://x"}}, "not the name of a folder"),
        ({"contexts": {"a": ""}}, "not the name of a folder"),
        ({"contexts": {"scratch": "lib"}}, "cannot be the name"),
        ({"contexts": {"CONTEXT": "lib"}}, "cannot be the name"),
        ({"contexts": {"dockerfile.v0": "lib"}}, "cannot be the name"),
        ({"contexts": {"a::linux/amd64": "lib"}}, "not a valid reference"),
        ({"contexts": {"a": "lib", "b": "lib"}}, "twice"),
        ({"contexts": {"a": "lib", "docker.io/library/a:latest": "other"}}, "twice"),
        ({"contexts": {f"c{number}": f"f{number}" for number in range(21)}}, "more than 20"),
        ({"attest": True}, "object such as"),
        ({"attest": {"provenance": "mode=max"}}, '"min", "max"'),
        ({"attest": {"provenance": 1}}, '"min", "max"'),
        ({"attest": {"sbom": "generator=evil"}}, "true or false"),
        ({"attest": {"generator": "evil"}}, "not offered"),
        ({"attest": {"sbom": True}, "buildArgs": {"BUILDKIT_ATTEST_SBOM": ""}}, "exclude"),
        ({"outputs": ["type=tar,dest=/x"]}, "only pushed to a registry"),
        ({"outputs": ["type=local"]}, "only pushed to a registry"),
        ({"outputs": ["type=oci"]}, "only pushed to a registry"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(keys, reason):
    assert reason in refusal(**keys)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(key=st.sampled_from([key.name for key in _KEYS]), value=_JSON)
def test_any_value_is_read_or_refused_and_what_is_read_is_read_again(key, value):
    try:
        config = parse(**{key: value})
    except Refusal:
        return
    assert parse_config(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a", Annotation("manifest", "", "a")),
        ("index:a:b", Annotation("index", "", "a:b")),
        ("manifest[linux/arm64]:a", Annotation("manifest", "linux/arm64", "a")),
        ("index-descriptor:a", Annotation("index-descriptor", "", "a")),
    ],
)
def test_an_annotations_name_says_where_it_goes(name, read):
    assert annotation(name) == read


def test_a_caches_attributes():
    assert cache_attrs("R:5000/a") == {"ref": "r:5000/a"}
    assert cache_attrs("type=registry, ref=r/a:1,mode=max") == {
        "type": "registry",
        "ref": "r/a:1",
        "mode": "max",
    }


def test_the_page_and_the_openapi_document_have_every_key():
    page = (ROOT / "docs/api.md").read_text("utf-8")
    document = yaml.safe_load(
        (ROOT / "src/function_builder/server/openapi.yaml").read_text("utf-8")
    )
    described = document["components"]["schemas"]["BuildConfig"]["properties"]
    names = {key.name for key in _KEYS} - {"ref"}
    assert set(described) == names
    assert all(f"`{name}`" in page for name in names)
