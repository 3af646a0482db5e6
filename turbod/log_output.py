"""Where the log goes and what becomes of an event on its way: levels, floods, secrets, formats.

The format `journal` sends fields to systemd's journal, and where that is away, lines with their
priority in front (sd-daemon(3)) to standard error. All others are written to standard error.
"""

import atexit
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, Literal, NoReturn, cast

import structlog
import trio

from turbod import journal, log_lines, log_strays
from turbod.flood import Flood, Summary
from turbod.redaction import keep_secret, redacted, without_secrets

__all__ = ["for_command", "for_daemon", "keep_secret", "run", "say", "set_level"]

TICK_SECONDS: Final = 5.0  # between two looks for floods that are over
PIECE_CHARACTERS: Final = 1000  # written at once: 4000 bytes at the most, and a page has 4096
PATIENCE_SECONDS: Final = 0.5  # with whoever reads a long line

# Standard error may be full, closed, or without a descriptor; where there was none at the start,
# Python has None in its place.
_NO_FILE: Final = (OSError, ValueError, AttributeError)

Format = Literal["text", "logfmt", "json", "journal"]
Fields = MutableMapping[str, Any]

log = structlog.get_logger()


def for_command(level: str = "info") -> None:
    """Log what a command has to say, every line of it, in the format that suits its stderr."""
    _configure(level, chosen("auto", sys.stderr, os.environ), [])


def for_daemon(level: str, form: str) -> None:
    """Log for as long as turbod serves: floods are summarised, libraries and crashes heard too."""
    _configure(level, chosen(form, sys.stderr, os.environ), [_gate])
    log_strays.hear()
    atexit.register(_gate.finish)


def say(line: str) -> None:
    """Say what keeps a command from running: a line without a time, in the journal an error."""
    is_journal = chosen("auto", sys.stderr, os.environ) == "journal"
    priority = f"<{log_lines.PRIORITIES['error']}>" * is_journal
    _standard_error.write(priority + log_lines.printable(redacted(line)))


def set_level(level: str) -> None:
    """Write events of this level and above from now on, whoever logs them."""
    _threshold.number = _number(level)


async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
    """Summarise floods that are over, though nothing else be logged, until cancelled."""
    task_status.started()
    while True:
        await trio.sleep(TICK_SECONDS)
        _gate.tell_due()


def chosen(form: str, standard_error: Any, environment: Mapping[str, str]) -> Format:
    """Return the format that a setting names, or under `auto` the one for standard error."""
    if form != "auto":
        return cast("Format", form)
    with suppress(*_NO_FILE):
        if journal.is_at(standard_error.fileno(), environment):
            return "journal"
        if standard_error.isatty():
            return "text"
    return "logfmt"


# ---- on its way


class _Threshold:
    """The level below which nothing is written: read at each event, for loggers are kept."""

    number = logging.INFO

    def __call__(self, _: object, __: str, fields: Fields) -> Fields:
        if _number(fields["level"]) < self.number:
            raise structlog.DropEvent
        return fields


