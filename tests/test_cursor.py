from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod import cursor

NOW = 1745343001300000


def test_an_event_in_time_keeps_its_own_time() -> None:
    assert cursor.following(NOW - 10, time_us=NOW - 5, now_us=NOW) == NOW - 5


def test_a_late_event_goes_behind_everything_written() -> None:
    assert cursor.following(NOW, time_us=NOW - 10**9, now_us=NOW) == NOW + 1


def test_a_time_from_the_future_is_taken_at_most_five_seconds_ahead() -> None:
    assert cursor.following(0, time_us=NOW * 2, now_us=NOW) == NOW + 5_000_000


def test_nothing_goes_into_a_sealed_hour() -> None:
    assert cursor.following(NOW, time_us=NOW, now_us=NOW, sealed_end=NOW + 99) == NOW + 99


@given(
    st.lists(st.tuples(st.integers(-(10**18), 10**18), st.integers(0, 2**52)), min_size=1),
)
def test_cursors_rise_and_have_16_digits_whatever_the_clocks_do(
    times: list[tuple[int, int]],
) -> None:
    last = 0
    for time_us, now_us in times:
        given_cursor = cursor.following(last, time_us=time_us, now_us=now_us)
        assert given_cursor > last
        assert len(str(given_cursor)) == 16
        last = given_cursor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1745342977546824", 1745342977546824),
        ("-30s", NOW - 30_000_000),
        ("-15m", NOW - 900_000_000),
        ("-2h", NOW - 7_200_000_000),
        ("-7d", NOW - 604_800_000_000),
        ("-999999d", 1),
        ("2025-04-22T17:29:37Z", 1745342977000000 - 1),
        ("2025-04-22T17:29:37.546824Z", 1745342977546824 - 1),
        ("2025-04-22t17:29:37.5z", 1745342977500000 - 1),
        ("2025-04-22T19:29:37+02:00", 1745342977000000 - 1),
        ("2025-04-22T19:29:37 02:00", 1745342977000000 - 1),
        ("2025-04-22T16:29:37-01:00", 1745342977000000 - 1),
        ("2025-04-22T17:29:37.123456789Z", 1745342977123456 - 1),
        ("1970-01-01T00:00:00Z", 1),
    ],
)
def test_every_accepted_form(text: str, expected: int) -> None:
    assert cursor.parse(text, now_us=NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "00",
        "0745342977546824",
        "174534297754682",
        "17453429775468240",
        "9999999999999999",
        "-1",
        "-1745342977546824",
        "-1234567s",
        "-5w",
        "-5 m",
        "+5m",
        "now",
        "1e15",
        "١٧٤٥٣٤٢٩٧٧٥٤٦٨٢٤",
        "2025-04-22T17:29:37",
        "2025-04-22",
        "2025-04-22 17:29:37Z",
        "2025-02-30T17:29:37Z",
        "2025-04-22T25:29:37Z",
        "2025-04-22T17:29:37+99:99",
        "0000-01-01T00:00:00Z",
        "1745342977546824\n",
    ],
)
def test_nothing_else_is_accepted(text: str) -> None:
    with pytest.raises(cursor.BadCursor):
        cursor.parse(text, now_us=NOW)


@given(st.text(max_size=40))
def test_no_text_raises_anything_but_bad_cursor(text: str) -> None:
    with suppress(cursor.BadCursor):
        assert 0 <= cursor.parse(text, now_us=NOW) < cursor.LIMIT


def test_a_position_above_the_head_is_the_head_until_a_minute_ahead_of_head_and_clock() -> None:
    assert cursor.position(None, head=7, now_us=NOW) == 7
    assert cursor.position(NOW + 60_000_000, head=NOW - 5, now_us=NOW) == NOW - 5
    assert cursor.position(NOW - 9, head=NOW - 5, now_us=NOW) == NOW - 9
    with pytest.raises(cursor.FutureCursor):
        cursor.position(NOW + 60_000_001, head=NOW - 5, now_us=NOW)
    assert cursor.position(NOW + 60_000_001, head=NOW + 2, now_us=NOW) == NOW + 2


def test_hours_are_named_and_found_again() -> None:
    assert cursor.hour_name(1745342977546824) == "2025-04-22T17"
    assert cursor.hour_start("2025-04-22T17") == 1745341200000000
    assert cursor.hour_name(1745341200000000 - 1) == "2025-04-22T16"
