from pathlib import Path

import pytest

from turbod.database import MAX_UNSAVED, Changes, Database, Gone, StoredView


def view(key: str, *, fetched_us: int = 1, size: int = 10) -> StoredView:
    return StoredView(key, b"x" * size, (key, "did:plc:b"), 5, fetched_us)


def test_what_was_written_is_read_back_after_reopening(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite", max_bytes=10**9)
    changes = Changes(
        views={"a": view("a")},
        invalidated={"r": 7},
        gone={"g": Gone("v", 9), "h": None},
        positions={"ws://x": "{}"},
        generation=7,
    )
    database.write(changes)
    database.close()
    database = Database(tmp_path / "c.sqlite", max_bytes=10**9)
    assert database.view("a") == view("a")
    assert database.view("b") is None
    assert database.invalidated() == {"r": 7}
    assert dict(database.gone()) == {"g": Gone("v", 9)}
    assert database.positions() == {"ws://x": "{}"}
    assert (database.number("generation"), database.number("unknown")) == (7, 0)
    database.close()


def test_the_file_stays_within_its_bound_and_the_oldest_views_go(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite", max_bytes=4_000_000)
    for start in range(0, 20_000, 500):
        keys = [f"k{number}" for number in range(start, start + 500)]
        database.write(Changes(views={key: view(key, size=1000) for key in keys}))
        assert database.used_bytes() < 6_000_000
    assert database.view("k0") is None
    assert database.view("k19999") is not None
    database.close()


def test_views_that_are_too_old_for_anybody_go(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite", max_bytes=10**9)
    database.write(Changes(views={"a": view("a", fetched_us=1), "b": view("b", fetched_us=9)}))
    database.write(Changes(outdated_before_us=5))
    assert database.view("a") is None
    assert database.view("b") is not None
    database.close()


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.sqlite").write_bytes(content)
    database = Database(tmp_path / "c.sqlite", max_bytes=10**9)
    database.write(Changes(views={"a": view("a")}))
    assert database.view("a") is not None
    assert (tmp_path / "c.damaged").read_bytes() == content
    database.close()


@pytest.mark.parametrize("is_written_to", [False, True])
async def test_a_file_damaged_within_is_put_aside_while_it_runs(
    tmp_path: Path,
    is_written_to: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """What is read from a damaged page is no answer, and no end of the process, now or later."""
    path = tmp_path / "c.sqlite"
    database = Database(path, max_bytes=10**9)
    keys = [f"k{number}" for number in range(500)]
    database.write(Changes(views={key: view(key, size=3000) for key in keys}, positions={"u": "p"}))
    database.close()
    damaged = bytearray(path.read_bytes())
    damaged[8192 * 2 :] = b"\x5a" * (len(damaged) - 8192 * 2)
    path.write_bytes(damaged)
    database = Database(path, max_bytes=10**9)
    if not is_written_to:
        assert [database.view(key) for key in keys] == [None] * 500
        assert (database.invalidated(), dict(database.gone()), database.positions()) == ({}, {}, {})
    database.write(Changes(views={"a": view("a")}, positions={"u": "q"}))
    assert database.view("a") == view("a")
    assert database.positions() == {"u": "q"}
    assert (tmp_path / "c.damaged").exists()
    database.close()


def test_a_host_that_is_no_longer_read_has_no_position(tmp_path: Path) -> None:
    """Else it would be asked, when it is read again, for what came from others meanwhile."""
    database = Database(tmp_path / "c.sqlite", max_bytes=10**9)
    database.write(Changes(positions={"ws://a": "1", "ws://b": "2"}))
    database.write(Changes())
    assert database.positions() == {"ws://a": "1", "ws://b": "2"}
    database.write(Changes(positions={"ws://b": "3", "ws://c": "4"}))
    assert database.positions() == {"ws://b": "3", "ws://c": "4"}
    database.close()


def test_what_cannot_be_written_for_long_is_bounded() -> None:
    unsaved = Changes()
    for start in range(0, 1_000_000, 100_000):
        numbers = range(start, start + 100_000)
        changes = Changes(
            invalidated={f"r{n}": n + 1 for n in numbers},
            gone={f"g{n}": None for n in numbers},
            oldest=max(0, start - 100_000),
        )
        changes.follow(unsaved)
        unsaved = changes
        assert len(unsaved.invalidated) <= MAX_UNSAVED
        assert len(unsaved.gone) <= MAX_UNSAVED
    assert unsaved.invalidated["r999999"] == 1_000_000
    assert "r900000" in unsaved.invalidated
    assert "g999999" in unsaved.gone
