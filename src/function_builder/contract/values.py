"""Values of the configuration's JSON: their types, with refusals that name the key."""

from __future__ import annotations

from dataclasses import dataclass

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.names import CONFIG_NAME


@dataclass(frozen=True, slots=True)
class Pairs:
    """A JSON object, with the keys that it has twice."""

    items: list[tuple[str, object]]


def wrong(reason: str) -> Refusal:
    """A refusal that names the configuration."""
    return Refusal(400, f"{CONFIG_NAME}: {reason}")


def text(name: str, value: object) -> str:
    """A string, without white space around it."""
    if not isinstance(value, str):
        raise wrong(f"{name} must be a string")
    return value.strip()


def flag(name: str, value: object) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise wrong(f"{name} must be true or false")
    return value


def texts(name: str, value: object, *, most: int, what: str = "") -> tuple[str, ...]:
    """A list of strings, without empty ones and repetitions.

    Args:
        name: the key.
        value: its value.
        most: how many there may be.
        what: they are, in the refusal of more; the key's name without it.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(f"{name} must be a list of strings")
    found = tuple(dict.fromkeys(item.strip() for item in value if item.strip()))
    if len(found) > most:
        raise wrong(f"more than {most} {what or name}")
    return found


def strings(name: str, value: object, *, most: int) -> dict[str, str]:
    """An object of strings; a null one is absent."""
    if not isinstance(value, Pairs):
        raise wrong(f"{name} must be an object of strings")
    found: dict[str, str] = {}
    for key, content in value.items:
        if content is None:
            found.pop(key, None)
        elif isinstance(content, str):
            found[key] = content
        else:
            raise wrong(f"{name}: the value of {shown(key)} must be a string")
    if len(found) > most:
        raise wrong(f"more than {most} {name}")
    return found


def is_plain(content: str) -> bool:
    """Whether a process's environment and protobuf can hold the text."""
    return "\0" not in content and not any("\ud800" <= char <= "\udfff" for char in content)
