"""The soak's reckoning notices where a reader got something else than what lies on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard
from soaking.levels import beyond_bounds
from soaking.readers import Reader
from soaking.reckoning import reckon

from tests.acceptance.archive_places import FolderPlace
from tests.acceptance.follower import Wish
from tests.acceptance.scrape import Scrape

HOUR_US = 3_600_000_000
BASE = 490_000 * HOUR_US


def line(cursor: int) -> bytes:
    did = "did:plc:even" if cursor % 2 == 0 else "did:plc:odd"
    return json.dumps({"cursor": cursor, "message": {"did": did, "kind": "identity"}}).encode()


LINES = [line(BASE + hour * HOUR_US + place) for hour in range(2) for place in range(1, 50)]


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    """The first hour is an object, the second one a file."""
    made = FolderPlace(tmp_path / "store")
    data = b"".join(each + b"\n" for each in LINES[:49])
    made.write(f"a/{BASE + 1}-{BASE + 49}.jsonl.zst", zstandard.ZstdCompressor().compress(data))
    (tmp_path / "live").mkdir()
    text = b"".join(each + b"\n" for each in LINES[49:]) + b'{"torn'
    (tmp_path / "live" / "2026.jsonl").write_bytes(text)
    return made


def reader(lines: Sequence[bytes], *, wish: Wish | None = None, start: int = 0) -> Reader:
    made = Reader(1, name="somebody", wish=wish)
    made.start = start
    made.wishes.append((start, wish or Wish()))
    for each in lines:
        made._take_line(each)
    return made


def test_who_got_what_is_there_is_well(tmp_path: Path, place: FolderPlace) -> None:
    odd = [each for each in LINES if b"odd" in each]
    readers = [
        reader(LINES),
        reader(LINES[:60]),
        reader(LINES[30:], start=json.loads(LINES[29])["cursor"]),
        reader(odd, wish=Wish(dids=("did:plc:odd",))),
    ]
    assert reckon(tmp_path, place, readers) == (len(LINES), [])


def test_who_missed_something_or_got_other_bytes_is_named(
    tmp_path: Path, place: FolderPlace
) -> None:
    other = [*LINES[:5], LINES[5] + b" ", *LINES[6:]]
    for lines in (LINES[:20] + LINES[21:], other):
        count, words = reckon(tmp_path, place, [reader(lines)])
        assert count == len(LINES)
        assert len(words) == 1
        assert "somebody" in words[0]


def test_a_filter_that_changed_holds_from_its_place_on(tmp_path: Path, place: FolderPlace) -> None:
    changed = json.loads(LINES[39])["cursor"]
    some = LINES[:40] + [each for each in LINES[40:] if b"odd" in each]
    made = reader(some)
    made.wishes.append((changed, Wish(dids=("did:plc:odd",))))
    assert reckon(tmp_path, place, [made]) == (len(LINES), [])


def test_an_hour_that_has_two_objects_is_noticed(tmp_path: Path, place: FolderPlace) -> None:
    place.write(f"a/{BASE + 2}-{BASE + 49}.jsonl.zst", b"")
    with pytest.raises(AssertionError, match="one object an hour"):
        reckon(tmp_path, place, [])


def test_what_is_above_its_bound_is_named() -> None:
    told = (
        'turbod_bound_used_bytes{what="waiting"} 9e9\nturbod_bound_limit_bytes{what="waiting"} 1\n'
        'turbod_bound_used_items{what="files"} 7\nturbod_bound_limit_items{what="files"} 7\n'
    )
    assert beyond_bounds(Scrape(told)) == ["waiting: 9,000,000,000 of 1 bytes"]
