"""Whatever hosts do, the union of what they have is taken once, in order where one host has all.

Real sessions without sockets: hypothesis decides what each host has, how it stamps, how late it is,
when it connects and breaks, when the log is written, and when the process dies.
"""

from dataclasses import dataclass, field

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.upstream.fake_jetstream import BASE_US, POST, QUICK, SECOND, FakeLog, post
from turbod.event import Event, parse
from turbod.upstream.gaps import REORDER_US, VERDICT_SECONDS
from turbod.upstream.intake import Intake
from turbod.upstream.jetstream import Session
from turbod.upstream.position import Position, cursor_to_ask, name_of
from turbod.upstream.subscription import Subscription

EVENTS = 120
ACCOUNTS = 6
HOSTS = ("ws://one/subscribe", "ws://two/subscribe", "ws://three/subscribe")
NOW = BASE_US + 10 * EVENTS * SECOND


@dataclass
class Host:
    """What one host has, in its order: (stamp, message)."""

    history: list[tuple[int, bytes]]
    late_by: int
    next: int | None = None

    def start(self, asked: int | None, *, is_numbered: bool, clock: int) -> None:
        if asked is None:
            self.next = self.reach(clock)
        elif is_numbered:
            self.next = min(asked - 1, self.reach(clock))
        else:
            stamps = [stamp for stamp, _ in self.history]
            found = next((i for i, stamp in enumerate(stamps) if stamp >= asked), len(stamps))
            self.next = min(found, self.reach(clock))

    def reach(self, clock: int) -> int:
        """How many of its events have happened and arrived there."""
        happened = BASE_US + (clock - self.late_by) * SECOND
        return sum(1 for stamp, _ in self.history if stamp < happened)


@dataclass
class Process:
    """One life of the process: all that is lost when it dies."""

    intake: Intake
    sessions: list[Session]
    waiting: list[tuple[Event, int]] = field(default_factory=list)


