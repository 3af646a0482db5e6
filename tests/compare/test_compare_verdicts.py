"""What is said of two streams from what they brought: each fault, and nothing of sound ones."""

from collections.abc import Iterable

import pytest

from turbod.compare.comparison import Comparison, Side
from turbod.compare.output import as_json
from turbod.compare.verdicts import ALIKE, DIFFERENT, NOT_COMPARED, exit_code, faults, sentence
from turbod.simulation.network import Network

NOW_US = 1_790_000_000_000_000
WINDOW, SETTLE, STEP = 10.0, 1.0, 0.02


class Streams:
    """Two streams of one network, fed by hand; the clock is a number."""

    def __init__(self, first: str = "jetstream", second: str = "jetstream") -> None:
        self.sides = (Side("ws://a", first), Side("ws://b", second))
        self.comparison = Comparison(self.sides, window_seconds=WINDOW, settle_seconds=SETTLE)
        self.network = Network(accounts=50)
        self.now = 0.0
        self._made = 0
        for side in self.sides:
            side.connected(self.now)
        self.comparison.begin(self.now)
        self.both(100)

    def make(self) -> bytes:
        self._made += 1
        time_us = NOW_US + int(self.now * 1_000_000) + self._made
        return self.network.next_event(time_us).message()

    def give(self, which: int, messages: Iterable[bytes], *, repeats_until_us: int = 0) -> None:
        self.comparison.take(
            *(which, list(messages), self.now),
            repeats_until_us=repeats_until_us,
        )

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.comparison.tick(self.now)

    def both(self, count: int, *, later: float = 0.0) -> None:
        """Let both bring events, the second so much later."""
        for _ in range(count):
            message = self.make()
            self.give(0, [message])
            self.now += later
            self.give(1, [message])
            self.now += STEP

    def only(self, which: int, count: int) -> None:
        """Let one bring events that the other never has."""
        self.give(which, [self.make() for _ in range(count)])

    def said(self) -> list[list[str]]:
        report = self.comparison.report(self.now)
        return [[fault.name for fault in found] for found in faults(report)]

    def words(self, which: int) -> str:
        return faults(self.comparison.report(self.now))[which][0].words

    def code(self) -> int:
        return exit_code(self.comparison.report(self.now))


def line_of(message: bytes, cursor: int, views: str = '"user":{}') -> bytes:
    return (
        b'{"cursor":%d,"at_uri":"","did":"","time_us":1,"message":%b,"hydrated_metadata":{%b,'
        b'"mentions":{},"parent_post":null,"reply_post":null,"quote_post":null}}'
        % (cursor, message, views.encode())
    )


def test_nothing_is_said_of_two_sound_streams() -> None:
    streams = Streams()
    streams.both(1000, later=0.05)
    streams.wait(WINDOW)
    assert streams.said() == [[], []]
    assert streams.code() == ALIKE
    assert sentence(streams.comparison.report(streams.now), is_final=True) == "Alike."


def test_one_lost_event_is_found_and_named_after_the_window_and_not_before() -> None:
    streams = Streams()
    streams.both(100)
    lost = streams.make()
    streams.give(0, [lost])
    streams.both(int(WINDOW / STEP) - 10)
    assert streams.said() == [[], []]
    streams.both(20)
    assert streams.said() == [[], ["lossy"]]
    assert "lossy: misses 1 event of " in streams.words(1)
    uri = streams.comparison.report(streams.now).streams[1].missing_examples[0]
    assert uri.removeprefix("at://").split("/")[0].encode() in lost
    assert uri in streams.words(1)
    assert streams.code() == DIFFERENT


def test_a_lost_event_that_comes_after_all_is_late_and_no_fault() -> None:
    streams = Streams()
    streams.both(100)
    lost = streams.make()
    streams.give(0, [lost])
    streams.wait(WINDOW + 1)
    assert streams.said() == [[], ["lossy"]]
    streams.give(1, [lost])
    streams.both(100)
    assert streams.said() == [[], []]
    stream = streams.comparison.report(streams.now).streams[1]
    assert (stream.missing, stream.brought_after_window, stream.missing_examples) == (0, 1, ())


