"""The soak's ledger notices what it is there for."""

import json
from typing import Any

import pytest
from soaking.ledger import Ledger

from turbod.simulation.happening import Happening
from turbod.simulation.network import LIKE_THE_REAL_ONE, Network


@pytest.fixture
def happened() -> list[Happening]:
    """Return what happens in a small network."""
    network = Network(seed=5, accounts=30, mix={**LIKE_THE_REAL_ONE, "change_handle": 5})
    return [network.next_event(1_790_000_000_000_000 + place * 3000) for place in range(2000)]


def line(happening: Happening, **metadata: Any) -> bytes:
    """Return a record of an event."""
    message = json.loads(happening.message())
    return json.dumps({"cursor": 1, "message": message, "hydrated_metadata": metadata}).encode()


def ledger_of(happened: list[Happening]) -> tuple[Ledger, list[Happening]]:
    """Return a ledger that was told of all, and what of it is for the log."""
    ledger, logged = Ledger(), []
    for happening in happened:
        before = ledger.pending
        ledger.happened(happening)
        logged += [happening] * (ledger.pending - before)
    return ledger, logged


def test_what_comes_once_and_in_order_is_well(happened: list[Happening]) -> None:
    ledger, logged = ledger_of(happened)
    for happening in logged:
        ledger.was_delivered(line(happening))
    ledger.check_nothing_left()
    assert not ledger.faults
    assert ledger.delivered == sum(ledger.kinds.values()) == len(logged) > 1500
    assert set(ledger.kinds) == {"commit", "identity", "account"}
    assert ledger.cache_only > 0


def test_what_is_lost_is_named(happened: list[Happening]) -> None:
    ledger, logged = ledger_of(happened)
    for happening in logged[:700] + logged[701:]:
        ledger.was_delivered(line(happening))
    ledger.check_nothing_left()
    assert len(ledger.faults) == 1
    assert ledger.faults[0].startswith("never delivered")
    assert logged[700].did in ledger.faults[0]


def test_what_comes_twice_is_named(happened: list[Happening]) -> None:
    ledger, logged = ledger_of(happened)
    for happening in [*logged, logged[3]]:
        ledger.was_delivered(line(happening))
    assert [fault[:5] for fault in ledger.faults] == ["twice"]


def test_what_comes_after_a_later_one_of_its_account_is_named_but_where_that_may_be(
    happened: list[Happening],
) -> None:
    for is_ordered in (True, False):
        ledger, logged = ledger_of(happened)
        ledger.is_ordered = is_ordered
        last = next(each for each in reversed(logged) if each.did == logged[0].did)
        ledger.was_delivered(line(last))
        ledger.was_delivered(line(logged[0]))
        assert [fault[:13] for fault in ledger.faults] == ["after a later"] * is_ordered


def test_what_is_unresolved_is_named_but_where_that_may_be(happened: list[Happening]) -> None:
    ledger, logged = ledger_of(happened)
    ledger.is_good = False
    ledger.was_delivered(line(logged[0], unresolved=["did:plc:a"]))
    assert (ledger.excused, ledger.unresolved, ledger.faults) == (1, 0, [])
    ledger.is_good = True
    ledger.was_delivered(line(logged[1], unresolved=["did:plc:a", "did:plc:b"]))
    assert (ledger.excused, ledger.unresolved, len(ledger.faults)) == (1, 2, 1)
