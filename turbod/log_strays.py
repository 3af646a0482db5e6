"""Words for the log that are not ours: of libraries, of the interpreter, and of its end."""

import logging
import sys
import threading
from types import TracebackType

import structlog

log = structlog.get_logger()


class _Libraries(logging.Handler):
    """Takes what libraries log by other means, from a warning on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, LookupError):  # its arguments do not fit
            text = str(record.msg)
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell(
            "library_says",
            library=record.name,
            text=" ".join(text.split()),
            exc_info=record.exc_info,
        )


def hear() -> None:
    """Take over from the interpreter what it and libraries would write to standard error."""
    _hear_libraries()
    _hear_crashes()


def _hear_libraries() -> None:
    logging.getLogger().addHandler(_Libraries(logging.WARNING))
    logging.captureWarnings(capture=True)


def _hear_crashes() -> None:
    """Let what ends the process, or a thread, or came of a finaliser be an event like any other."""

    def crashed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        log.critical("crashed", exc_info=(kind, error, trace))

    def in_thread(raised: threading.ExceptHookArgs) -> None:
        log.error(
            "thread_crashed", exc_info=(raised.exc_type, raised.exc_value, raised.exc_traceback)
        )

    def unraisable(raised: "sys.UnraisableHookArgs") -> None:
        raising = (raised.exc_type, raised.exc_value, raised.exc_traceback)
        log.error("finaliser_failed", at=repr(raised.object), exc_info=raising)

    sys.excepthook = crashed
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
