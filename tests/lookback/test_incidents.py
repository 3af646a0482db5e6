"""What went wrong is told once, with its beginning and its end."""

from turbod.lookback.incidents import KEPT, MAX_WORDS, SAME_AGAIN_US, Incidents

SECOND = 1_000_000


def test_a_fault_lasts_until_it_is_seen_no_more() -> None:
    incidents = Incidents()
    incidents.look({"appview": "away"}, now_us=1)
    incidents.look({"appview": "still away"}, now_us=2)
    (incident,) = incidents.newest_first()
    assert (incident.began, incident.ended, incident.words) == (1, None, "still away")
    incidents.look({}, now_us=3)
    incidents.look({}, now_us=4)
    assert incident.ended == 3


def test_what_comes_back_soon_is_the_same_and_later_another() -> None:
    incidents = Incidents()
    for now_us in (0, 20 * SECOND, 40 * SECOND):
        incidents.look({"host": "away"}, now_us=now_us)
        incidents.look({}, now_us=now_us + 10 * SECOND)
    (incident,) = incidents.newest_first()
    assert (incident.times, incident.began, incident.ended) == (3, 0, 50 * SECOND)
    incidents.look({"host": "away"}, now_us=50 * SECOND + SAME_AGAIN_US + 1)
    assert len(incidents) == 2


def test_a_moment_has_an_end_at_once() -> None:
    incidents = Incidents()
    incidents.happened("gap", "a gap", now_us=5)
    (incident,) = incidents.newest_first()
    assert (incident.began, incident.ended) == (5, 5)


def test_neither_their_number_nor_their_words_grow_without_end() -> None:
    incidents = Incidents()
    for number in range(2 * KEPT):
        incidents.happened(f"fault {number}", "x" * 10_000, now_us=number)
    assert len(incidents) == KEPT
    assert incidents.newest_first()[0].what == f"fault {2 * KEPT - 1}"
    assert {len(each.words) for each in incidents.newest_first()} == {MAX_WORDS}


def test_what_lasts_is_not_pushed_out_by_what_comes_and_goes() -> None:
    incidents = Incidents()
    incidents.look({"archive": "failing"}, now_us=1)
    for number in range(2 * KEPT):
        incidents.happened(f"fault {number}", "", now_us=2 + number)
    incidents.look({"archive": "failing"}, now_us=10 * KEPT)
    assert len(incidents) == KEPT
    (oldest,) = (each for each in incidents.newest_first() if each.ended is None)
    assert (oldest.what, oldest.began) == ("archive", 1)
