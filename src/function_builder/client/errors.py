"""The errors of a build that did not start. A build that started and failed is a result.

::

    ClientError
    ├── ContextError    the directory cannot be sent: correct the directory
    ├── Unreachable     no answer: check the address, the network, TLS and the builder
    └── Refused         the builder, or a proxy in front of it, refused the request

`BuildResult.raise_for_status` makes an error of a failed build: `BuildFailed`, which is not one of
these because that build was started.
"""

from __future__ import annotations


class ClientError(Exception):
    """The build was not started; `str()` is one line that says whose fault it is."""


class ContextError(ClientError):
    """The directory cannot be packed: it is missing or unreadable, or a file is not allowed."""


class Unreachable(ClientError):
    """The builder did not answer: refused connection, unknown host, failed TLS, or a timeout.

    Attributes:
        lost: whether there was a connection, which was lost before the answer.
    """

    lost = False


class Refused(ClientError):
    """The builder, or a proxy in front of it, refused the request.

    Attributes:
        status: the HTTP status.
        reason: the reason in the answer, one line.
        retry_after: the seconds of `Retry-After`; None without it.
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
