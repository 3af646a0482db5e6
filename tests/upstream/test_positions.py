"""A position is never ahead of what is still to come, and means the same in the next process."""

import subprocess
import sys

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.upstream.fake_jetstream import BASE_US, SECOND, post
from turbod.event import parse
from turbod.upstream.low_water import LowWater
from turbod.upstream.position import SLOP_US, Position, Trail, cursor_to_ask, name_of
from turbod.upstream.progress import Progress

NOW = BASE_US + 10**6 * SECOND


@given(st.lists(st.integers(1, 30), max_size=60))
def test_the_low_water_mark_is_the_end_of_the_unbroken_run(intakes: list[int]) -> None:
    low_water, done = LowWater(), set[int]()
    for intake in intakes:
        low_water.done([intake])
        done.add(intake)
        expected = next(n for n in range(40) if n + 1 not in done)
        assert low_water.mark == expected
    assert len(low_water._ahead) <= 30


@given(
    st.lists(st.integers(-3 * SECOND, 3 * SECOND), min_size=1, max_size=200),
    st.sets(st.integers(0, 199), max_size=15),
    st.sampled_from([-(10**15), -3600 * SECOND, 3600 * SECOND, 10**15]),
)
def test_no_few_odd_stamps_move_the_position_past_what_is_to_come(
    jitter: list[int], odd: set[int], offset: int
) -> None:
    """Stamps that wander by seconds, and up to fifteen in a row of 64 that are off by far."""
    trail = Trail(Position(BASE_US - SECOND))
    for n, off in enumerate(jitter):
        at = BASE_US + n * SECOND + off
        trail.note(parse(post(n, at=at + (offset if n in odd else 0))))
    position = trail.position(NOW)
    assert position is not None
    next_at = BASE_US + len(jitter) * SECOND - 3 * SECOND  # the earliest that may follow
    assert cursor_to_ask(position, NOW) <= max(next_at, BASE_US)
    assert cursor_to_ask(position, NOW) >= 10**15


def test_a_host_whose_clock_is_ahead_is_asked_for_nothing_ahead_of_ours() -> None:
    trail = Trail(None)
    trail.note(parse(post(1, at=NOW + 3600 * SECOND)))
    position = trail.position(NOW)
    assert position is not None
    assert cursor_to_ask(position, NOW) == NOW - SLOP_US


def test_a_name_is_the_same_in_every_process() -> None:
    message = post(1, at=BASE_US)
    code = (
        "from turbod.event import parse; from turbod.upstream.position import name_of;"
        f"print(name_of(parse({message!r})))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert made.stdout.strip() == name_of(parse(message))


def test_a_position_survives_json() -> None:
    position = Position(BASE_US, 7, BASE_US + 1, ("app.bsky.feed.post#00", "identity#11"))
    assert msgspec.json.decode(msgspec.json.encode(position), type=Position) == position


def test_a_number_of_the_hosts_own_is_the_oldest_anchors() -> None:
    trail = Trail(None)
    for n in range(10):
        trail.note(parse(post(n, at=BASE_US, cursor=100 + n)))
    position = trail.position(NOW)
    assert position is not None
    assert (position.cursor, len(position.anchors)) == (106, 4)


def test_positions_follow_a_stream_of_which_something_is_always_under_way() -> None:
    """At each look what was taken before the last look is done, what came since is not."""
    progress = Progress([None], now_us=lambda: NOW)
    for look in range(1, 20):
        progress.trails[0].note(parse(post(look, at=BASE_US + look * SECOND)))
        progress.promote(look)
        progress.done([look - 1])
    position = progress.savable[0]
    assert position is not None
    assert position.latest_us >= BASE_US + 15 * SECOND
    assert name_of(parse(post(19, at=BASE_US + 19 * SECOND))) not in position.anchors
