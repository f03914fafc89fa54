"""buildkitd.toml: the builder's values, merged with an operator's file.

The standard library reads TOML and does not write it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from function_builder.engine.errors import EngineError

Table = Mapping[str, Any]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_DECIDED: Final = (
    "root",
    "grpc",
    "otel",
    "cdi",
    "log.format",
    "worker.containerd",
    "worker.oci.enabled",
    "worker.oci.rootless",
    "worker.oci.noProcessSandbox",
    "worker.oci.networkMode",
    "worker.oci.cniBinaryPath",
    "worker.oci.defaultCgroupParent",
)
"""Keys that a file may not set, because the builder or the isolation of builds depends on them."""


def read_config(path: Path) -> Table:
    """Read an operator's part of buildkitd.toml.

    Raises:
        EngineError: it cannot be read, is not TOML, or sets what the builder decides.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} is not TOML: {error}") from error
    for name in _DECIDED:
        if _has(table, name.split(".")):
            raise EngineError(f"{path} sets {name}, which the builder decides: remove it there")
    return table


def _has(table: Any, names: Sequence[str]) -> bool:
    if not names:
        return True
    return isinstance(table, dict) and names[0] in table and _has(table[names[0]], names[1:])


def merged(base: Table, over: Table, *, where: str = "") -> dict[str, Any]:
    """Merge `over` into `base`: tables key by key; other values, including lists, are replaced.

    Raises:
        EngineError: one has a table where the other has a value.
    """
    result = dict(base)
    for key, value in over.items():
        name = f"{where}{key}"
        before = result.get(key)
        if key in result and isinstance(before, Mapping) != isinstance(value, Mapping):
            kind = "a table" if isinstance(before, Mapping) else "a value"
            raise EngineError(f"buildkitd.toml: {name} must be {kind}")
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = merged(before, value, where=f"{name}.")
        else:
            result[key] = value
    return result


def dumps(table: Table, *, path: tuple[str, ...] = ()) -> str:
    """Write a table as TOML 1.0."""
    lines = [f"[{'.'.join(map(_key, path))}]"] if path else []
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines += [f"{_key(key)} = {_value(table[key])}" for key in table.keys() - tables.keys()]
    text = "".join(f"{line}\n" for line in lines)
    return text + "".join(dumps(value, path=(*path, key)) for key, value in tables.items())


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | Path():
            return _string(str(value))
        case int() | float():
            return repr(value)
        case Mapping():
            pairs = [f"{_key(key)} = {_value(each)}" for key, each in value.items()]
            return f"{{{', '.join(pairs)}}}"
        case Sequence():
            return f"[{', '.join(map(_value, value))}]"
    return str(value.isoformat())


def _string(text: str) -> str:
    # JSON's escapes are valid in TOML, but JSON does not escape this control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
