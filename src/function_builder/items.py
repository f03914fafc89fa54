"""Read YAML strictly, with the line and column of each value.

PyYAML's nodes have the positions, but its constructors drop them. Reading continues after a
fault, so that all faults of a file are reported at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

import yaml

from function_builder.contract.errors import shown

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = ("", "~", "null")


class Fault(NamedTuple):
    """One thing that is wrong with a file.

    Attributes:
        line: from 1.
        column: from 1.
        text: what is wrong, and what is right.
    """

    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.text}"


class FaultyFile(ValueError):
    """A file cannot be used.

    Attributes:
        faults: all that is wrong with it, in the file's order.
    """

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults)
        super().__init__("\n".join(f"{name}: {fault}" for fault in self.faults))


class Item:
    """A value of a file.

    Args:
        node: the value, with its place.
        faults: receives what is wrong with it.
    """

    def __init__(self, node: yaml.Node, faults: list[Fault]) -> None:
        self._node = node
        self._faults = faults

    @classmethod
    def parse(cls, text: str, faults: list[Fault]) -> Item | None:
        """Read a document; None, with a fault, if it is not YAML."""
        try:
            node = yaml.compose(text, Loader=_LOADER)
        except RecursionError:
            faults.append(Fault(1, 1, "not YAML that can be read: it is nested too deeply"))
            return None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            reason = getattr(error, "problem", None) or "a character that YAML does not allow"
            faults.append(Fault(line, column, f"not YAML: {reason}"))
            return None
        if node is None:
            faults.append(Fault(1, 1, "the file is empty: it must be a mapping"))
            return None
        return cls(node, faults)

    def fail(self, text: str) -> None:
        """Note a fault here."""
        mark = self._node.start_mark
        self._faults.append(Fault(mark.line + 1, mark.column + 1, text))

    def entries(self) -> Iterator[tuple[str, Item, Item]]:
        """The entries of a mapping: each key's text, the key, and its value."""
        if not self.is_mapping:
            self.fail("must be a mapping")
            return
        found: set[str] = set()
        for key, value in self._node.value:
            name = Item(key, self._faults)
            text = name.text()
            if text in found:
                name.fail(f"{shown(text)} is there twice")
            elif text:
                found.add(text)
                yield text, name, Item(value, self._faults)

    def fields(self, known: Collection[str], required: Sequence[str] = ()) -> dict[str, Item]:
        """The values of a mapping with these keys alone; null is an absent value.

        Args:
            known: the keys that may be there.
            required: the keys that must be there.
        """
        values: dict[str, Item] = {}
        before = len(self._faults)
        for text, key, value in self.entries():
            if text not in known:
                near = get_close_matches(text, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
                key.fail(f"{shown(text)} is unknown: {meant}")
            elif not value.is_null:
                values[text] = value
        # An unknown key may be the one that is meant.
        absent = [key for key in required if key not in values]
        if absent and len(self._faults) == before:
            self.fail(f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} absent")
        return values

    @property
    def is_mapping(self) -> bool:
        """Whether it has entries."""
        return isinstance(self._node, yaml.MappingNode)

    @property
    def is_null(self) -> bool:
        """Whether there is no value."""
        node = self._node
        return isinstance(node, yaml.ScalarNode) and not node.style and node.value in _NULLS

    def items(self) -> list[Item]:
        """The elements of a list that has some."""
        if not isinstance(self._node, yaml.SequenceNode) or not self._node.value:
            self.fail("must be a list that is not empty")
            return []
        return [Item(node, self._faults) for node in self._node.value]

    def one_or_more(self) -> list[Item]:
        """The elements of a list, or one text as a list of it."""
        return [self] if isinstance(self._node, yaml.ScalarNode) else self.items()

    def text(self) -> str:
        """A text that is not empty; "", with a fault, if there is none."""
        if not isinstance(self._node, yaml.ScalarNode) or self.is_null or not self._node.value:
            self.fail("must be a text that is not empty")
            return ""
        return str(self._node.value)

    def quoted(self) -> str:
        """A JSON string, which may be empty; "", with a fault, if it is something else."""
        if not isinstance(self._node, yaml.ScalarNode) or self._node.style != '"':
            self.fail("must be a string")
            return ""
        return str(self._node.value)

    def texts(self) -> list[tuple[str, Item]]:
        """Those of a list, or one, without those that are wrong."""
        return [(text, item) for item in self.one_or_more() if (text := item.text())]
