"""The request budget: headers, refusals, and how full calls get, each with a clock of our own."""

from email.utils import formatdate

import pytest

from turbod.backoff import Backoff
from turbod.hydration.budget import (
    LONGEST_PAUSE_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    Allowance,
    Budget,
    read_allowance,
    read_retry_after,
)
from turbod.hydration.filling import (
    FILL_SECONDS,
    LONGEST_FILL_SECONDS,
    LULL_SECONDS,
    PATIENT_SECONDS,
    Average,
    Filling,
)
from turbod.hydration.health import Health

WALL = 1_800_000_000.0


def said(
    *, limit: object = 3000, remaining: object = 3000, reset: object = WALL + 300
) -> dict[str, str]:
    return {
        "ratelimit-limit": str(limit),
        "ratelimit-remaining": str(remaining),
        "ratelimit-reset": str(reset).removesuffix(".0"),
        "ratelimit-policy": "3000;w=300",
    }


def budget(rate: float = 10) -> Budget:
    return Budget(rate, now=0.0, backoff=Backoff(first_seconds=1, longest_seconds=8))


def heard(it: Budget, headers: dict[str, str], *, now: float = 0.0, flying: int = 0) -> None:
    it.heard(now, headers=headers, wall=WALL + now, flying=flying)


def spend_all(it: Budget, *, seconds: float) -> int:
    """Make every call that may be made until then."""
    now, calls = 0.0, 0
    while (now := max(now, it.next_at(now))) < seconds:
        it.spend(now)
        calls += 1
    return calls


# The rate -----------------------------------------------------------------------------------


def test_without_headers_the_setting_holds() -> None:
    assert budget(10).rate(0) == 10
    assert 100 <= spend_all(budget(10), seconds=10) <= 101


def test_a_start_finds_one_call_and_no_full_bucket() -> None:
    it = budget(10)
    it.spend(0)
    assert it.next_at(0) == pytest.approx(0.1)


def test_what_may_be_saved_up_is_bounded() -> None:
    it = budget(10)
    for _ in range(10):
        assert it.next_at(3600) <= 3600
        it.spend(3600)
    assert it.next_at(3600) > 3600


@pytest.mark.parametrize(
    ("limit", "remaining", "left", "rate"),
    [
        (3000, 3000, 300, 9.98),  # spread over the window
        (3000, 1505, 300, 5),  # others share the address
        (3000, 2900, 10, 10),  # an unspent window near its end is not plenty
        (30000, 30000, 300, 99.98),  # the server's word, not the setting
        (3000, 5, 300, 0.05),  # the reserve, but never nothing
    ],
)
def test_the_rate_is_what_the_headers_allow(
    limit: int, remaining: int, left: int, rate: float
) -> None:
    it = budget(10)
    headers = said(limit=limit, remaining=remaining, reset=WALL + left)
    headers["ratelimit-policy"] = f"{limit};w=300"
    heard(it, headers)
    assert it.rate(0) == pytest.approx(rate, rel=0.01)


def test_without_a_policy_the_setting_bounds_the_rate() -> None:
    it = budget(10)
    headers = said(limit=3000, remaining=2999, reset=WALL + 2)
    del headers["ratelimit-policy"]
    heard(it, headers)
    assert it.rate(0) == 10


def test_after_the_window_the_next_one_is_whole() -> None:
    it = budget()
    heard(it, said(remaining=100, reset=WALL + 50))
    assert it.rate(0) < 2
    assert it.rate(51) == 10


def test_calls_under_way_are_not_spent_twice() -> None:
    it = budget()
    heard(it, said(limit=300, remaining=60, reset=WALL + 10), flying=10)
    assert it.rate(0) <= 5


def test_a_whole_window_is_never_overspent() -> None:
    it = budget(1000)
    left, now, calls = 100, 0.0, 0
    while now < 300:
        it.spend(now)
        calls, left = calls + 1, left - 1
        heard(it, said(limit=100, remaining=left) | {"ratelimit-policy": "100;w=300"}, now=now)
        now = max(now, it.next_at(now))
    assert 90 < calls <= 100


def test_nothing_left_pauses_until_the_window_ends() -> None:
    it = budget()
    heard(it, said(remaining=0, reset=WALL + 20))
    assert it.next_at(0) == 20


def test_two_clocks_that_disagree_do_no_harm() -> None:
    """The answer's own Date tells how far off its reset is."""
    headers = said(reset=WALL + 5000 + 30) | {"date": formatdate(WALL + 5000, usegmt=True)}
    assert read_allowance(headers, WALL) == Allowance(3000, 3000, 30.0, 300.0)


def test_a_reset_is_never_further_than_the_window() -> None:
    allowance = read_allowance(said(reset=WALL + 9999), WALL)
    assert allowance is not None
    assert allowance.reset_seconds == 300


@pytest.mark.parametrize("garbage", ["", "x", "-1", "1e9", "9" * 400, "٣", "nan", " "])
@pytest.mark.parametrize("name", ["limit", "remaining", "reset"])
def test_headers_that_are_garbage_say_nothing(name: str, garbage: str) -> None:
    headers = said() | {f"ratelimit-{name}": garbage}
    assert read_allowance(headers, WALL) is None
    it = budget()
    heard(it, headers)
    assert it.rate(0) == 10