class World:
    """Everything that lasts, and the current process."""

    def __init__(self, hosts: list[Host], *, is_numbered: bool) -> None:
        self.hosts = hosts
        self.is_numbered = is_numbered
        self.log = FakeLog()
        self.saved: dict[str, Position] = {}
        self.clock = 0
        self.process = self.begin()

    def begin(self) -> Process:
        process: list[Process] = []

        def take(event: Event, intake: int, logged: bool) -> None:  # noqa: FBT001 - the contract
            assert logged
            process[0].waiting.append((event, intake))

        async def room() -> None:
            raise AssertionError

        async def gap(message: str) -> None:
            raise AssertionError(message)

        urls = HOSTS[: len(self.hosts)]
        intake = Intake(
            hosts=urls,
            positions=[self.saved.get(url) for url in urls],
            subscription=Subscription((POST,)),
            limit=10_000,
            older=self.log,
            take=take,
            has_room=lambda: True,
            room=room,
            gap=gap,
            now_us=lambda: NOW,
            verdict_seconds=VERDICT_SECONDS,
        )
        fallback = Position(BASE_US - SECOND)
        if self.log.head:
            newest = self.log.records[-1][1]
            fallback = Position(
                self.log.head - 3600 * SECOND,
                latest_us=self.log.head + REORDER_US,
                anchors=(name_of(newest),),
            )
        sessions = [
            Session(
                url,
                host=n,
                settings=QUICK,
                intake=intake,
                fallback=fallback,
                now_us=lambda: NOW,
            )
            for n, url in enumerate(urls)
        ]
        process.append(Process(intake, sessions))
        return process[0]

    async def connect(self, n: int) -> None:
        host, session = self.hosts[n], self.process.sessions[n]
        if host.next is not None:
            await self.drop(n)
        position = session._position()
        assert position is not None
        asked = cursor_to_ask(position, NOW)
        host.start(asked, is_numbered=0 < asked < 10**15, clock=self.clock)
        session._opened(position)

    async def drop(self, n: int) -> None:
        if self.hosts[n].next is not None:
            self.process.sessions[n]._left()
            self.hosts[n].next = None

    async def deliver(self, n: int, count: int) -> None:
        host = self.hosts[n]
        if host.next is None:
            await self.connect(n)
        assert host.next is not None
        until = min(host.next + count, host.reach(self.clock))
        messages = [message for _, message in host.history[host.next : until]]
        host.next = until
        await self.process.sessions[n]._receive(messages)

    def write(self, picks: list[int]) -> None:
        """The log writes some of what was taken, per DID in order, and the positions are saved."""
        waiting = self.process.waiting
        for pick in picks:
            if waiting:
                did = waiting[pick % len(waiting)][0].did
                at = next(i for i, (event, _) in enumerate(waiting) if event.did == did)
                event, intake = waiting.pop(at)
                self.log.append(event, now_us=NOW)
                self.process.intake.done([intake])
        self.saved = self.process.intake.savable()

    async def crash(self) -> None:
        for host in self.hosts:
            host.next = None
        self.process = self.begin()
        await self.process.intake.remember_newest()

    async def finish(self) -> None:
        """All hosts come back and send all that they have; all of it is written."""
        self.clock = 100 * EVENTS
        for n in range(len(self.hosts)):
            await self.connect(n)
        for _ in range(EVENTS):
            for n in range(len(self.hosts)):
                await self.deliver(n, 50)
                self.process.intake.order.excuse(n)
                self.process.intake.drain()
        self.write([0] * len(self.process.waiting))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Hosts that together have everything, each its own stamps."""
    count = draw(st.integers(1, 3))
    is_numbered = draw(st.booleans())
    blind = [draw(st.sets(st.integers(0, ACCOUNTS - 1), max_size=3)) for _ in range(count)]
    blind[0] = {one for one in blind[0] if not all(one in other for other in blind)}
    tied = draw(st.integers(1, 5))  # so many neighbours share a stamp
    hosts = []
    for n in range(count):
        skew = draw(st.sampled_from([0, 1, 300_000, -700_000]))
        history: list[tuple[int, bytes]] = []
        for e in range(EVENTS):
            if e % ACCOUNTS not in blind[n]:
                stamp = BASE_US + (e // tied * tied) * SECOND + skew
                number = len(history) + 1 if is_numbered else 0
                history.append((stamp, post(e, at=stamp, account=e % ACCOUNTS, cursor=number)))
        hosts.append(Host(history, late_by=draw(st.sampled_from([0, 0, 7, 40]))))
    return World(hosts, is_numbered=is_numbered)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("deliver"), st.integers(0, 2), st.integers(1, 40)),
        st.tuples(st.just("deliver"), st.integers(0, 2), st.integers(1, 40)),
        st.tuples(st.just("pass"), st.integers(1, 60)),
        st.tuples(st.just("write"), st.lists(st.integers(0, 50), max_size=30)),
        st.tuples(st.just("excuse"), st.integers(0, 2)),
        st.tuples(st.just("crash")),
    ),
    min_size=5,
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(world=worlds(), steps=steps)
def test_the_log_holds_every_event_once_and_each_accounts_in_order(
    world: World, steps: list[tuple[object, ...]]
) -> None:
    trio.run(_play, world, steps)
    logged = [event for _, event in world.log.records]
    keys = [event.rkey for event in logged]
    assert sorted(keys) == sorted(f"r{e}" for e in range(EVENTS))
    for account in range(ACCOUNTS):
        everywhere = all(
            sum(parse(message).did == _did(account) for _, message in host.history)
            == EVENTS // ACCOUNTS
            for host in world.hosts
        )
        if everywhere:
            numbers = [int(event.rkey[1:]) for event in logged if event.did == _did(account)]
            assert numbers == sorted(numbers)


def _did(account: int) -> str:
    return parse(post(0, at=BASE_US, account=account)).did


async def _play(world: World, steps: list[tuple[object, ...]]) -> None:
    world.clock = EVENTS // 3
    await world.crash()
    for name, *arguments in steps:
        numbers = [
            n % len(world.hosts) if name != "pass" else n
            for n in arguments[:1]
            if isinstance(n, int)
        ]
        if name == "drop":
            await world.drop(numbers[0])
        elif name == "deliver" and isinstance(arguments[1], int):
            await world.deliver(numbers[0], arguments[1])
        elif name == "pass":
            world.clock += numbers[0]
        elif name == "write" and isinstance(arguments[0], list):
            world.write(arguments[0])
        elif name == "excuse":
            world.process.intake.order.excuse(numbers[0])
            world.process.intake.drain()
        elif name == "crash":
            await world.crash()
    await world.finish()
