"""Why a connection failed, in words for people: what lies behind an exception."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

_DEEPEST: Final = 10
_NO_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
_WORDS: Final = {
    errno.ECONNREFUSED: "refused: does the server run?",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.ETIMEDOUT: "no answer in time",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}


def words(error: BaseException) -> str:
    """Return the fault behind all the exceptions that it was wrapped in.

    Where none of them is the network's, what the first that says anything says.
    """
    chain = list(_chain(error))
    for each in reversed(chain):
        if told := _told(each):
            return told
    return next((str(each) for each in chain if str(each)), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEEPEST):
        if error is None:
            return
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
            continue
        yield error
        error = error.__cause__ or error.__context__  # which httpcore suppresses: `from None`


def _told(error: BaseException) -> str | None:
    """Return words for what is known; None for what only wraps something else."""
    match error:
        case socket.gaierror():
            return _why_no_address(error)
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            reason = getattr(error, "reason", None) or str(error)
            return f"{reason.replace('_', ' ').lower()} (TLS)"
        case TimeoutError(errno=None):
            return str(error) or "no answer in time"
        case OSError(errno=int(number)):
            return _WORDS.get(number) or os.strerror(number).lower()
    return None


def _why_no_address(error: socket.gaierror) -> str:
    is_known = error.errno in _NO_NAME
    return "there is no host of that name" if is_known else "its name could not be looked up"
