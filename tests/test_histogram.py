"""Counts by upper bound: against a list of all values."""

from bisect import bisect_left
from itertools import pairwise
from random import Random

import pytest

from turbod.histogram import BEHIND_SECONDS, LONG_SECONDS, SECONDS, Histogram


@pytest.mark.parametrize("bounds", [SECONDS, LONG_SECONDS, BEHIND_SECONDS])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert all(lower < upper for lower, upper in pairwise((0, *bounds)))


@pytest.mark.parametrize("seed", range(20))
def test_every_value_is_counted_once_under_the_least_bound_that_is_not_below_it(seed: int) -> None:
    random = Random(seed)
    histogram, values = Histogram(), []
    for _ in range(500):
        value, count = random.choice([random.expovariate(2), *SECONDS]), random.randint(1, 5)
        histogram.add(value, count)
        values += [value] * count
    found = histogram.distribution()
    assert found.count == len(values)
    assert found.sum == pytest.approx(sum(values))
    expected = [sum(value <= bound for value in values) for bound in SECONDS]
    assert found.cumulative == (*expected, len(values))


@pytest.mark.parametrize("seed", range(20))
def test_a_quantile_lies_between_the_bounds_of_the_true_one(seed: int) -> None:
    random = Random(seed)
    histogram = Histogram()
    values = sorted(random.expovariate(5) for _ in range(999))
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.9, 0.99):
        true, found = values[int(share * len(values))], histogram.distribution().quantile(share)
        place = bisect_left(SECONDS, true)
        assert found is not None
        assert (0, *SECONDS)[place] <= found <= SECONDS[place]


def test_quantiles_of_nothing_and_of_what_is_above_all_bounds() -> None:
    histogram = Histogram()
    assert histogram.distribution().quantile(0.5) is None
    histogram.add(1e6)
    assert histogram.distribution().quantile(0.5) == SECONDS[-1]


def test_what_was_added_since_an_earlier_snapshot() -> None:
    histogram = Histogram()
    histogram.add(0.2)
    earlier = histogram.distribution()
    histogram.add(3.0, 2)
    since = histogram.distribution().since(earlier)
    assert (since.count, since.sum) == (2, 6.0)
    assert since.quantile(0.5) == pytest.approx(3.75)


def test_what_took_no_time_is_below_every_bound() -> None:
    histogram = Histogram()
    histogram.add(3.0)
    found = histogram.distribution().with_instant(9)
    assert (found.cumulative[0], found.count, found.sum) == (9, 10, 3.0)
