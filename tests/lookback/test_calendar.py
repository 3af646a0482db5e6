"""The hours, from what is known of objects and of the log."""

import time
from collections.abc import Mapping
from pathlib import Path

from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.names import Name
from turbod.cursor import HOUR_US
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hours import PlainHour
from turbod.lookback.calendar import HOURS, Contents, Hour, hours, shown_since

MINUTE = 60_000_000
START = 1_795_161_600_000_000  # 2026-11-20T08


def held(hour: int, *, is_stored: bool = True, is_here: bool = False) -> Held:
    first = START + hour * HOUR_US
    path = Path("/nowhere") if is_here else None
    return Held(Name(first + MINUTE, first + 50 * MINUTE), 100, path, is_stored)


def plain(hour: int, *gaps: Gap) -> PlainHour:
    first = START + hour * HOUR_US
    return PlainHour(Path("/nowhere"), first, 7, first + 1, first + 2, list(gaps))


def shown(
    objects: list[Held],
    plains: list[PlainHour] | None = None,
    known: Mapping[Name, Contents | None] | None = None,
    conflicts: frozenset[int] = frozenset(),
) -> dict[str, Hour]:
    now_us = START + 20 * HOUR_US
    found = hours(objects, plains or [], known or {}, conflicts=conflicts, now_us=now_us)
    assert [each.hour for each in found] == sorted((each.hour for each in found), reverse=True)
    return {each.hour: each for each in found}


def test_an_hour_says_where_it_lies() -> None:
    found = shown(
        [held(2, is_stored=False, is_here=True), held(1, is_here=True), held(0)], [plain(3)]
    )
    assert [(each.hour[-2:], each.state, each.is_here) for each in found.values()] == [
        ("11", "plain", True),
        ("10", "waiting", True),
        ("09", "verified", True),
        ("08", "verified", False),
    ]


def test_an_hour_whose_object_replaces_the_plain_file_is_told_once() -> None:
    assert shown([held(3)], [plain(3)])["2026-11-20T11"].state == "verified"


def test_what_is_known_of_an_object_is_told() -> None:
    gap = Gap(START + 5, START + 6, "no host had it")
    known = {held(0).name: Contents(1000, 0, [gap]), held(1).name: None}
    found = shown(
        [held(2), held(1), held(0)], known=known, conflicts=frozenset({held(2).name.hour})
    )
    assert found["2026-11-20T08"].records == 1000
    assert list(found["2026-11-20T08"].gaps) == [gap]
    assert found["2026-11-20T09"].state == "damaged"
    assert found["2026-11-20T10"].state == "conflict"


def test_hours_that_an_index_knows_of_and_nobody_has_are_missing() -> None:
    older = held(0)
    known = {held(4).name: Contents(1, older.name.last + 3 * HOUR_US, [])}
    found = shown([held(4), older], known=known)
    assert [found[f"2026-11-20T{hour:02}"].state for hour in (9, 10, 11)] == ["missing"] * 3


def test_hours_in_which_nothing_happened_are_not() -> None:
    older = held(0)
    known = {held(4).name: Contents(1, older.name.last, [])}
    assert shown([held(4), older], known=known).keys() == {"2026-11-20T12", "2026-11-20T08"}


def test_hours_within_a_gap_are_missing_and_say_why() -> None:
    gap = Gap(START + 5 * MINUTE, START + 3 * HOUR_US + 9 * MINUTE, "no host had it")
    found = shown([], [plain(0), plain(3, gap)])
    assert found["2026-11-20T09"].state == found["2026-11-20T10"].state == "missing"
    assert list(found["2026-11-20T10"].gaps) == [gap]
    assert len(found) == 4


def test_a_gap_of_years_and_a_catalogue_of_years_are_as_short_as_the_calendar() -> None:
    now_us = START + 20 * HOUR_US
    gap = Gap(1_000_000_000_000_000, now_us, "all of it")
    found = hours([], [plain(20, gap)], {}, conflicts=(), now_us=now_us)
    assert len(found) == HOURS
    years = Catalogue()
    years.listed((held(-hour).name, 1) for hour in range(20_000, 0, -1))
    shown = years.since(shown_since(now_us))
    assert len(shown) == HOURS - 21
    assert shown[0].name == held(-1).name


def test_two_objects_of_one_hour_are_a_conflict() -> None:
    catalogue, one, two = Catalogue(), held(0), held(1)
    other = Name(one.name.first + 1, one.name.last)
    catalogue.listed([(one.name, 1), (other, 1), (two.name, 1)])
    later, earlier = catalogue.since(0)
    assert not catalogue.is_in_conflict(later)
    assert catalogue.is_in_conflict(earlier)


def test_weeks_full_of_gaps_that_overlap_are_told_in_a_moment() -> None:
    """The index of an object is another's word: its gaps may reach back to the beginning."""
    objects = [held(hour) for hour in range(19, 19 - HOURS, -26)]
    known: dict[Name, Contents | None] = {
        each.name: Contents(1, 0, [Gap(0, each.name.first + at, "") for at in range(20)])
        for each in objects
    }
    began = time.perf_counter()
    found = shown(objects, known=known)
    assert time.perf_counter() - began < 2  # some 5 ms; 24 s where each gap was spread by itself
    assert len(found) > HOURS - 3
    assert all(each.gaps for each in found.values())


def test_a_gap_that_ends_in_the_far_future_makes_no_hours_there() -> None:
    found = shown([], [plain(3, Gap(START + 1, 2**62, "a clock that is wrong"))])
    assert max(found) == "2026-11-21T03"
