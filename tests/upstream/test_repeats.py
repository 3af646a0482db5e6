"""A host that is away for a day is a few lines, not one for each attempt."""

from turbod.upstream.repeats import LONGEST_SECONDS, Repeats


def test_equal_failures_are_told_ever_more_seldom_and_none_is_uncounted() -> None:
    failures = Repeats()
    told = [times for second in range(0, 86_400, 30) if (times := failures.due("away", second))]
    assert told[0] == 1
    assert len(told) < 30
    assert sum(told) > (86_400 - LONGEST_SECONDS) / 30


def test_another_failure_and_one_after_it_went_well_are_told_at_once() -> None:
    failures = Repeats()
    assert [failures.due("away", 0), failures.due("away", 1), failures.due("broken", 2)] == [
        1,
        0,
        2,
    ]
    failures.over()
    assert failures.due("broken", 3) == 1