def test_who_misses_one_in_a_hundred_is_blind() -> None:
    streams = Streams()
    for _ in range(30):
        streams.both(70)
        streams.only(1, 1)
    streams.wait(WINDOW)
    assert streams.said() == [["blind"], []]


def test_who_has_nothing_of_a_collection_is_told_so_and_not_called_blind() -> None:
    streams = Streams()
    streams.both(100)
    listen = b'"collection":"fm.teal.alpha.feed.play"'
    message = next(one for one in iter(streams.make, b"") if b'"app.bsky.feed.like"' in one)
    for place in range(50):
        other = message.replace(b'"collection":"app.bsky.feed.like"', listen)
        streams.give(0, [other.replace(b'"rkey":"', b'"rkey":"%d' % place)])
    streams.both(int(WINDOW / STEP) + 5)
    assert streams.said() == [[], ["absent"]]
    assert "fm.teal.alpha.feed.play (50 events); --collections" in streams.words(1)


def test_who_comes_seconds_later_is_lagging_by_how_much() -> None:
    streams = Streams()
    streams.both(300, later=3.0)
    assert streams.said() == [[], ["lagging"]]
    report = streams.comparison.report(streams.now)
    assert report.streams[1].seconds_behind_median == pytest.approx(3.0, rel=0.03)
    assert report.streams[0].seconds_behind_median == pytest.approx(-3.0, rel=0.03)
    assert report.streams[0].first == pytest.approx(0.75, abs=0.01)


def test_what_was_sent_while_a_stream_was_away_is_no_lag_of_its() -> None:
    streams = Streams()
    streams.both(100)
    meanwhile = [streams.make() for _ in range(200)]
    streams.sides[1].disconnected("connection reset")
    streams.give(0, meanwhile)
    streams.wait(5)
    assert streams.said() == [[], ["away"]]
    assert "away: connection reset" in streams.words(1)
    streams.sides[1].connected(streams.now)
    streams.give(1, meanwhile)
    assert streams.said() == [[], []]
    assert streams.comparison.report(streams.now).streams[1].late == 0


def test_who_says_nothing_while_the_other_does_is_silent_and_nothing_else() -> None:
    streams = Streams()
    for _ in range(20):
        streams.only(0, 20)
        streams.wait(1)
    assert streams.said() == [[], ["silent"]]
    assert "silent: nothing for 20 s, in which A brought 400 events" in streams.words(1)


def test_two_streams_in_a_quiet_night_are_not_silent() -> None:
    streams = Streams()
    streams.wait(3600)
    assert streams.said() == [[], []]


def test_two_streams_of_two_networks_have_nothing_in_common() -> None:
    streams = Streams()
    fresh = Comparison(streams.sides, window_seconds=WINDOW, settle_seconds=SETTLE)
    streams.comparison = fresh
    fresh.begin(streams.now)
    for _ in range(15):
        streams.only(0, 5)
        streams.only(1, 5)
        streams.wait(1)
    assert streams.said() == [["stranger"], ["stranger"]]
    assert streams.code() == DIFFERENT


def test_where_nothing_came_nothing_was_compared() -> None:
    sides = (Side("ws://a", "jetstream"), Side("ws://b", "jetstream"))
    comparison = Comparison(sides, window_seconds=WINDOW, settle_seconds=SETTLE)
    for side in sides:
        side.connected(0.0)
    comparison.begin(0.0)
    report = comparison.report(60.0)
    assert exit_code(report) == NOT_COMPARED
    assert sentence(report, is_final=True).startswith("Nothing was compared")


