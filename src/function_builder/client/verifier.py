"""Whether a builder that has the payload secret gave an answer."""

from __future__ import annotations

from typing import Final

from function_builder.client.answers import cut_short
from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.result import BuildResult, BuildStatus

_WRONG: Final = "the answer was modified, or another server sent it: its signature is wrong"
_ABSENT: Final = (
    "the payload secret did not sign the answer, so that another server may have given it: use"
    " https, or, if this builder signs no answers, --allow-unsigned-answers"
    " (require_signed_answers=False)"
)


class Verifier:
    """Checks the signature of one answer.

    A failed result needs no signature, because an attacker can also cut the connection.

    Args:
        signature: of the answer to this request; None: the request was not signed.
        required: whether a success without a signature is refused.
    """

    def __init__(self, signature: AnswerSignature | None, *, required: bool) -> None:
        self._signature = signature
        self._required = required

    def update(self, line: bytes) -> None:
        """Add a line of a stream, with its newline, that is not the last one."""
        if self._signature is not None:
            self._signature.update(line)

    def checked(self, last: bytes, result: BuildResult) -> BuildResult:
        """The result, or a failed one that says why the answer is rejected.

        Args:
            last: the whole answer, or a stream's last line.
            result: the one in it.
        """
        doubt = self.doubt(last)
        if doubt == _ABSENT and result.status is not BuildStatus.SUCCESS:
            return result
        return cut_short(doubt) if doubt else result

    def doubt(self, last: bytes) -> str:
        """Why the answer is rejected; empty if it is accepted.

        Args:
            last: the whole answer, or a stream's last line.
        """
        right = self._signature.proves(last) if self._signature is not None else None
        if right is False:
            return _WRONG
        return _ABSENT if right is None and self._required else ""
