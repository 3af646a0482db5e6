"""A fault that comes again and again is a few lines and then one a minute, and none is untold."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from turbod import flood
from turbod.flood import MOST_LINES, WINDOW_SECONDS, Flood


def passed(held: Flood, event: str, times: int, now: float, **fields: Any) -> int:
    return sum(held.passes("warning", event, fields, now) for _ in range(times))


def test_the_first_lines_pass_and_the_rest_is_one_line_with_the_fields_of_the_last() -> None:
    held = Flood()
    assert passed(held, "down", 9, 0) == 9
    assert not held.due(WINDOW_SECONDS - 1)
    assert passed(held, "down", 58, 1, why="early") == 1
    assert not held.passes("warning", "down", {"why": "late"}, 59)
    (told,) = held.due(WINDOW_SECONDS)
    assert (told.event, told.level, told.fields) == ("down", "warning", {"why": "late"})
    assert (told.lines, told.seconds) == (58, WINDOW_SECONDS)


def test_while_it_goes_on_there_is_nothing_but_a_line_a_minute() -> None:
    held = Flood()
    lines = told = 0
    for second in range(3600):
        summaries = held.due(second)
        told += sum(summary.lines for summary in summaries)
        lines += len(summaries) + passed(held, "down", 5, second)
    assert lines <= MOST_LINES + 60
    told += sum(summary.lines for summary in held.rest(3600))
    assert told + MOST_LINES == 5 * 3600


def test_a_minute_without_one_ends_it() -> None:
    held = Flood()
    passed(held, "down", 50, 0)
    assert len(held.due(60)) == 1
    assert not held.due(120)
    assert passed(held, "down", 50, 121) == MOST_LINES


def test_each_host_is_heard_though_another_one_floods() -> None:
    held = Flood()
    passed(held, "down", 50, 0, host="a")
    assert passed(held, "down", 1, 0, host="b") == 1
    assert passed(held, "up", 1, 0, host="a") == 1


def test_a_thousand_damaged_files_are_one_flood() -> None:
    held = Flood()
    assert sum(passed(held, "damaged", 1, 0, file=str(n)) for n in range(1000)) == MOST_LINES


def test_what_it_remembers_is_bounded() -> None:
    held = Flood()
    for number in range(10_000):
        held.passes("info", str(number), {}, 0)
    assert len(held._kinds) == flood.MAX_KINDS + 1


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 40), st.sampled_from([None, "h", "i"])),
        max_size=200,
    )
)
def test_every_line_is_written_or_counted(lines: list[tuple[str, float, str | None]]) -> None:
    held, now, written, counted = Flood(), 0.0, 0, 0
    for event, wait, host in lines:
        now += wait
        counted += sum(summary.lines for summary in held.due(now))
        written += held.passes("info", event, {"host": host}, now)
    counted += sum(summary.lines for summary in held.rest(now))
    assert written + counted == len(lines)


def test_each_task_that_hangs_is_named() -> None:
    """A disk that hangs stops more than ten at once."""
    held = Flood()
    assert sum(passed(held, "task_hangs", 1, 0, task=str(n)) for n in range(30)) == 30


def test_an_error_is_heard_though_warnings_of_that_name_flood() -> None:
    held = Flood()
    passed(held, "library_says", 50, 0, library="a")
    assert held.passes("error", "library_says", {"library": "a"}, 0)


def test_what_logs_while_summaries_are_made_breaks_nothing() -> None:
    """A finaliser may run anywhere, and log."""
    held = Flood()

    class Logs(float):
        def __add__(self, other: float) -> float:
            passed(held, f"finaliser {len(held._kinds)}", 1, 0)
            return super().__add__(other)

    for number in range(20):
        passed(held, str(number), 20, Logs(0))
    assert len(held.due(61)) == 20
