"""What can keep a build from starting. A build that started and failed is a result, not an error.

::

    ClientError
    ├── ContextError    the directory cannot be sent: the caller's to put right
    ├── Unreachable     no answer: the address, the network, TLS or the builder's to put right
    └── Refused         the builder, or a proxy before it, answered with a refusal

`BuildResult.raise_for_status` makes an error of a failed build: `BuildFailed`, which is not one of
these because that build was started.
"""

from __future__ import annotations


class ClientError(Exception):
    """The build was not started; `str()` is one line that says whose fault it is."""


class ContextError(ClientError):
    """The directory cannot be packed: it is missing, unreadable, or holds what an image cannot."""


class Unreachable(ClientError):
    """The builder gave no answer: refused connection, unknown host, failed TLS, or silence.

    Attributes:
        lost: whether there was a connection, which was lost before the answer.
    """

    lost = False


class Refused(ClientError):
    """The builder, or a proxy before it, answered with a status that starts no build.

    Attributes:
        status: the HTTP status.
        reason: the answer's own words, one line.
        retry_after: seconds after which the builder asks to be tried again; None if it did not.
        from_builder: whether the answer has a builder's form; otherwise a proxy gave it, or a
            server that is not a builder.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        retry_after: float | None = None,
        from_builder: bool = True,
    ) -> None:
        who = "the builder refused" if from_builder else "no build was started"
        super().__init__(f"{who} ({status}): {reason}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.from_builder = from_builder
