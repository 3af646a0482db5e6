"""Print a turbod's stream to standard output, one JSON record a line; notices go to standard error.

Filters stand in the URL as the protocol has them: ws://HOST/turbostream?wantedDids=did:plc:...
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import structlog
import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from turbod import bearer
from turbod.client.stream import BadAddress, Refused, Stream, first
from turbod.cursor import BadCursor, parse

_LINE: Final = re.compile(rb'\{"cursor":([0-9]{16}),')  # how each begins
_SAID: Final = ("name", "error", "message", "after", "before", "cursor")  # of `#info`, `#error`

log = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("url", metavar="URL", help="ws://HOST:PORT, with a path and filters or not")
    parser.add_argument(
        "--cursor",
        type=_cursor,
        help="where to begin: a cursor, 0 for the oldest, a time before now as in --cursor=-15m, "
        "or an RFC 3339 time; without it, from now on",
    )


def _cursor(text: str) -> str:
    """Return it as it is: a server knows best what its cursors and its clock say."""
    try:
        parse(text, now_us=0)
    except BadCursor as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


async def run(options: argparse.Namespace) -> int:
    """Print until interrupted; return 1 where the server refuses for good or output fails.

    2 for an address that is none.

    Raises:
        ConfigError: TURBOD_TOKEN is no token.
    """
    code = 0
    token = bearer.from_environment(os.environ)
    with CatchUp() as catch_up:
        try:
            await Stream(
                options.url,
                cursor=options.cursor,
                token=token,
                records=catch_up.print,
                told=catch_up.told,
            ).run()
        except* Refused as group:
            print(f"turbod: {first(group)}", file=sys.stderr)  # noqa: T201 - a command's own words
            code = 2 if group.subgroup(BadAddress) else 1
        except* OSError as group:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if group.subgroup(BrokenPipeError) is None:
                print(f"turbod: standard output: {first(group)}", file=sys.stderr)  # noqa: T201 - as above
                code = 1  # else whoever read us, such as `head`, has enough
    return code


class _Told(msgspec.Struct):
    """What `#cursor` says."""

    cursor: int
    head: int
    live: bool


class CatchUp:
    """Standard output, and on a terminal a bar while there is history to catch up with."""

    def __init__(self) -> None:
        # Where records go to the terminal too, a bar among them would only be in the way.
        hidden = not sys.stderr.isatty() or sys.stdout.isatty()
        self._progress = Progress(
            TextColumn("catching up"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]:,} records"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=hidden,
        )
        self._task: TaskID | None = None
        self._records = self._begin = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @trio.lowlevel.disable_ki_protection  # Ctrl-C ends it where nobody reads the pipe, too
    def print(self, records: Sequence[bytes]) -> None:
        """Write records out at once, so that a pipe behind us sees them when we do."""
        sys.stdout.buffer.write(b"\n".join(records) + b"\n")
        sys.stdout.buffer.flush()
        self._records += len(records)
        if self._task is not None and (line := _LINE.match(records[-1])):
            self._progress.update(
                self._task, completed=int(line[1]) - self._begin, records=self._records
            )

    def told(self, message: dict[str, Any]) -> None:
        """Show where we are, and say what the server has to say."""
        if message.get("$type") == "#cursor":
            told = msgspec.convert(message, _Told)
            self._show(told.cursor, told.head, live=told.live)
        else:
            log.warning("server_says", **{key: message[key] for key in _SAID if key in message})

    def _show(self, cursor: int, head: int, *, live: bool) -> None:
        """Measure the way to the head by the cursors, which are times."""
        if live and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        if live:
            return
        if self._task is None:
            self._begin = cursor
            self._task = self._progress.add_task("", records=0)
        way, done = head - self._begin, cursor - self._begin
        self._progress.update(self._task, total=way, completed=done, records=self._records)
