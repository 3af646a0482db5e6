"""Second copies are recognised, whatever they are stamped, within stated bounds."""

from hypothesis import given
from hypothesis import strategies as st

from turbod.cursor import LEAST
from turbod.upstream.identities import (
    LEAST_SPANS,
    MAX_SPANS,
    SKEW_US,
    SPAN_US,
    Identities,
    Table,
)

numbers = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.one_of(numbers, st.integers(-3, 3)).filter(bool), max_size=400))
def test_a_table_is_a_set(added: list[int]) -> None:
    table, model = Table(400), set[int]()
    for number in added:
        assert table.add(number) == (number not in model)
        model.add(number)
    assert table.count == len(model)
    assert all(table.has(number) for number in model)
    assert not any(table.has(number) for number in range(4, 50) if number not in model)


@given(st.lists(st.tuples(numbers, st.integers(0, 10**6)), max_size=300), st.integers(2, 40))
def test_the_newest_half_of_the_limit_is_always_known(
    events: list[tuple[int, int]], limit: int
) -> None:
    identities = Identities(limit=limit)
    seen: list[int] = []
    for identity, time_us in events:
        if not identities.known(identity, LEAST + time_us):
            identities.remember(identity, time_us=LEAST + time_us, logged_until=LEAST + time_us)
            seen.append(identity)
        assert all(identities.known(one, LEAST) for one in seen[-(limit // 2) :])
        assert len(identities) <= limit


def test_what_was_forgotten_is_asked_for_in_the_log() -> None:
    identities = Identities(limit=20)
    for n in range(1, 100):
        identities.remember(n, time_us=LEAST + n * SPAN_US, logged_until=LEAST + n * SPAN_US)
    assert not identities.known(1, LEAST + SPAN_US)
    missing = identities.missing_spans(LEAST + SPAN_US, floor=0, head=LEAST + 99 * SPAN_US)
    assert missing
    for after, until in missing:
        assert until - after <= SPAN_US
        identities.lend(
            after, until, [n for n in range(1, 100) if after < LEAST + n * SPAN_US <= until]
        )
    assert identities.known(1, LEAST + SPAN_US)
    assert identities.missing_spans(LEAST + SPAN_US, floor=0, head=LEAST + 99 * SPAN_US) == []


def test_an_event_of_now_never_costs_a_look_into_the_log() -> None:
    identities = Identities(limit=20)
    identities.complete_above(LEAST)
    now = LEAST + SKEW_US + 1
    assert identities.missing_spans(now, floor=0, head=now) == []


def test_below_the_floor_there_is_nothing_to_ask_for() -> None:
    identities = Identities(limit=20)
    identities.complete_above(LEAST + 100 * SPAN_US)
    head = LEAST + 200 * SPAN_US
    assert identities.missing_spans(5, floor=LEAST, head=head) == []
    assert identities.missing_spans(LEAST, floor=LEAST + 50 * SPAN_US, head=head) == []
    spans = identities.missing_spans(
        LEAST + 50 * SPAN_US, floor=LEAST + 50 * SPAN_US + 7, head=head
    )
    assert min(after for after, _ in spans) == LEAST + 50 * SPAN_US + 7


def test_a_span_that_grew_since_it_was_lent_is_lent_again() -> None:
    identities = Identities(limit=20)
    identities.complete_above(LEAST + SPAN_US)
    (first, *_) = identities.missing_spans(LEAST, floor=LEAST, head=LEAST + 10)
    assert first == (LEAST, LEAST + 10)
    identities.lend(*first, [7])
    assert identities.missing_spans(LEAST, floor=LEAST, head=LEAST + 10) == []
    assert identities.missing_spans(LEAST, floor=LEAST, head=LEAST + SPAN_US) != []


def test_lent_spans_are_bounded() -> None:
    identities = Identities(limit=100)
    identities.complete_above(LEAST + 1000 * SPAN_US)
    for span in range(1000):
        after = LEAST + span * SPAN_US
        identities.lend(after, after + SPAN_US, range(span * 30, span * 30 + 30))
        assert len(identities) <= max(100, 30 * LEAST_SPANS)
    assert identities.known(30_000 - 1, LEAST)
    assert not identities.known(1, LEAST)


def test_the_spans_that_one_event_needs_are_never_put_out_by_one_another() -> None:
    """A busy network's ten minutes may hold more than a small limit lets be remembered."""
    identities = Identities(limit=100)
    identities.complete_above(LEAST + 1000 * SPAN_US)
    time_us = LEAST + 500 * SPAN_US
    missing = identities.missing_spans(time_us, floor=LEAST, head=LEAST + 1000 * SPAN_US)
    for number, (after, until) in enumerate(missing):
        identities.lend(after, until, range(number * 90 + 1, number * 90 + 91))
    assert len(missing) > 2
    assert all(identities.known(one, time_us) for one in range(1, 90 * len(missing) + 1))
    assert identities.missing_spans(time_us, floor=LEAST, head=LEAST + 1000 * SPAN_US) == []


def test_spans_without_events_are_bounded_too() -> None:
    identities = Identities(limit=100)
    identities.complete_above(LEAST + 1000 * SPAN_US)
    for span in range(1000):
        identities.lend(LEAST + span * SPAN_US, LEAST + (span + 1) * SPAN_US, ())
    assert len(identities._spans) <= MAX_SPANS