@pytest.mark.parametrize("policy", ["", "x", "3000", "3000;w=", "3000;w=0", ";;;=", "3000;w=x"])
def test_a_policy_that_is_garbage_names_no_window(policy: str) -> None:
    allowance = read_allowance(said() | {"ratelimit-policy": policy}, WALL)
    assert allowance is not None
    assert allowance.window_seconds is None


def test_a_limit_of_nothing_says_nothing() -> None:
    assert read_allowance(said(limit=0, remaining=0), WALL) is None


# Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.0),
        ("0", 0.0),
        (formatdate(WALL + 60, usegmt=True), 60.0),
        (formatdate(WALL - 60, usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("99999999999999999999", None),
        ("Tue, 99 Foo 2026 99:99:99 GMT", None),
        ("Fri, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(text: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": text}, WALL) == seconds


def refused(it: Budget, headers: dict[str, str], *, now: float, sent_at: float) -> None:
    it.refused(now, headers=headers, wall=WALL + now, sent_at=sent_at)


@pytest.mark.parametrize(
    ("text", "pause"),
    [("7", 7), ("0", SHORTEST_PAUSE_SECONDS), ("999999", LONGEST_PAUSE_SECONDS)],
)
def test_retry_after_is_kept_within_bounds(text: str, pause: float) -> None:
    it = budget()
    refused(it, {"retry-after": text}, now=10, sent_at=9)
    assert it.next_at(10) == 10 + pause


def test_without_retry_after_each_pause_is_longer() -> None:
    it, now, pauses = budget(1000), 0.0, []
    for _ in range(6):
        refused(it, {}, now=now, sent_at=now)
        pauses.append(it.next_at(now) - now)
        now += pauses[-1] + 1
    assert 0.5 <= pauses[0] <= 1
    assert pauses[3] > pauses[1] > pauses[0]
    assert max(pauses) <= 8


def test_a_refusal_without_headers_halves_the_rate_and_successes_bring_it_back() -> None:
    it = budget(10)
    refused(it, {}, now=0, sent_at=0)
    assert it.rate(0) == 5
    for _ in range(50):
        it.succeeded()
    assert 5 < it.rate(0) < 10
    for _ in range(50):
        it.succeeded()
    assert it.rate(0) == pytest.approx(10)


def test_refusals_of_calls_sent_together_count_once() -> None:
    it = budget(10)
    for number in range(10):
        refused(it, {}, now=1 + number / 100, sent_at=0.9)
    assert it.rate(2) == 5
    assert it.next_at(2) <= 2.1


def test_refusals_never_stop_it_for_good() -> None:
    it = budget(10)
    for number in range(100):
        refused(it, {}, now=number, sent_at=number)
    assert it.rate(100) >= 10 / 64
    assert it.next_at(100) < 110


def test_a_refusal_that_headers_explain_does_not_halve() -> None:
    it = budget()
    headers = said(remaining=0, reset=WALL + 20)
    heard(it, headers)
    refused(it, headers, now=0, sent_at=0)
    assert it.next_at(0) == 20
    assert it.rate(21) == 10


# Filling ------------------------------------------------------------------------------------


def test_an_average_is_right_from_the_start() -> None:
    it = Average(15)
    for number in range(100):
        it.add(1, now=number / 50)
    assert it.per_second(2) == pytest.approx(50, rel=0.1)
    for number in range(100, 5000):
        it.add(1, now=number / 50)
    assert it.per_second(100) == pytest.approx(50, rel=0.05)
    assert it.per_second(160) < 1.5


def test_an_average_of_nothing_is_nothing() -> None:
    assert Average(15).per_second(5) == 0


def wanting(*, per_second: float, seconds: float) -> Filling:
    it = Filling()
    for number in range(int(per_second * seconds)):
        it.wanted(number / per_second)
    return it


def test_a_call_goes_soon_with_budget_to_spare_and_full_without() -> None:
    it = wanting(per_second=25, seconds=10)
    assert it.need(10) == pytest.approx(1, rel=0.1)
    assert it.is_plenty(10, rate=4)
    assert not it.is_plenty(10, rate=1.3)
    assert it.patience_seconds(3, now=10, plenty=True) == FILL_SECONDS < 0.25
    assert it.patience_seconds(3, now=10, plenty=False) == LONGEST_FILL_SECONDS


def test_full_calls_earn_an_early_one() -> None:
    it = wanting(per_second=25, seconds=10)
    for _ in range(20):
        it.went(25, full=True, plenty=False)
    assert it.patience_seconds(1, now=10, plenty=False) == PATIENT_SECONDS
    it.went(1, full=False, plenty=False)
    assert it.patience_seconds(1, now=10, plenty=False) == LONGEST_FILL_SECONDS


def test_in_a_lull_a_call_goes_that_nothing_more_will_fill() -> None:
    """Intake may be waiting for just what that call brings."""
    it = wanting(per_second=25, seconds=10)
    assert it.patience_seconds(1, now=10 + LULL_SECONDS, plenty=False) == PATIENT_SECONDS


# Health -------------------------------------------------------------------------------------


def test_down_is_several_calls_in_a_row_without_an_answer() -> None:
    it = Health()
    for now in (1, 2):
        it.sent(now)
        it.failed()
    assert (it.down, it.next_at()) == (False, 0)
    it.sent(3)
    it.failed()
    assert (it.down, it.down_since, it.next_at()) == (True, 1, 3.5)
    it.sent(4)
    it.answered(5)
    assert (it.down, it.down_since, it.flying) == (False, None, 0)
