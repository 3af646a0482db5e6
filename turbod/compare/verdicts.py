"""What two streams' figures mean: the faults of each in words, and the exit code. Pure."""

from typing import Final

import msgspec

from turbod.amounts import span
from turbod.compare.comparison import LATE_SECONDS, SILENT_SECONDS, Report, StreamReport

ALIKE: Final = 0
NOT_COMPARED: Final = 1
DIFFERENT: Final = 3

FEW: Final = 10  # events: fewer are no habit
BLIND_SHARE: Final = 0.01
LATE_SHARE: Final = 0.05
POORER_SHARE: Final = 0.01
UNTIDY_SHARE: Final = 0.001
_MOST_NAMED: Final = 3


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one stream, seen beside the other.

    Attributes:
        name: away, silent, stranger, absent, blind, lossy, lagging, disordered, repeating,
            unreadable, gap or poorer.
        words: the same for people.
    """

    name: str
    words: str


def faults(report: Report) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    """Return the faults of each stream, the gravest first."""
    first, second = report.streams
    return _of(first, second, report), _of(second, first, report)


def exit_code(report: Report) -> int:
    """Return the exit code that these figures deserve."""
    if any(faults(report)):
        return DIFFERENT
    return ALIKE if report.pairs else NOT_COMPARED


def sentence(report: Report, *, is_final: bool) -> str:
    """Return the verdict on both in one line."""
    if any(faults(report)):
        return "They differ."
    if not report.pairs:
        return (
            "Nothing was compared: no event in common." if is_final else "No event in common yet."
        )
    if report.pending and is_final:
        return f"Alike, so far: {report.pending:,} events could still have come."
    return "Alike." if is_final else "Alike so far."


def _of(stream: StreamReport, other: StreamReport, report: Report) -> tuple[Fault, ...]:
    if not stream.is_connected:
        return (Fault("away", f"away: {stream.last_error or 'not connected yet'}"),)
    found = [*_silence(stream, other, report)]
    if not found:
        found += [*_loss(stream, report), *_lag(stream)]
    return (*found, *_disorder(stream, other), *_of_turbod(stream, report))


def _silence(stream: StreamReport, other: StreamReport, report: Report) -> list[Fault]:
    if stream.silent_seconds >= SILENT_SECONDS and stream.missed_meanwhile >= FEW:
        words = (
            f"silent: nothing for {span(stream.silent_seconds)}, in which {other.name} brought "
            f"{stream.missed_meanwhile:,} events"
        )
        return [Fault("silent", words)]
    is_told = min(stream.events, other.events) >= FEW and report.seconds >= SILENT_SECONDS
    if not report.pairs and is_told:
        words = "no event in common: other collections, or too far behind or ahead"
        return [Fault("stranger", words)]
    return []


def _loss(stream: StreamReport, report: Report) -> list[Fault]:
    absent = {
        name: count
        for name, count in stream.missing_by_collection.items()
        if name in stream.absent_collections
    }
    if sum(absent.values()) < FEW:
        absent = {}
    missing = stream.missing - sum(absent.values())
    found = []
    if absent:
        named = ", ".join(list(absent)[:_MOST_NAMED])
        more = f" and {len(absent) - _MOST_NAMED} more" if len(absent) > _MOST_NAMED else ""
        words = (
            f"has nothing of {named}{more} ({sum(absent.values()):,} events); "
            "--collections compares what both have"
        )
        found.append(Fault("absent", words))
    if missing:
        expected = report.pairs + missing
        is_blind = missing >= FEW and missing >= BLIND_SHARE * expected
        name = "blind" if is_blind else "lossy"
        words = f"{name}: misses {_events(missing)} of {expected:,} ({missing / expected:.2%})"
        if stream.missing_examples:
            words += f", such as {stream.missing_examples[-1]}"
        found.append(Fault(name, words))
    return found


def _lag(stream: StreamReport) -> list[Fault]:
    median = stream.seconds_behind_median
    if median is None or stream.late < LATE_SHARE:
        return []
    usual = "on time" if median <= 0 else f"{span(median)} behind"
    words = (
        f"lagging: {stream.late:.0%} of its events come more than {LATE_SECONDS:.0f} s after the "
        f"other's; half of them at most {usual}"
    )
    return [Fault("lagging", words)]


def _disorder(stream: StreamReport, other: StreamReport) -> list[Fault]:
    found = []
    if stream.cursors_fallen:
        words = f"disordered: {stream.cursors_fallen:,} cursors are not above the one before"
        found.append(Fault("disordered", words))
    elif _is_untidy(stream.revs_fallen - other.revs_fallen, stream):
        words = f"disordered: {_events(stream.revs_fallen)} came after a newer one of their account"
        found.append(Fault("disordered", words))
    is_turbod = stream.kind == "turbod"  # which promises each event once
    if (is_turbod and stream.duplicates) or _is_untidy(stream.duplicates, stream):
        words = f"repeating: {_events(stream.duplicates)} came more than once"
        found.append(Fault("repeating", words))
    if _is_untidy(stream.unreadable - other.unreadable, stream):
        words = f"unreadable: {stream.unreadable:,} messages are no events"
        found.append(Fault("unreadable", words))
    return found


def _of_turbod(stream: StreamReport, report: Report) -> list[Fault]:
    found = []
    if stream.gaps:
        gaps = "1 gap" if stream.gaps == 1 else f"{stream.gaps:,} gaps"
        found.append(Fault("gap", f"tells {gaps}: it may have lost events"))
    poorer = 0 if stream.hydration is None else stream.hydration.poorer
    if poorer >= FEW and poorer >= POORER_SHARE * report.pairs:
        words = f"poorer: fewer views than the other's in {poorer / report.pairs:.1%} of the events"
        found.append(Fault("poorer", words))
    return found


def _is_untidy(count: int, stream: StreamReport) -> bool:
    return count >= FEW and count >= UNTIDY_SHARE * stream.events


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"
