"""What a comparison is made of: pairs against a model, delays, order, what is read of an event."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod.compare.delays import Delays
from turbod.compare.order import Order
from turbod.compare.pairing import MAX_COLLECTIONS, MAX_EXAMPLES, Pair, Pairing
from turbod.compare.seen import Seen, of_line, of_message
from turbod.envelope import Malformed
from turbod.simulation.network import Network

NOW_US = 1_790_000_000_000_000
WINDOW, SETTLE = 10.0, 2.0
# Who brings which event, so long after the one before, stamped so long before it came.
ARRIVALS = st.lists(
    st.tuples(st.sampled_from((0, 1)), st.integers(1, 30), st.integers(0, 8), st.integers(0, 4))
)


def seen(
    identity: int,
    *,
    stamp: float = 1e9,
    cursor: int = 0,
    rev: str = "",
    did: str = "did:web:a.example",
) -> Seen:
    """Make an event that was stamped so many seconds after 1970."""
    time_us = int(stamp * 1_000_000)
    return Seen(identity, did, f"a.b.c{identity % 3}", rev, f"at://{identity}", time_us, cursor)


def begun(pairing: Pairing) -> Pairing:
    """Let it have a pair, stamped long ago."""
    for side in (0, 1):
        pairing.add(side, seen(10**6, stamp=0), 0.0)
    return pairing


def messages(count: int) -> list[bytes]:
    network = Network(accounts=50)
    return [network.next_event(NOW_US + place).message() for place in range(count)]


class Model:
    """The same as Pairing by looking at everything that ever came."""

    def __init__(self, arrivals: list[tuple[int, int, float, float]]) -> None:
        came: dict[int, dict[int, tuple[float, float]]] = {}
        self.pairs, self.expected_from = 0, math.inf
        stamped_from = [math.inf, math.inf]
        expected: set[int] = set()
        for side, identity, now, stamp in arrivals:
            copies = came.setdefault(identity, {})
            if not copies and now >= self.expected_from and stamp >= stamped_from[side]:
                expected.add(identity)
            if side in copies:
                continue
            copies[side] = now, stamp
            if len(copies) == 2:
                self.pairs += 1
                if self.pairs == 1:
                    self.expected_from = now + SETTLE
                    stamped_from = [copies[one][1] + SETTLE for one in (0, 1)]
        self.missing, self.late, self.pending = [0, 0], [0, 0], 0
        end = arrivals[-1][2] if arrivals else 0.0
        for identity in expected:
            (side, (first, _)), *others = came[identity].items()
            if not others:
                self.missing[1 - side] += first + WINDOW <= end
                self.pending += first + WINDOW > end
            elif others[0][1][0] >= first + WINDOW:
                self.late[1 - side] += 1


@given(ARRIVALS)
def test_pairs_missing_late_and_pending_are_what_a_look_at_everything_says(
    steps: list[tuple[int, int, int, int]],
) -> None:
    pairing, now, arrivals = Pairing(window_seconds=WINDOW, settle_seconds=SETTLE), 0.0, []
    for side, identity, wait, age in steps:
        now += wait
        arrivals.append((side, identity, now, now - age + side))
        pairing.add(side, seen(identity, stamp=now - age + side), now)
    model = Model(arrivals)
    assert pairing.pairs == model.pairs
    assert pairing.expected_from == model.expected_from
    assert [missed.count for missed in pairing.missed] == model.missing
    assert [missed.late for missed in pairing.missed] == model.late
    assert pairing.pending == model.pending
    assert pairing.forgotten == 0
    for missed in pairing.missed:
        assert sum(missed.by_collection.values()) == missed.count
        assert len(missed.examples) == min(missed.count, MAX_EXAMPLES) or missed.late


@given(ARRIVALS, st.integers(2, 6))
def test_whatever_comes_it_holds_no_more_than_it_may_and_never_says_too_much_is_missing(
    steps: list[tuple[int, int, int, int]], limit: int
) -> None:
    small = Pairing(window_seconds=WINDOW, settle_seconds=SETTLE, limit=limit)
    now = 0.0
    for side, identity, wait, age in steps:
        now += wait
        small.add(side, seen(identity, stamp=now - age), now)
        assert len(small._newer) + len(small._older) <= limit
        assert len(small._unjudged) <= limit // 2 + 1
        assert small.pending >= 0
        assert all(missed.count >= 0 for missed in small.missed)


def test_what_came_twice_from_one_stream_is_no_pair() -> None:
    pairing = Pairing(window_seconds=WINDOW, settle_seconds=SETTLE)
    assert pairing.add(0, seen(1), 1.0) is True
    assert pairing.add(0, seen(1), 2.0) is False
    assert isinstance(pairing.add(1, seen(1), 3.0), Pair)
    assert pairing.add(1, seen(1), 4.0) is False
    assert pairing.add(0, seen(1), 5.0) is False
    assert pairing.pairs == 1


def test_after_the_end_only_the_other_copies_are_waited_for() -> None:
    pairing = begun(Pairing(window_seconds=WINDOW, settle_seconds=SETTLE))
    pairing.add(0, seen(2), 5.0)
    pairing.close()
    pairing.add(0, seen(3), 5.0)
    assert pairing.pending == 1
    pairing.add(1, seen(2), 6.0)
    assert pairing.pending == 0
    pairing.judge(100.0)
    assert pairing.missed[1].count == 0


def test_what_one_held_back_and_the_other_sent_before_it_was_asked_is_no_loss() -> None:
    pairing = Pairing(window_seconds=WINDOW, settle_seconds=SETTLE)
    for side in (0, 1):
        pairing.add(side, seen(1, stamp=1000), 0.0)
    pairing.add(0, seen(2, stamp=990), 5.0)
    pairing.add(0, seen(3, stamp=1005), 5.0)
    pairing.add(1, seen(4, stamp=990), 5.0)
    pairing.judge(100.0)
    assert list(pairing.missed[1].examples) == [3]


def test_right_behind_the_first_pair_orders_may_still_differ() -> None:
    pairing = begun(Pairing(window_seconds=WINDOW, settle_seconds=SETTLE))
    pairing.add(0, seen(2), SETTLE - 0.1)
    assert pairing.pending == 0
    pairing.add(0, seen(3), SETTLE)
    assert pairing.pending == 1


def test_too_many_to_wait_for_are_forgotten_and_told_as_that() -> None:
    pairing = begun(Pairing(window_seconds=WINDOW, settle_seconds=0, limit=100))
    for identity in range(200):
        pairing.add(0, seen(identity), 1.0)
    pairing.judge(100.0)
    assert pairing.missed[1].count + pairing.forgotten == 200
    assert pairing.forgotten >= 100
    assert pairing.pending == 0


def test_collections_are_counted_by_name_up_to_a_bound() -> None:
    pairing = begun(Pairing(window_seconds=WINDOW, settle_seconds=0))
    for place in range(MAX_COLLECTIONS + 50):
        pairing.add(0, Seen(place, "did:web:a", f"a.b.c{place}", "", "at://", 10**15), 1.0)
    pairing.judge(100.0)
    assert len(pairing.missed[1].by_collection) == MAX_COLLECTIONS + 1
    for place in range(MAX_COLLECTIONS + 50):
        pairing.add(1, Seen(place, "did:web:a", f"a.b.c{place}", "", "at://", 10**15), 101.0)
    assert not any(pairing.missed[1].by_collection.values())
    assert pairing.missed[1].late == MAX_COLLECTIONS + 50


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_those_of_the_values_to_a_few_percent(
    values: list[float], share: float
) -> None:
    delays = Delays()
    for value in values:
        delays.add(value)
    exact = sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
    found = delays.quantile(share)
    assert found is not None
    if abs(exact) < 86_400:
        assert found == pytest.approx(exact, rel=0.03, abs=0.0001)
    assert delays.first == sum(value < 0 for value in values)


def test_delays_take_the_same_room_whatever_is_added() -> None:
    delays, chance = Delays(), random.Random(1)
    for _ in range(20_000):
        delays.add(chance.choice((-1, 1)) * 10 ** chance.uniform(-9, 9))
    assert len(delays._counts) <= 845
    assert delays.above(2.0) + delays.first < delays.count
    assert Delays().quantile(0.5) is None


def test_falling_cursors_and_revs_are_counted_each_once() -> None:
    order = Order()
    for cursor, rev in ((5, "b"), (6, "b"), (6, "a"), (9, "c"), (8, "b")):
        order.add(seen(1, cursor=cursor, rev=rev))
    assert (order.cursors_fallen, order.revs_fallen) == (2, 2)
    order.add(seen(1, cursor=10, rev="a", did="did:web:b.example"))
    assert order.revs_fallen == 2


def test_accounts_are_remembered_within_a_bound_the_latest_ones() -> None:
    order = Order(max_accounts=10)
    for place in range(1000):
        order.add(seen(1, rev="b", did=f"did:web:{place}.example"))
        assert len(order._newer) + len(order._older) <= 10
    order.add(seen(1, rev="a", did="did:web:999.example"))
    assert order.revs_fallen == 1


def test_a_record_and_its_event_have_one_identity_and_its_views_are_counted() -> None:
    for message in messages(200):
        line = (
            b'{"cursor":1790000000000000,"at_uri":"x","did":"y","time_us":1,"message":%b,'
            b'"hydrated_metadata":{"user":{"handle":"a"},"mentions":{"did:a:b":{},"did:a:c":null},'
            b'"parent_post":null,"reply_post":{},"quote_post":null,"subject_post":{"a":[1]},'
            b'"unresolved":["did:a:c"],"from_stream":["x"],"hydrated_us":1}}' % message
        )
        event, record = of_message(message), of_line(line)
        assert record.identity == event.identity
        assert (record.uri, record.rev, record.collection) == (
            *(event.uri, event.rev, event.collection),
        )
        assert (record.views, record.unresolved, record.cursor) == (4, 1, 1790000000000000)
        assert (event.views, event.unresolved, event.cursor) == (0, 0, 0)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_comes_it_is_an_event_or_malformed(data: bytes) -> None:
    for read in (of_line, of_message):
        with pytest.raises(Malformed):
            read(data)


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"cursor":1,"message":{}}', b'{"cursor":"x"}'])
def test_what_is_no_record_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        of_line(line)
