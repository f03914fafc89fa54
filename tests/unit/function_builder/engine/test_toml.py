"""buildkitd.toml, and an operator's file laid over it."""

import tomllib
from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.engine.errors import EngineError
from function_builder.engine.toml import dumps, merged, read_config

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    TEXTS
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.dates()
    | st.times()
)
VALUES = st.recursive(
    SCALARS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=12,
)
TABLES = st.dictionaries(TEXTS, VALUES, max_size=4)


@given(TABLES)
def test_what_is_written_is_read_again(table):
    assert tomllib.loads(dumps(table)) == table


@pytest.mark.parametrize("value", [date(2026, 1, 2), time(3, 4, 5), 1e300, '\x7f\x00\\"\u2028'])
def test_odd_values_are_written(value):
    assert tomllib.loads(dumps({"a b": {"\x7f": value}})) == {"a b": {"\x7f": value}}


@given(TABLES)
def test_a_file_laid_over_itself_changes_nothing(table):
    assert merged(table, table) == merged(table, {}) == merged({}, table) == table


def test_tables_are_merged_and_the_rest_is_replaced():
    base = {"worker": {"oci": {"gc": True, "labels": ["a"]}}, "history": {"maxEntries": 50}}
    over = {"worker": {"oci": {"labels": ["b"], "max-parallelism": 4}}, "dns": {"options": ["x"]}}
    assert merged(base, over) == {
        "worker": {"oci": {"gc": True, "labels": ["b"], "max-parallelism": 4}},
        "history": {"maxEntries": 50},
        "dns": {"options": ["x"]},
    }


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"worker": {"oci": 5}}, r"worker\.oci must be a table"),
        ({"worker": {"oci": {"gc": {}}}}, r"worker\.oci\.gc must be a value"),
    ],
)
def test_a_value_in_the_place_of_a_table_is_named(over, why):
    with pytest.raises(EngineError, match=rf"^buildkitd\.toml: {why}$"):
        merged({"worker": {"oci": {"gc": True}}}, over)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"root = '/x'", "sets root, which the builder decides: remove it there$"),
        (b"[grpc.tls]\ncert = ''", "sets grpc, "),
        (b"[worker.oci]\nnoProcessSandbox = true", "sets worker.oci.noProcessSandbox, "),
        (b"worker.oci.networkMode = 'host'", "sets worker.oci.networkMode, "),
        (b"[log]\nformat = 'text'", "sets log.format, "),
        (b"[cdi]\ndisabled = false", "sets cdi, "),
        (b"a = \n", "is not TOML: .*line 1"),
        (b"a = '\xff'", "is not TOML: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, why):
    path = tmp_path / "extra.toml"
    path.write_bytes(text)
    with pytest.raises(EngineError, match=f"^{path} {why}"):
        read_config(path)


def test_an_absent_file_is_named():
    with pytest.raises(EngineError, match=r"^/absent cannot be read: No such file"):
        read_config(Path("/absent"))


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "extra.toml"
    path.write_bytes(b"\xef\xbb\xbf[worker]\noci.max-parallelism = 2\n")
    assert read_config(path) == {"worker": {"oci": {"max-parallelism": 2}}}
