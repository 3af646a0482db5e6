from turbod.hydration.lag import SHORT_SECONDS, Lag


def judge(lags: list[float], *, held: bool = True) -> list[bool]:
    lag = Lag(100)
    return [
        lag.too_long(value, now_seconds=second, is_held=held) for second, value in enumerate(lags)
    ]


def test_falling_behind_by_a_short_budget_is_borne_up_to_the_limit() -> None:
    judged = judge([float(second) for second in range(200)])
    assert judged.index(True) == 101


def test_an_outage_is_caught_up_with_however_long_it_was() -> None:
    assert not any(judge([5000.0 - 4 * second for second in range(1250)]))


def test_an_outage_while_running_is_a_jump_and_not_counted() -> None:
    assert not any(judge([1.0] * 5 + [5000.0] + [5000.0 - 2 * second for second in range(100)]))


def test_after_an_outage_falling_further_behind_counts() -> None:
    assert any(judge([5000.0 + second for second in range(110)]))


def test_one_late_event_leaves_no_trace() -> None:
    judged = judge([1.0, 40.0, 1.0] + [float(second) for second in range(1, 103)])
    assert judged[-1]


def test_a_silence_while_running_is_not_counted_when_it_is_caught_up_with() -> None:
    """Without events the lag grows a second a second, as it does where the budget is short."""
    lag, held = Lag(100), False
    silence = [float(second) for second in range(5000)]
    caught_up = [5000.0 - second for second in range(4000)]
    for second, seconds in enumerate(silence + caught_up):
        held = held or second >= len(silence) + 3  # the first repeats fill the room
        assert not lag.too_long(seconds, now_seconds=second, is_held=held)


def test_an_upstream_that_is_late_itself_is_not_counted() -> None:
    assert not any(judge([float(second) for second in range(5000)], held=False))


def test_room_for_a_moment_does_not_end_what_is_counted() -> None:
    lag = Lag(100)
    judged = [
        lag.too_long(float(second), now_seconds=second, is_held=second % int(SHORT_SECONDS) == 0)
        for second in range(200)
    ]
    assert judged.index(True) == 101
