"""The source policy of a build: what BuildKit may read for it, or reads from elsewhere.

BuildKit evaluates the rules, for each source that a Dockerfile, a frontend or a named context
reads. It knows one list of rules for a build, in which the last ALLOW or DENY that matches decides.
So the builder's rules and a tenant's are combined into one list, in which both apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from aiobuildkit import SourceAction, SourceMatch, SourceRule


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule, and its name for errors.

    Attributes:
        rule: what BuildKit evaluates.
        name: from the file; empty: errors show its identifier.
    """

    rule: SourceRule
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.rule.identifier


def denying(expressions: Sequence[str], name: str) -> list[PolicyRule]:
    """Rules of one name that deny what regular expressions match."""
    return [
        PolicyRule(
            SourceRule(action=SourceAction.DENY, identifier=each, match=SourceMatch.REGEX), name
        )
        for each in expressions
    ]


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """The rules of one build.

    Attributes:
        rules: of the operator, in BuildKit's order.
        local: the rules that deny BuildKit's own machine (`local_sources`). No rule allows what
            they deny, because they are the last.
        covers_steps: the rules also decide what RUN steps reach, which is HTTP and HTTPS alone.
    """

    rules: Sequence[PolicyRule] = ()
    local: Sequence[PolicyRule] = field(default=(), repr=False)
    covers_steps: bool = False

    def __iter__(self) -> Iterator[SourceRule]:
        return (each.rule for each in self.in_order)

    @property
    def in_order(self) -> Sequence[PolicyRule]:
        """All rules. The last ALLOW or DENY that matches decides."""
        return [*self.rules, *(_BLOBS if self.rules else ()), *self.local]

    def check_narrowing(self, rules: Sequence[PolicyRule]) -> None:
        """Check that `narrowed` accepts these rules.

        BuildKit's form cannot express the intersection of two lists of ALLOW rules.

        Raises:
            ValueError: both policies have ALLOW rules; the text follows a file's name.
        """
        if _allow(self.rules) and _allow(rules):
            raise ValueError(
                "has ALLOW rules, and so has the builder's source_policy: "
                "a tenant's file may then only DENY and CONVERT"
            )

    def narrowed(self, rules: Sequence[PolicyRule]) -> SourcePolicy:
        """This policy combined with another one, which may only deny more.

        BuildKit applies each CONVERT before it decides, wherever in the list it is. So these can
        be first, and a name that both convert is converted by this policy.

        Args:
            rules: of the other one, which `check_narrowing` accepts.
        """
        own_converts, own = _divided(self.rules)
        converts, others = _divided(rules)
        # The last rule that matches decides. An ALLOW must not follow a DENY of the other policy.
        decisions = [*own, *others] if _allow(own) else [*others, *own]
        return replace(self, rules=[*own_converts, *converts, *decisions])


_BLOBS: Final = denying([r"^[a-z-]+\+blob://"], "no blobs of registries")
"""A frontend's image can read a blob of a repository (`docker-image+blob://`), for which it gives
only a digest. So the rules of images would not match. No Dockerfile names such a source.

Source: BuildKit, `source/types/types.go`.
"""

NO_SOURCE_POLICY: Final = SourcePolicy()


def _divided(rules: Sequence[PolicyRule]) -> tuple[list[PolicyRule], list[PolicyRule]]:
    """The rules that convert, and the others."""
    converts = [each for each in rules if each.rule.action is SourceAction.CONVERT]
    return converts, [each for each in rules if each.rule.action is not SourceAction.CONVERT]


def _allow(rules: Sequence[PolicyRule]) -> bool:
    return any(each.rule.action is SourceAction.ALLOW for each in rules)