def test_repeats_after_a_reconnect_are_none_and_others_are() -> None:
    streams = Streams()
    again = [streams.make() for _ in range(50)]
    streams.give(0, again)
    streams.give(1, again)
    streams.give(1, again, repeats_until_us=NOW_US * 2)
    assert streams.said() == [[], []]
    streams.give(1, again)
    assert streams.said() == [[], ["repeating"]]
    assert "50 events came more than once" in streams.words(1)


def test_a_turbod_may_repeat_no_event_and_let_no_cursor_fall() -> None:
    streams = Streams()
    streams.sides[1].read = Side("", "turbod").read
    streams.sides[1].kind = "turbod"
    first, second = streams.make(), streams.make()
    streams.give(0, [first, second])
    streams.give(1, [line_of(first, 2), line_of(second, 1)])
    assert streams.said() == [[], ["disordered"]]
    streams.give(1, [line_of(first, 3)])
    assert streams.said() == [[], ["disordered", "repeating"]]


def test_an_account_whose_revs_fall_is_told_where_the_other_stream_keeps_them() -> None:
    streams = Streams()
    messages = [one for one in (streams.make() for _ in range(400)) if b'"rev"' in one]
    streams.give(0, messages)
    streams.give(1, reversed(messages))
    assert streams.said() == [[], ["disordered"]]
    assert "came after a newer one of their account" in streams.words(1)


def test_what_is_no_event_is_counted_and_told() -> None:
    streams = Streams()
    streams.give(1, [b"null"] * 9)
    assert streams.said() == [[], []]
    streams.give(1, [b"null"])
    assert streams.said() == [[], ["unreadable"]]


def test_a_turbod_that_tells_gaps_is_not_to_be_trusted_yet() -> None:
    streams = Streams()
    streams.sides[0].gaps = 1
    assert streams.said() == [["gap"], []]
    assert streams.words(0) == "tells 1 gap: it may have lost events"


@pytest.mark.parametrize(("poor", "expected"), [(0, []), (9, []), (40, ["poorer"])])
def test_of_two_turbods_the_one_that_has_fewer_views_is_named(
    poor: int, expected: list[str]
) -> None:
    streams = Streams()
    for side in streams.sides:
        side.kind, side.read = "turbod", Side("", "turbod").read
    for place in range(500):
        message = streams.make()
        streams.give(0, [line_of(message, place + 1)])
        views = '"user":null' if place < poor else '"user":{}'
        streams.give(1, [line_of(message, place + 1, views)])
    assert streams.said() == [[], expected]
    hydration = streams.comparison.report(streams.now).streams[1].hydration
    assert hydration is not None
    assert (hydration.views, hydration.poorer) == (500 - poor, poor)


def test_the_end_comes_when_so_many_seconds_were_compared() -> None:
    streams = Streams()
    common_at = streams.comparison.pairing.expected_from - SETTLE
    assert streams.comparison.ends_at(30) == common_at + SETTLE + 30
    fresh = Comparison(streams.sides, window_seconds=WINDOW, settle_seconds=SETTLE)
    fresh.begin(100.0)
    assert fresh.ends_at(5) == 100 + SETTLE + WINDOW
    assert fresh.ends_at(50) == 100 + SETTLE + 50


def test_the_rate_is_that_of_the_last_seconds() -> None:
    streams = Streams()
    for _ in range(30):
        streams.both(10)
        streams.wait(1 - 10 * STEP)
    stream = streams.comparison.report(streams.now).streams[0]
    assert stream.events_per_second == pytest.approx(10, abs=1)
    assert stream.bytes_per_second > 1000


def test_the_json_has_the_figures_the_faults_and_the_exit_code() -> None:
    streams = Streams()
    streams.sides[0].gaps = 1
    told = as_json(streams.comparison.report(streams.now), is_final=True)
    assert (told["final"], told["exit_code"], told["verdict"]) == (True, 3, "They differ.")
    gap = {"name": "gap", "words": "tells 1 gap: it may have lost events"}
    assert [list(stream["faults"]) for stream in told["streams"]] == [[gap], []]
    assert told["pairs"] == 100
