"""Evaluate a source policy as BuildKit does, to name a rule, or to test a policy without BuildKit.

Source: BuildKit, `sourcepolicy/engine.go`, `matcher.go`, `formatter.go` and `mutate.go`. RE2
matches in linear time, so a name that a client chose cannot make it slow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

from aiobuildkit import SourceAction, SourceMatch, SourceRule
from function_builder.builds.source_policy import PolicyRule, SourcePolicy

_MOST_CONVERSIONS: Final = 20
"""`Evaluate` in `sourcepolicy/engine.go`."""

_REFERENCE: Final = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")
"""A group in Go's `regexp.Expand`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a policy for a source.

    Attributes:
        source: what is read, after conversions.
        denied_by: the rule that denies it; None: it may be read.
        converted_by: the rules that converted it.
        uncertain: rules that match by name, but have constraints that only BuildKit can check.
        endless: the conversions do not end, so BuildKit reads nothing.
    """

    source: str
    denied_by: PolicyRule | None = None
    converted_by: tuple[PolicyRule, ...] = ()
    uncertain: tuple[PolicyRule, ...] = ()
    endless: bool = False

    @property
    def is_denied(self) -> bool:
        """Whether BuildKit reads nothing."""
        return self.endless or self.denied_by is not None


def decide(policy: SourcePolicy, source: str) -> Decision:
    """Evaluate a policy for a source.

    Args:
        policy: the rules.
        source: as BuildKit writes it, such as `docker-image://docker.io/library/alpine:3`.
    """
    converted: list[PolicyRule] = []
    uncertain: list[PolicyRule] = []
    rules = policy.in_order
    while len(converted) <= _MOST_CONVERSIONS:
        target, by, denied_by = _evaluate(rules, source, uncertain)
        if by is None:
            return Decision(source, denied_by, tuple(converted), tuple(uncertain))
        converted.append(by)
        source = target
    return Decision(source, None, tuple(converted), tuple(uncertain), endless=True)


def denying_rule(policy: SourcePolicy, source: str) -> PolicyRule | None:
    """The rule by which BuildKit denied a source that it had already converted."""
    found = [each for each in policy.in_order if _matches(each.rule, source)]
    for each in reversed(found):
        if each.rule.action is SourceAction.DENY:
            return each
    return None


def _evaluate(
    rules: Sequence[PolicyRule], source: str, uncertain: list[PolicyRule]
) -> tuple[str, PolicyRule | None, PolicyRule | None]:
    """The source after the first rule that changes it, that rule, or else the one that denies."""
    denied_by = None
    for each in rules:
        rule = each.rule
        if not _matches(rule, source):
            continue
        if rule.constraints:
            if each not in uncertain:
                uncertain.append(each)
            continue
        match rule.action:
            case SourceAction.CONVERT:
                target = _converted(rule, source)
                if target not in ("", source):
                    return target, each, None
            case SourceAction.DENY:
                denied_by = each
            case SourceAction.ALLOW:
                denied_by = None
    return source, None, denied_by


def _matches(rule: SourceRule, source: str) -> bool:
    if rule.identifier == source:
        return True
    if rule.match is SourceMatch.EXACT:
        return False
    return _expression(rule).search(source) is not None


def _converted(rule: SourceRule, source: str) -> str:
    target = (rule.updates.identifier if rule.updates else "") or rule.identifier
    if rule.match is SourceMatch.EXACT:
        return target
    expression = _expression(rule)
    if rule.match is SourceMatch.REGEX:
        return str(expression.sub(lambda found: _expanded(target, found), source))
    found = expression.search(source)
    return source if found is None else _expanded(target, found)


def _expanded(template: str, found: Any) -> str:
    """A template with the groups of a match; one that does not exist is empty, as in Go."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        try:
            return found.group(int(name) if name.isdecimal() else name) or ""
        except (IndexError, KeyError):
            return ""

    return _REFERENCE.sub(group, template)


def _expression(rule: SourceRule) -> Any:
    if rule.match is SourceMatch.REGEX:
        return _compiled(rule.identifier)
    # `util/wildcard/wildcard.go`
    return _compiled("^" + re2.escape(rule.identifier).replace(r"\*", "(.*)") + "$")


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    return re2.compile(expression)
