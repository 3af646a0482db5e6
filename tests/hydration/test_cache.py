from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from turbod.config import CacheSettings
from turbod.database import Database
from turbod.hydration import cache as cache_module
from turbod.hydration.cache import Cache

ALICE = "did:plc:alice"
BOB = "did:plc:bob"
POST = f"at://{ALICE}/app.bsky.feed.post/a"
SECOND = 1_000_000


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall_us = 1_745_342_977_546_824

    def pass_by(self, seconds: float) -> None:
        """Let both go on."""
        self.seconds += seconds
        self.wall_us += int(seconds * SECOND)


Open = Callable[..., Cache]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Open the cache over one file, again and again, as a restart does."""
    databases: list[Database] = []

    def opened(**settings: Any) -> Cache:
        for database in databases:
            database.close()
        databases[:] = [Database(tmp_path / "cache.sqlite", max_bytes=10**9)]
        return Cache(
            CacheSettings(**settings),
            databases[0],
            now_us=lambda: clock.wall_us,
            clock=lambda: clock.seconds,
        )

    yield opened
    for database in databases:
        database.close()


def save(cache: Cache) -> None:
    cache._database.write(cache.changes())


def data(cache: Cache, key: str) -> bytes | None:
    entry = cache.get(key)
    return entry.data if entry is not None else None


def test_a_view_is_there_until_it_is_too_old(reopen: Open, clock: Clock) -> None:
    cache = reopen(profile_seconds=60)
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    clock.pass_by(59)
    assert data(cache, ALICE) == b"{}"
    clock.pass_by(2)
    assert cache.get(ALICE) is None


def test_views_survive_a_restart_with_their_age(reopen: Open, clock: Clock) -> None:
    cache = reopen(profile_seconds=60)
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    save(cache)
    clock.pass_by(50)
    cache = reopen(profile_seconds=60)
    assert data(cache, ALICE) == b"{}"
    clock.pass_by(11)
    assert cache.get(ALICE) is None


def test_a_clock_set_back_makes_stored_views_unusable_not_eternal(
    reopen: Open, clock: Clock
) -> None:
    cache = reopen()
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    save(cache)
    clock.wall_us -= 10 * SECOND
    assert reopen().get(ALICE) is None


def test_what_shows_an_outdated_account_is_outdated_wherever_it_lies(reopen: Open) -> None:
    cache = reopen()
    cache.put(POST, b"{}", (POST, ALICE, BOB), stamp=cache.generation)
    save(cache)
    assert data(reopen(), POST) == b"{}"
    cache = reopen()
    cache.outdate(BOB)
    assert cache.get(POST) is None, "on disk"
    save(cache)
    assert reopen().get(POST) is None, "after a restart"
    cache = reopen()
    cache.put(POST, b"{}", (POST, ALICE, BOB), stamp=cache.generation)
    assert data(cache, POST) == b"{}"
    cache.outdate(BOB)
    assert cache.get(POST) is None, "in memory"


def test_an_answer_under_way_when_its_subject_changed_is_not_used(reopen: Open) -> None:
    cache = reopen()
    stamp = cache.generation
    cache.outdate(ALICE)
    cache.put(ALICE, b"old", (ALICE,), stamp=stamp)
    assert cache.get(ALICE) is None
    cache.put(ALICE, b"new", (ALICE,), stamp=cache.generation)
    assert data(cache, ALICE) == b"new"


def test_right_after_a_change_an_answer_may_be_the_old_view_and_is_soon_asked_again(
    reopen: Open, clock: Clock
) -> None:
    cache = reopen()
    cache.outdate(ALICE)
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    clock.pass_by(29)
    assert data(cache, ALICE) == b"{}"
    clock.pass_by(2)
    assert cache.get(ALICE) is None


def test_nothing_from_before_a_gap_is_used_after_it(reopen: Open) -> None:
    cache = reopen()
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    save(cache)
    cache.outdate_all()
    assert cache.get(ALICE) is None
    save(cache)
    assert reopen().get(ALICE) is None


def test_what_is_gone_is_not_shown_not_even_inside_another_view(reopen: Open) -> None:
    cache = reopen()
    cache.take_away(BOB, "2026-01-02")
    assert cache.put(POST, b"{}", (POST, ALICE, BOB), stamp=cache.generation).data is None
    assert data(cache, POST) is None
    assert cache.hidden((BOB,))
    save(cache)
    assert reopen().hidden((BOB,)), "after a restart too"


def test_only_something_later_brings_back_what_is_gone(reopen: Open) -> None:
    cache = reopen()
    cache.take_away(BOB, "2026-01-02")
    cache.bring_back(BOB, "2026-01-01")
    assert cache.hidden((BOB,))
    cache.take_away(BOB, "2026-01-01")
    cache.bring_back(BOB, "2026-01-03")
    assert not cache.hidden((BOB,))
    save(cache)
    assert not reopen().hidden((BOB,))


def test_an_older_notice_that_comes_late_does_not_take_an_account_away_again(
    reopen: Open,
) -> None:
    cache = reopen()
    cache.bring_back(BOB, "2026-01-02")
    cache.take_away(BOB, "2026-01-01")
    assert not cache.hidden((BOB,))
    cache.take_away(BOB, "2026-01-03")
    assert cache.hidden((BOB,))


def test_which_accounts_are_back_is_bounded(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_BACK", 10)
    cache = reopen()
    for number in range(30):
        cache.bring_back(f"did:plc:{number}", "t")
    assert len(cache._back) == 10


def test_what_is_gone_is_remembered_long_enough_and_not_for_ever(
    reopen: Open, clock: Clock
) -> None:
    cache = reopen()
    cache.take_away(POST, "a")
    clock.pass_by(600)
    save(cache)
    assert cache.hidden((POST,))
    clock.pass_by(cache_module.POST_GONE_SECONDS)
    save(cache)
    assert not cache.hidden((POST,))


def test_what_is_missing_is_remembered_until_the_stream_brings_it(
    reopen: Open, clock: Clock
) -> None:
    cache = reopen(missing_seconds=600)
    cache.put_missing(POST, stamp=cache.generation)
    entry = cache.get(POST)
    assert entry is not None
    assert entry.data is None
    cache.bring_back(POST, "a")
    assert cache.get(POST) is None
    cache.put_missing(POST, stamp=cache.generation)
    cache.outdate(ALICE)
    assert cache.get(POST) is None, "an account that is back may have it"
    cache.put_missing(POST, stamp=cache.generation)
    clock.pass_by(601)
    assert cache.get(POST) is None


def test_a_stored_view_does_not_hide_that_the_post_is_missing_by_now(reopen: Open) -> None:
    cache = reopen()
    cache.put(POST, b"{}", (POST, ALICE), stamp=cache.generation)
    save(cache)
    cache.outdate(POST)
    cache.put_missing(POST, stamp=cache.generation)
    entry = cache.get(POST)
    assert entry is not None
    assert entry.data is None


def test_excluded_accounts_are_hidden_and_shown_again_when_no_longer_listed(reopen: Open) -> None:
    cache = reopen()
    cache.put(POST, b"{}", (POST, ALICE, BOB), stamp=cache.generation)
    cache.exclude(frozenset({BOB}))
    assert cache.get(POST) is None
    assert cache.hidden((BOB,))
    assert cache.put(POST, b"{}", (POST, ALICE, BOB), stamp=cache.generation).data is None
    cache.exclude(frozenset())
    assert not cache.hidden((BOB,))
    assert cache.get(POST) is None, "what was withheld is asked for again"


def test_memory_is_bounded_in_bytes_and_the_least_used_goes_to_disk_only(reopen: Open) -> None:
    cache = reopen(memory_bytes=1024 * 1024)
    for number in range(2000):
        cache.put(f"did:plc:{number}", b"x" * 1000, (f"did:plc:{number}",), stamp=cache.generation)
        cache.get("did:plc:0")
    assert cache.statistics().memory_bytes <= 1024 * 1024
    assert "did:plc:0" in cache._memory
    assert "did:plc:1" not in cache._memory
    assert data(cache, "did:plc:1") == b"x" * 1000, "not written yet, but not lost"
    save(cache)
    assert data(cache, "did:plc:2") == b"x" * 1000


def test_the_number_of_invalidations_is_bounded_on_the_safe_side(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_INVALIDATED", 100)
    cache = reopen()
    cache.put(ALICE, b"{}", (ALICE,), stamp=cache.generation)
    cache.outdate(ALICE)
    cache.put(BOB, b"{}", (BOB,), stamp=cache.generation)
    for number in range(200):
        cache.outdate(f"did:plc:{number}")
    assert cache.statistics().outdated <= 100
    assert cache.get(ALICE) is None
    assert cache.get(BOB) is None, "too old to be told from what was outdated"
    cache.put(BOB, b"{}", (BOB,), stamp=cache.generation)
    assert data(cache, BOB) == b"{}"