class Gate:
    """Holds floods back, for all threads, and tells of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._flood = Flood()
        self._lock = threading.RLock()  # a collector's finaliser may log while it is held

    def __call__(self, _: object, __: str, fields: Fields) -> Fields:
        """Let a line pass, behind the summaries that are due, or hold it back."""
        if "repeated" in fields or fields["level"] == "debug":
            return fields
        self.tell_due()
        said = {name: fields[name] for name in fields.keys() - {"event", "level", "exc_info"}}
        with self._lock:
            passes = self._flood.passes(fields["level"], fields["event"], said, self._clock())
        if not passes:
            raise structlog.DropEvent
        return fields

    def tell_due(self) -> None:
        """Log the summaries of floods that went on for a minute."""
        with self._lock:
            summaries = self._flood.due(self._clock())
        _tell(summaries)

    def finish(self) -> None:
        """Log the summaries of all that was held back."""
        with self._lock:
            summaries = self._flood.rest(self._clock())
        _tell(summaries)


def _tell(summaries: list[Summary]) -> None:
    for each in summaries:
        told = {"repeated": each.lines, "repeated_seconds": round(each.seconds)}
        log.log(_number(each.level), each.event, **each.fields, **told)


def _with_traceback(_: object, __: str, fields: Fields) -> Fields:
    """Put what was raised into `exception`: the whole traceback, secrets apart, as one text."""
    raised = fields.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    elif isinstance(raised, BaseException):
        raised = type(raised), raised, raised.__traceback__
    if isinstance(raised, tuple) and raised[1] is not None:
        text = redacted("".join(traceback.format_exception(*raised)))
        fields["exception"] = log_lines.printable_traceback(text)
    return fields


def _fit_to_be_shown(_: object, __: str, fields: Fields) -> Fields:
    raised = fields.pop("exception", None)
    shown: Fields = log_lines.printable(without_secrets(fields))
    return shown if raised is None else {**shown, "exception": raised}


# ---- out


class Outlet:
    """Writes events; what cannot be written is counted, and told when there is room again."""

    def __init__(self, form: Format, *, path: str = journal.SOCKET) -> None:
        self._form = form
        self._journal = journal.Journal(path) if form == "journal" else None
        self._colours = _has_colours()
        self._lock = threading.RLock()
        self._lost = 0

    def __call__(self, _: object, __: str, fields: Fields) -> NoReturn:
        """Write an event; nothing is left for structlog to do."""
        with self._lock:
            if self._lost and self._write(_loss(self._lost)):
                self._lost = 0
            self._lost += not self._write(fields)
        raise structlog.DropEvent

    def _write(self, fields: Fields) -> bool:
        """Tell whether an event was written, or cannot be by anybody."""
        if self._journal is None:
            return _standard_error.write(self._line(fields))
        outcome = self._journal.send(log_lines.as_journal(fields))
        if outcome == "away":
            priority = log_lines.PRIORITIES[fields["level"]]
            return _standard_error.write(f"<{priority}>{log_lines.as_logfmt(fields)}")
        return outcome == "taken"

    def _line(self, fields: Fields) -> str:
        match self._form:
            case "text":
                return log_lines.as_text(fields, colours=self._colours)
            case "json":
                return log_lines.as_json(fields)
        return log_lines.as_logfmt(fields)


def _loss(lines: int) -> Fields:
    return {"event": "log_lines_lost", "level": "warning", "lines": lines}


class _StandardError:
    """Standard error as it is now, for a bar on the terminal takes its place.

    Nobody waits for whoever reads it, or does not. On a full disk, or where it is closed, lines
    are lost for good: no reason to stop.
    """

    def __init__(self) -> None:
        self._is_torn = False

    def write(self, line: str) -> bool:
        """Write a line, or what there is room for; tell whether that was all.

        Once begun it waits a little for its reader, who may have had no turn yet.
        """
        text = "\n" * self._is_torn + line + "\n"
        began = time.monotonic()
        with suppress(*_NO_FILE):
            for start in range(0, len(text), PIECE_CHARACTERS):
                if not _has_room(until=began + PATIENCE_SECONDS * bool(start)):
                    self._is_torn = self._is_torn or start > 0
                    return False
                sys.stderr.write(text[start : start + PIECE_CHARACTERS])
                sys.stderr.flush()
            self._is_torn = False
        return True


def _has_room(*, until: float) -> bool:
    """Tell whether a piece could be written, now or by a time: a pipe has room for a page then."""
    try:
        descriptor = sys.stderr.fileno()
    except _NO_FILE:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(max(0, until - time.monotonic()) * 1000))


def _has_colours() -> bool:
    # https://no-color.org
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    with suppress(*_NO_FILE):
        return sys.stderr.isatty()
    return False


# ---- set up

_threshold = _Threshold()
_gate = Gate()
_standard_error = _StandardError()


def _configure(level: str, form: Format, gates: list[Any]) -> None:
    set_level(level)
    times = "%Y-%m-%dT%H:%M:%SZ" if form == "text" else "iso"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _threshold,
            *gates,
            _with_traceback,
            structlog.processors.TimeStamper(fmt=times, utc=True),
            _fit_to_be_shown,
            Outlet(form),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),  # see _Threshold
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
