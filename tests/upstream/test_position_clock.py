"""Our clock says nothing about where a host's stream stands: it may have been set back."""

import json

from turbod.event import Event, parse
from turbod.upstream.gaps import Resumption, Seen
from turbod.upstream.position import Trail

NOW_US = 1_795_000_000_000_000
SECOND_US = 1_000_000


def event(number: int, *, time_us: int) -> Event:
    """Return an event of its own."""
    commit = {
        "rev": f"3k{number}",
        "operation": "delete",
        "collection": "app.bsky.feed.post",
        "rkey": f"r{number}",
    }
    message = {"did": "did:web:a.example", "time_us": time_us, "kind": "commit", "commit": commit}
    return parse(json.dumps(message).encode())


def test_a_clock_set_back_makes_no_hole_of_what_a_host_repeats() -> None:
    """Events between our clock and the anchors are repeats, not what lies beyond a hole."""
    trail = Trail(None)
    events = [event(n, time_us=NOW_US + n * SECOND_US) for n in range(300)]
    for one in events:
        trail.note(one)
    position = trail.position(NOW_US + 20 * SECOND_US)
    assert position is not None
    assert position.time_us <= NOW_US + 20 * SECOND_US
    resumption = Resumption(position, by_number=False)
    seen = [resumption.observe(one, known=True) for one in events]
    assert Seen.BEYOND not in seen[: seen.index(Seen.REPEATED)]
