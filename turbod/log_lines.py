"""What an event of the log looks like: for people, as logfmt, as JSON, for the journal. Pure.

Events come as plain fields: `event`, `level`, maybe `timestamp`, and whatever else there is to say.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

MAX_CHARACTERS: Final = 4000  # of one value
MAX_TRACEBACK_CHARACTERS: Final = 60_000
PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog's

_HEAD: Final = ("timestamp", "level", "event")
_REPEATED: Final = ("repeated", "repeated_seconds")
_WIDTH: Final = 25  # most events' names are shorter
_RESET, _BOLD, _DIM, _CYAN = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"
_COLOURS: Final = {"critical": "\x1b[31;1m", "error": "\x1b[31m", "warning": "\x1b[33m"}
_UNFIT_FOR_A_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_UNFIT_FOR_A_FIELD = re.compile(r"[^A-Z0-9_]")
_is_bare = re.compile(r"[^\s\"=\\]+").fullmatch


def printable(value: Any) -> Any:
    """Return plain JSON whose texts stand on one line and do nothing to a terminal."""
    if isinstance(value, str):
        return _escaped(_shortened(value, MAX_CHARACTERS))
    if isinstance(value, list):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {_key(name): printable(item) for name, item in value.items()}
    return value


def printable_traceback(text: str) -> str:
    """Return a traceback whose lines do nothing to a terminal; its middle goes where it is long."""
    return "\n".join(map(_escaped, _shortened(text, MAX_TRACEBACK_CHARACTERS).splitlines()))


def as_text(fields: Mapping[str, Any], *, colours: bool) -> str:
    """Return a line for people, below it the traceback where there is one."""
    level = fields["level"]
    more = " ".join(
        f"{_painted(name, _CYAN, colours)}={_readable(value)}" for name, value in _others(fields)
    )
    line = " ".join(
        (
            _painted(str(fields.get("timestamp", "")), _DIM, colours),
            _painted(f"{level:<8}", _COLOURS.get(level, ""), colours),
            _painted(_words(fields).ljust(_WIDTH if more else 0), _BOLD, colours),
            more,
        )
    ).strip()
    return f"{line}\n{fields['exception']}" if "exception" in fields else line


def as_logfmt(fields: Mapping[str, Any]) -> str:
    """Return one line of `key=value`, what tells of all events alike first."""
    return " ".join(f"{name}={_quoted(_plain(value))}" for name, value in _ordered(fields).items())


def as_json(fields: Mapping[str, Any]) -> str:
    """Return one line that is a JSON object."""
    return msgspec.json.encode(_ordered(fields)).decode()


def as_journal(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of the journal's entry: systemd.journal-fields(7), and TURBOD_ ours."""
    traceback = fields.get("exception")
    message = " ".join((_words(fields), *(f"{n}={_readable(v)}" for n, v in _others(fields))))
    entry = {
        "MESSAGE": f"{message}: {_last_words(traceback)}" if traceback else message,
        "PRIORITY": str(PRIORITIES[fields["level"]]),
        "SYSLOG_IDENTIFIER": "turbod",
    }
    for name, value in fields.items():
        if name not in {"timestamp", "level"}:
            field = _UNFIT_FOR_A_FIELD.sub("_", name.upper())
            entry[f"TURBOD_{field}"[:64]] = _plain(value)
    return entry


def _last_words(traceback: str) -> str:
    """Return its last line that says something: that of a group of exceptions is a frame's edge."""
    lines = (line.strip(" |+-") for line in reversed(traceback.splitlines()))
    return next(filter(None, lines), "")


def _words(fields: Mapping[str, Any]) -> str:
    """Return an event's name in words, and how often it came where the line is a summary."""
    words = str(fields["event"]).replace("_", " ")
    if "repeated" in fields:
        words += f": {fields['repeated']} more in {fields['repeated_seconds']} s"
    return words


def _others(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    told = {*_HEAD, *_REPEATED, "exception"}
    return ((name, value) for name, value in fields.items() if name not in told)


def _painted(text: str, colour: str, colours: bool) -> str:  # noqa: FBT001 - as its callers got it
    return f"{colour}{text}{_RESET}" if colours and colour and text else text


def _ordered(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in _HEAD if name in fields} | dict(fields)


def _readable(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else _plain(value)


def _quoted(text: str) -> str:
    return text if _is_bare(text) else json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _key(name: str) -> str:
    return _UNFIT_FOR_A_KEY.sub("_", name[:64]) or "_"


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {len(text) - most} characters … {text[-most // 2 :]}"


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
