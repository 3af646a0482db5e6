"""The catalogue against a plain list of what is where."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.names import Name
from turbod.cursor import HOUR_US

T0 = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z
ROOT = Path("verified")


def name(hour: int, first: int = 0, last: int = 1000) -> Name:
    return Name(T0 + hour * HOUR_US + first, T0 + hour * HOUR_US + last)


def path(of: Name) -> Path:
    return ROOT / of.file


def test_an_empty_one_knows_of_nothing() -> None:
    catalogue = Catalogue()
    assert (catalogue.floor, catalogue.last, catalogue.end, len(catalogue)) == (0, 0, 0, 0)
    assert catalogue.after(0) is None
    assert catalogue.before(T0) is None
    assert not catalogue.is_listed
    assert not [*catalogue, *catalogue.local(), *catalogue.stored(), *catalogue.conflicts]


def test_an_object_is_found_by_any_cursor_below_its_last() -> None:
    catalogue = Catalogue()
    first, second = name(0), name(5)
    catalogue.add_stored(second, 20)
    catalogue.add_local(first, 10, path(first))
    held = [Held(first, 10, path(first), False), Held(second, 20, None, True)]
    assert list(catalogue) == held
    assert catalogue.after(0) == held[0]
    assert catalogue.after(first.last - 1) == held[0]
    assert catalogue.after(first.last) == held[1]
    assert catalogue.after(second.last) is None
    assert catalogue.before(first.last) is None
    assert catalogue.before(first.last + 1) == held[0]
    assert catalogue.before(second.last + 1) == held[1]
    assert catalogue.floor == first.first - 1
    assert catalogue.last == second.last
    assert catalogue.end == T0 + 6 * HOUR_US


def test_an_object_is_gone_when_it_is_in_neither_place() -> None:
    catalogue = Catalogue()
    catalogue.add_local(name(0), 10, path(name(0)))
    catalogue.add_stored(name(0), 10)
    assert list(catalogue) == [Held(name(0), 10, path(name(0)), True)]
    catalogue.remove_local(name(0))
    assert list(catalogue) == [Held(name(0), 10, None, True)]
    catalogue.remove_stored(name(0))
    catalogue.remove_stored(name(0))
    assert list(catalogue) == []


def test_a_listing_replaces_what_was_known_as_stored_and_leaves_files_alone() -> None:
    catalogue = Catalogue()
    for hour in range(3):
        catalogue.add_stored(name(hour), 10)
    catalogue.add_local(name(1), 10, path(name(1)))
    catalogue.listed([(name(2), 10), (name(7), 5)])
    assert catalogue.is_listed
    assert list(catalogue) == [
        Held(name(1), 10, path(name(1)), False),
        Held(name(2), 10, None, True),
        Held(name(7), 5, None, True),
    ]


def test_of_two_objects_of_one_hour_the_stored_one_is_read_and_both_are_kept() -> None:
    catalogue = Catalogue()
    ours, theirs = name(0, 0, 2000), name(0, 500, 600)
    catalogue.add_local(ours, 10, path(ours))
    catalogue.add_stored(theirs, 20)
    served, other = Held(theirs, 20, None, True), Held(ours, 10, path(ours), False)
    assert list(catalogue) == [served]
    assert [(each.served, each.other) for each in catalogue.conflicts] == [(served, other)]
    assert catalogue.local() == [other]
    assert catalogue.stored() == [served]
    assert catalogue.last == ours.last, "no cursor is given twice, whatever is read"
    catalogue.remove_local(ours)
    assert catalogue.conflicts == []


def test_a_file_of_another_size_than_the_stored_object_is_another_object() -> None:
    catalogue = Catalogue()
    catalogue.add_local(name(0), 10, path(name(0)))
    catalogue.add_stored(name(0), 11)
    assert list(catalogue) == [Held(name(0), 11, None, True)]
    assert [each.other for each in catalogue.conflicts] == [Held(name(0), 10, path(name(0)), False)]


NAMES = [name(hour, first, last) for hour in range(4) for first, last in ((0, 9), (3, 5))]
STEPS = st.lists(
    st.tuples(st.sampled_from("lsLSx"), st.sampled_from(NAMES), st.sampled_from([10, 11])),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_comes_and_goes_it_is_what_a_plain_list_says(
    steps: list[tuple[str, Name, int]],
) -> None:
    catalogue = Catalogue()
    local: dict[Name, int] = {}
    stored: dict[Name, int] = {}
    for step, of, size in steps:
        match step:
            case "l":
                catalogue.add_local(of, size, path(of))
                local[of] = size
            case "s":
                catalogue.add_stored(of, size)
                stored[of] = size
            case "L":
                catalogue.remove_local(of)
                local.pop(of, None)
            case "S":
                catalogue.remove_stored(of)
                stored.pop(of, None)
            case _:
                stored = {of: size}
                catalogue.listed(stored.items())
    served = list(catalogue)
    hours = {each.hour for each in local.keys() | stored.keys()}
    assert [held.name.hour for held in served] == sorted(hours)
    for held in served:
        in_store = {each for each in stored if each.hour == held.name.hour}
        assert held.is_stored == bool(in_store)
        assert held.name in (in_store or local)
        assert held.size == (stored if held.is_stored else local)[held.name]
        agrees = local.get(held.name) == held.size
        assert held.path == (path(held.name) if agrees else None)
    assert [held.name for held in catalogue.local()] == sorted(local)
    assert [held.name for held in catalogue.stored()] == sorted(stored)
    contents = {*local.items(), *stored.items()}
    assert len(catalogue.conflicts) == len(contents) - len(hours)
    for cursor in (0, *(each.last + step for each in NAMES for step in (-1, 0, 1))):
        above = [held for held in served if held.name.last > cursor]
        assert catalogue.after(cursor) == (above[0] if above else None)
        below = [held for held in served if held.name.last < cursor]
        assert catalogue.before(cursor) == (below[-1] if below else None)


names = st.builds(name, st.integers(0, 30), st.integers(0, 2))
listings = st.dictionaries(names, st.integers(1, 3))


@settings(deadline=None)
@given(listings, listings, listings, st.lists(names), st.integers(1, 4), st.integers(0, 70))
def test_a_listing_may_be_taken_in_pieces_and_left_in_the_middle(
    former: dict[Name, int],
    broken: dict[Name, int],
    latter: dict[Name, int],
    removed: list[Name],
    at_once: int,
    steps: int,
) -> None:
    """What others note meanwhile is noted; the next listing puts all right."""
    catalogue, plain = Catalogue(), Catalogue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turbod.archive.catalogue.LISTED_AT_ONCE", at_once)
        catalogue.listed(former.items())
        for _ in zip(range(steps), catalogue.listing(broken.items()), strict=False):
            for each in removed:
                catalogue.remove_stored(each)
        catalogue.listed(latter.items())
    plain.listed(latter.items())
    assert list(catalogue) == list(plain)
    assert catalogue.stored() == plain.stored()
    assert [catalogue.find(each) for each in latter] == [plain.find(each) for each in latter]
