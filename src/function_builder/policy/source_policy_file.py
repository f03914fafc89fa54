"""Read a source policy file, in the form of `buildctl build --source-policy-file`, and strictly.

buildctl ignores keys that it does not know, so a misspelled one is a rule that does not hold. Here
each fault is refused, with its line and column, and so is a rule that can match nothing. A rule may
have a `name`, which buildctl ignores.

Source: BuildKit, `sourcepolicy/pb/policy.proto` and the JSON tags of its Go code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import re2

from aiobuildkit import (
    AttrCondition,
    AttrConstraint,
    SourceAction,
    SourceMatch,
    SourceRule,
    SourceUpdate,
)
from function_builder.builds.source_policy import PolicyRule
from function_builder.contract.errors import shown
from function_builder.items import Fault, FaultyFile, Item

_TOP_KEYS: Final = ("version", "rules")
_RULE_KEYS: Final = ("name", "action", "selector", "updates")
_SELECTOR_KEYS: Final = ("identifier", "match_type", "constraints")
_CONSTRAINT_KEYS: Final = ("key", "value", "condition")
_UPDATE_KEYS: Final = ("identifier", "attrs")

_IMAGE: Final = "docker-image://"
_SCHEMES: Final = (_IMAGE, "git://", "https://", "http://", "local://", "oci-layout://")
_EXAMPLE: Final = f"{_IMAGE}docker.io/library/alpine:*"
_NAME: Final = re.compile(r"[ -~]{1,100}")
_E = TypeVar("_E", bound=StrEnum)


class SourcePolicyError(FaultyFile):
    """A source policy file cannot be used."""


def read_source_policy(path: Path) -> list[PolicyRule]:
    """Read a file.

    Raises:
        OSError: it cannot be read.
        SourcePolicyError: something in it is wrong.
    """
    return parse_source_policy(path.read_bytes(), path.name)


def parse_source_policy(data: bytes, name: str) -> list[PolicyRule]:
    """Read a file's content.

    Args:
        data: the content.
        name: of the file, for errors.

    Raises:
        SourcePolicyError: something in it is wrong.
    """
    faults: list[Fault] = []
    rules = _parse(data, faults)
    if faults:
        raise SourcePolicyError(name, faults)
    return rules


def _parse(data: bytes, faults: list[Fault]) -> list[PolicyRule]:
    try:
        text = data.decode()
        json.loads(text)
    except UnicodeDecodeError:
        faults.append(Fault(1, 1, "the file is not UTF-8"))
        return []
    except RecursionError:
        faults.append(Fault(1, 1, "it is nested too deeply"))
        return []
    except json.JSONDecodeError as error:
        faults.append(Fault(error.lineno, error.colno, f"not JSON: {error.msg}"))
        return []
    # YAML has all of JSON but the tab, which JSON has only between values.
    document = Item.parse(text.replace("\t", " "), faults)
    if document is None:
        return []
    top = document.fields(_TOP_KEYS, required=("rules",))
    if "version" in top and top["version"].text() != "1":
        top["version"].fail("must be 1, which is the only version")
    items = top["rules"].items() if "rules" in top else ()
    return [each for item in items for each in _with_digests(_rule(item))]


def _with_digests(named: PolicyRule) -> Iterator[PolicyRule]:
    """A rule, and the digests of a repository of which it denies every tag.

    `:*` does not match `NAME@sha256:…`, so any client could read the denied image by its digest.
    """
    yield named
    rule = named.rule
    repository = rule.identifier.removesuffix(":*")
    if (
        rule.action is SourceAction.DENY
        and rule.match is SourceMatch.WILDCARD
        and rule.identifier.startswith(_IMAGE)
        and repository != rule.identifier
    ):
        yield PolicyRule(replace(rule, identifier=f"{repository}@*"), str(named))


def _rule(item: Item) -> PolicyRule:
    fields = item.fields(_RULE_KEYS, required=("action",))
    action = _one_of(SourceAction, fields, "action", SourceAction.ALLOW)
    if "selector" not in fields:
        item.fail("selector is absent")
        return PolicyRule(SourceRule(action=action, identifier=""))
    selector = fields["selector"].fields(_SELECTOR_KEYS, required=("identifier",))
    match = _one_of(SourceMatch, selector, "match_type", SourceMatch.WILDCARD)
    identifier = selector["identifier"].quoted() if "identifier" in selector else ""
    if "identifier" in selector:
        _check_identifier(identifier, match, selector["identifier"])
    return PolicyRule(
        SourceRule(
            action=action,
            identifier=identifier,
            match=match,
            constraints=[_constraint(each) for each in selector["constraints"].items()]
            if "constraints" in selector
            else (),
            updates=_updates(action, fields, item),
        ),
        _name(fields["name"]) if "name" in fields else "",
    )


def _name(item: Item) -> str:
    name = item.quoted()
    if not _NAME.fullmatch(name):
        item.fail("a name has 1 to 100 characters of ASCII, without line breaks")
    return name


def _updates(action: SourceAction, fields: Mapping[str, Item], rule: Item) -> SourceUpdate | None:
    if "updates" not in fields:
        if action is SourceAction.CONVERT:
            rule.fail("updates is absent: CONVERT needs the source that is read instead")
        return None
    item = fields["updates"]
    if action is not SourceAction.CONVERT:
        item.fail(f"updates has no effect with {action}: use it with CONVERT")
    updates = item.fields(_UPDATE_KEYS)
    if not updates:
        item.fail("updates is empty: it needs identifier or attrs")
    identifier = updates["identifier"].quoted() if "identifier" in updates else ""
    if identifier and not identifier.startswith((*_SCHEMES, "$")):
        updates["identifier"].fail(_without_scheme(identifier))
    attrs = updates["attrs"].entries() if "attrs" in updates else ()
    return SourceUpdate(identifier, {key: value.quoted() for key, _, value in attrs})


def _constraint(item: Item) -> AttrConstraint:
    fields = item.fields(_CONSTRAINT_KEYS, required=("key",))
    condition = _one_of(AttrCondition, fields, "condition", AttrCondition.EQUAL)
    key = fields["key"].quoted() if "key" in fields else ""
    value = fields["value"].quoted() if "value" in fields else ""
    if condition is AttrCondition.MATCHES and "value" in fields:
        _check_expression(value, fields["value"])
    return AttrConstraint(key, value, condition)


def _check_identifier(identifier: str, match: SourceMatch, item: Item) -> None:
    """Refuse what can match no source."""
    if not identifier:
        item.fail("must not be empty")
    elif match is SourceMatch.REGEX:
        _check_expression(identifier, item)
    elif match is SourceMatch.WILDCARD and "**" in identifier:
        item.fail("** is not a wildcard of BuildKit: * is any text, also with slashes")
    elif match is SourceMatch.WILDCARD and identifier.startswith("*"):
        return
    elif not identifier.startswith(_SCHEMES):
        item.fail(_without_scheme(identifier))
    elif identifier.startswith(_IMAGE):
        _check_image(identifier.removeprefix(_IMAGE), match, item)


def _check_image(name: str, match: SourceMatch, item: Item) -> None:
    """Refuse an image that BuildKit names otherwise, with its registry and its tag."""
    host, slash, _ = name.partition("/")
    is_wildcard = match is SourceMatch.WILDCARD and "*" in name
    if is_wildcard and "*" in host.partition(":")[0]:
        return
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        item.fail(f"BuildKit's names of images begin with a registry: write {_EXAMPLE}")
    elif not is_wildcard and ":" not in name.rpartition("/")[2]:
        item.fail("BuildKit's names of images have a tag or a digest: add :latest or :*")


def _check_expression(expression: str, item: Item) -> None:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(expression, options)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        item.fail(f"not a regular expression of RE2: {text}")


def _without_scheme(identifier: str) -> str:
    return (
        f"{shown(identifier)} can match no source: begin with one of {', '.join(_SCHEMES)}, "
        f"such as {_EXAMPLE}"
    )


def _one_of(kind: type[_E], fields: Mapping[str, Item], key: str, default: _E) -> _E:
    if key not in fields:
        return default
    text = fields[key].quoted()
    if text not in set(kind):
        fields[key].fail(f"{shown(text)} is not one of {', '.join(kind)}")
        return default
    return kind(text)
