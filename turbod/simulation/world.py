"""A whole simulated Bluesky in this process: network, Jetstream hosts, AppView, a beat."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from turbod.simulation.appview_server import AppViewServer
from turbod.simulation.happening import Happening, read_message
from turbod.simulation.history import EVERY_HOST, History, entry, verbatim_entry
from turbod.simulation.index import Index
from turbod.simulation.jetstream_host import JetstreamHost, clock_us
from turbod.simulation.network import LIKE_THE_REAL_ONE, Network

_BEAT_SECONDS = 0.01
_MOST_PER_BEAT = 500
_STAMP_STEP_US = 1_370  # two real hosts never stamp an event alike


class Simulation:
    """What `simulated` gives; everything may be changed while it runs.

    Attributes:
        rate: events a second that happen by themselves.
    """

    def __init__(
        self,
        *,
        network: Network,
        index: Index,
        history: History,
        jetstreams: Sequence[JetstreamHost],
        appview: AppViewServer,
        now_us: Callable[[], int],
    ) -> None:
        self.network = network
        self.index = index
        self.history = history
        self.jetstreams = jetstreams
        self.appview = appview
        self.rate = 0.0
        self._now_us = now_us
        self._newest_us = 0

    def emit(self, count: int = 1) -> list[bytes]:
        """Let `count` events happen now; return them as the first host's v1 form prints them."""
        emitted = [self._happen(self.network.next_event(self._now_us())) for _ in range(count)]
        self.history.wake()
        return emitted

    def act(self, name: str, count: int = 1) -> list[bytes]:
        """Let one kind of act (see `acts.ACTS`) happen `count` times now."""
        acts = [self.network.act(name, self._now_us()) for _ in range(count)]
        emitted = [self._happen(happening) for act in acts for happening in act]
        self.history.wake()
        return emitted

    def live_through(self, seconds: float, *, rate: float) -> None:
        """Let `seconds` pass in which `rate` events a second happened, ending now."""
        end_us = self._now_us()
        count = int(seconds * rate)
        for place in range(count):
            time_us = end_us - int(seconds * 1_000_000 * (count - place) / count)
            self._happen(self.network.next_event(time_us))
        self.history.wake()

    def feed(self, lines: Iterable[bytes], *, indexed: bool = False) -> None:
        """Append given messages, event or not, to be sent byte for byte by every host.

        Args:
            lines: with or without their line breaks.
            indexed: all are events, and the AppView is to know what they tell.
        """
        for line in lines:
            message = line.rstrip(b"\n")
            made = verbatim_entry(message, time_us=self._newest_us)
            self._newest_us = max(self._newest_us, made.time_us)
            self.history.append(made)
            if indexed:
                self.index.hear(read_message(message))
        self.history.wake()

    def everything(self, host: int = 0) -> list[bytes]:
        """Return all messages still in the history as one host prints them, faults apart.

        Hosts stamp differently: compare by identity, or with the host that has the stamps.
        """
        history, printer = self.history, self.jetstreams[host]
        entries = history.slice(history.first, history.end)
        return [printer.message(index, made) for index, made in enumerate(entries, history.first)]

    async def run(self) -> None:
        """Let events happen at `rate`, until cancelled."""
        owed = 0.0
        before = trio.current_time()
        while True:
            await trio.sleep(_BEAT_SECONDS)
            now = trio.current_time()
            owed = min(owed + (now - before) * self.rate, self.rate)  # a second at most
            before = now
            count = min(int(owed), _MOST_PER_BEAT)
            owed -= count
            if count:
                self.emit(count)

    def _happen(self, happening: Happening) -> bytes:
        only = EVERY_HOST
        for number, host in enumerate(self.jetstreams):
            share = host.faults.alone_fraction
            if share and self.network.people.chance() < share:
                only = number
                break
        made = entry(happening, only=only)
        self._newest_us = happening.time_us
        self.index.hear(happening)
        self.history.append(made)
        return self.jetstreams[0].message(self.history.end - 1, made)


@asynccontextmanager
async def simulated(
    *,
    network: Network | None = None,
    hosts: int = 2,
    seed: int = 1,
    accounts: int = 200,
    mix: Mapping[str, float] = LIKE_THE_REAL_ONE,
    rate: float = 0.0,
    version: str = "v1",
    port: int = 0,
    indexing_delay_seconds: float = 0.0,
    history_seconds: float = 0.0,
    history_rate: float = 20.0,
    entries_kept: int | None = None,
    posts_kept: int = 200_000,
    answers: Mapping[str, bytes] | None = None,
    now_us: Callable[[], int] = clock_us,
) -> AsyncIterator[Simulation]:
    """Run a small Bluesky on loopback for as long as the block lasts.

    Nothing happens by itself at `rate` 0: use `emit`, `act` and `feed`.

    Args:
        network: in place of a new one of `seed`, `accounts` and `mix`.
        hosts: how many Jetstream hosts.
        seed: of everything random.
        accounts: in the network.
        mix: how often each act happens, see Network.
        rate: events a second that happen by themselves.
        version: "v1", or "v2" for hosts that add `cursor` and stamp a commit's operations alike.
        port: of the first Jetstream host; the other hosts and the AppView follow; 0 for any.
        indexing_delay_seconds: median time until the AppView knows what happened.
        history_seconds: how much has happened before.
        history_rate: events a second in that time.
        entries_kept: bound of the hosts' common history, in events; None for none.
        posts_kept: the newest posts that are known; 200,000 cost some 400 MB.
        answers: the AppView knows these views (by DID and URI) and nothing else.
        now_us: the clock, in microseconds since the Unix epoch.
    """
    network = network or Network(
        seed=seed, accounts=accounts, mix=mix, posts_kept=posts_kept, now_us=now_us()
    )
    delay_us = int(indexing_delay_seconds * 1_000_000)
    index = Index(seed=seed, delay_us=delay_us, posts_kept=posts_kept)
    for account in network.people.accounts:
        index.introduce(account)
    history = History(entries_kept=entries_kept)
    jetstreams = [
        JetstreamHost(
            history,
            number,
            version=version,
            port=port and port + number,
            stamp_offset_us=number * _STAMP_STEP_US,
            now_us=now_us,
        )
        for number in range(hosts)
    ]
    appview = AppViewServer(index, seed=seed, port=port and port + hosts, now_us=now_us)
    if answers is not None:
        appview.answers, appview.only_answers = dict(answers), True
    simulation = Simulation(
        network=network,
        index=index,
        history=history,
        jetstreams=jetstreams,
        appview=appview,
        now_us=now_us,
    )
    if history_seconds:
        simulation.live_through(history_seconds, rate=history_rate)
    simulation.rate = rate
    async with trio.open_nursery() as nursery:
        for host in jetstreams:
            await nursery.start(host.run)
        await nursery.start(appview.run)
        nursery.start_soon(simulation.run)
        yield simulation
        nursery.cancel_scope.cancel()
