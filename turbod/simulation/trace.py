"""Traffic computed beforehand: a file of events, one a line, as a v1 host prints them."""

from collections.abc import Iterator
from pathlib import Path

from turbod.simulation.network import Network

_FIRST_US = 1_790_000_000_000_000


def events(*, seconds: float, rate: float, network: Network | None = None) -> Iterator[bytes]:
    """Let `seconds` pass with `rate` events in each; the same network gives the same bytes."""
    network = network or Network(now_us=_FIRST_US)
    for place in range(int(seconds * rate)):
        yield network.next_event(_FIRST_US + int(place * 1_000_000 / rate)).message()


def record(path: Path, seconds: float, rate: float, *, network: Network | None = None) -> int:
    """Write such events to a file; return how many. `Simulation.feed` takes the lines again."""
    count = 0
    with path.open("wb") as file:
        for event in events(seconds=seconds, rate=rate, network=network):
            file.write(event + b"\n")
            count += 1
    return count
