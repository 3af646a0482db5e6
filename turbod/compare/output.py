"""A comparison as a table for people, or as JSON for programs."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from turbod.amounts import size, span
from turbod.compare.comparison import Report, StreamReport
from turbod.compare.verdicts import exit_code, faults, sentence

JSON_SECONDS: Final = 5.0


class Output(Protocol):
    """Where reports go."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def show(self, report: Report) -> None:
        """Show the figures as of now: called once a second."""

    def finish(self, report: Report) -> None:
        """Show the last figures, behind the block."""


class Screen:
    """A table that changes on a terminal; anywhere else the last one alone."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=not sys.stdout.isatty())
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, report: Report) -> None:
        """Show the figures as of now, where they can be shown in place of the last ones."""
        if self._is_live:
            self._live.update(table(report), refresh=True)

    def finish(self, report: Report) -> None:
        """Print the last table."""
        self._console.print(table(report, is_final=True))


class Lines:
    """A JSON object on a line of standard output, every 5 s and at the end."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, report: Report) -> None:
        """Write an object, where the last is long enough ago."""
        if report.seconds >= self._told_at + JSON_SECONDS:
            self._told_at = report.seconds
            self._write(report, is_final=False)

    def finish(self, report: Report) -> None:
        """Write the last object."""
        self._write(report, is_final=True)

    def _write(self, report: Report, *, is_final: bool) -> None:
        line = msgspec.json.encode(as_json(report, is_final=is_final))
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def as_json(report: Report, *, is_final: bool) -> dict[str, Any]:
    """Return the figures and the verdicts on them."""
    figures = msgspec.to_builtins(report)
    for stream, found in zip(figures["streams"], faults(report), strict=True):
        stream["faults"] = msgspec.to_builtins(found)
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "final": is_final,
        "exit_code": exit_code(report),
        "verdict": sentence(report, is_final=is_final),
        **figures,
    }


def table(report: Report, *, is_final: bool = False) -> Group:
    """Return the figures side by side, and below them what is wrong."""
    shown = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    shown.add_column("")
    for stream in report.streams:
        shown.add_column(stream.name, min_width=20)
    for name, cells in _rows(report):
        shown.add_row(name, *(Text(cell) for cell in cells))
    lines = [
        Text(f"{stream.name} {fault.words}", style="red")
        for stream, found in zip(report.streams, faults(report), strict=True)
        for fault in found
    ]
    waited = f", {report.pending:,} waited for" if report.pending else ""
    end = f"{sentence(report, is_final=is_final)} {report.pairs:,} events in both{waited}."
    if report.forgotten:
        end += f" {report.forgotten:,} were too many to be waited for."
    urls = [Text(f"{stream.name} {stream.url}") for stream in report.streams]
    return Group(
        *urls,
        Text(""),
        shown,
        Text(""),
        *lines,
        Text(f"{span(report.seconds)}: {end}", style="bold"),
    )


def _rows(report: Report) -> Iterable[tuple[str, list[str]]]:
    streams = report.streams
    yield (
        "verdict",
        [", ".join(fault.name for fault in found) or "sound" for found in faults(report)],
    )
    yield "events", [f"{stream.events:,}" for stream in streams]
    yield "now, a second", [_rate(stream) for stream in streams]
    yield "brought first", [_share(stream.first) for stream in streams]
    yield "against the other", [_behind(stream.seconds_behind_median) for stream in streams]
    yield "99 in 100 at most", [_behind(stream.seconds_behind_p99) for stream in streams]
    yield "missing", [f"{stream.missing:,}" for stream in streams]
    if any(stream.brought_after_window for stream in streams):
        yield "missing for a time", [f"{stream.brought_after_window:,}" for stream in streams]
    yield "repeated", [f"{stream.duplicates:,}" for stream in streams]
    yield "out of order", [f"{stream.cursors_fallen + stream.revs_fallen:,}" for stream in streams]
    if any(stream.unreadable for stream in streams):
        yield "unreadable", [f"{stream.unreadable:,}" for stream in streams]
    if any(stream.hydration for stream in streams):
        yield "views, unresolved", [_hydration(stream) for stream in streams]
    if any(stream.connects > 1 or stream.last_error for stream in streams):
        yield "reconnects", [_reconnects(stream) for stream in streams]


def _rate(stream: StreamReport) -> str:
    return f"{stream.events_per_second:,.1f}, {size(stream.bytes_per_second)}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _behind(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds == 0:
        return "at once"
    return f"{_span(abs(seconds))} {'behind' if seconds > 0 else 'ahead'}"


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else span(seconds)


def _hydration(stream: StreamReport) -> str:
    if stream.hydration is None:
        return ""
    return f"{stream.hydration.views:,}, {stream.hydration.unresolved:,}"


def _reconnects(stream: StreamReport) -> str:
    error = f" ({stream.last_error})" if stream.last_error else ""
    return f"{max(stream.connects - 1, 0):,}{error}"
