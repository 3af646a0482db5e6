"""Several servers of the same events: nothing twice, nothing lost that two of them have."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio

from tests.acceptance import process
from tests.client.programs import Program, running, until
from tests.client.servers import Door, behaving, door_of, say
from tests.server.harness import Harness, did, notice, post, serving
from turbod.backoff import Backoff
from turbod.client import Record, Refused, reading
from turbod.client import stream as stream_module
from turbod.client.known import Known
from turbod.cursor import SECOND_US
from turbod.simulation.world import Simulation, simulated

LONG_AGO = 1_795_000_000_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(
        stream_module, "Backoff", lambda **_: Backoff(first_seconds=0.05, longest_seconds=0.1)
    )


class Two:
    """Two servers, each behind a door."""

    def __init__(self, harnesses: list[Harness], doors: list[Door]) -> None:
        self.harnesses = harnesses
        self.doors = doors
        self._numbers: Iterator[int] = count()

    @property
    def urls(self) -> list[str]:
        return [door.url for door in self.doors]

    async def publish(self, times: int, *, only: int | None = None) -> None:
        """Let both have the same events, with cursors of their own, or only one."""
        for _ in range(times):
            number = next(self._numbers)
            message = post(number, author=did(number % 97))
            for index, harness in enumerate(self.harnesses):
                if only in {None, index}:
                    await harness.publish(message)


@asynccontextmanager
async def two_servers(tmp_path: Path) -> AsyncIterator[Two]:
    async with (
        serving(tmp_path / "one") as one,
        serving(tmp_path / "two") as two,
        door_of(one.port) as door_one,
        door_of(two.port) as door_two,
    ):
        yield Two([one, two], [door_one, door_two])


def expected(number: int) -> list[str]:
    return [f"k{n}" for n in range(number)]


async def test_the_other_goes_on_where_one_ends_with_no_event_twice(tmp_path: Path) -> None:
    """To and fro, many times."""
    async with two_servers(tmp_path) as two, running(two.urls, cursor=LONG_AGO) as program:
        for turn in range(1, 9):
            await two.publish(10)
            await until(lambda turn=turn: len(program.keys) >= 10 * turn)  # type: ignore[misc]
            two.doors[turn % 2].cut()
            two.doors[(turn + 1) % 2].cut()
        await two.publish(10)
        await until(lambda: len(program.keys) >= 90)
        assert program.keys == expected(90)
        assert {status.server for status in program.statuses if not status.is_stuck} == {
            f"{url}/turbostream" for url in two.urls
        }


async def test_what_the_first_had_not_yet_got_comes_from_the_second(tmp_path: Path) -> None:
    """Within the slop, though its cursors there lie before the position on the first."""
    async with two_servers(tmp_path) as two, running(two.urls, cursor=LONG_AGO) as program:
        await two.publish(5)
        await two.publish(5, only=1)
        await two.publish(5)
        await until(lambda: len(program.keys) == 10)
        assert program.cursor.endswith(f"@{two.urls[0]}/turbostream")
        two.doors[0].close()
        await until(lambda: len(program.keys) == 15)
        assert sorted(program.keys) == sorted(expected(15))
        assert program.cursor.endswith(f"@{two.urls[1]}/turbostream")


async def test_it_stays_with_a_server_that_works(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as two, running(two.urls) as program:
        await until(lambda: bool(program.statuses))
        two.doors[0].close()
        await until(lambda: len(program.statuses) == 3)
        two.doors[0].is_open = True
        await two.publish(3)
        await until(lambda: len(program.keys) == 3)
        await trio.sleep(0.5)
        assert not two.harnesses[0].server._connections.subscribers
        assert len(two.harnesses[1].server._connections.subscribers) == 1


async def test_a_saved_cursor_is_of_the_server_that_it_names(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as two:
        await two.publish(10)
        async with running(two.urls, cursor=LONG_AGO) as program:
            await until(lambda: len(program.keys) == 10)
            two.doors[0].close()
            await two.publish(1)
            await until(lambda: len(program.keys) == 11)
            await until(lambda: program.cursor.endswith(f"@{two.urls[1]}/turbostream"))
            saved = program.cursor
        two.doors[0].is_open = True
        await two.publish(5)
        async with running(two.urls, cursor=saved) as program:
            await until(lambda: len(program.keys) == 5)
            assert program.keys == expected(16)[11:]
            assert [status.server for status in program.statuses] == [f"{two.urls[1]}/turbostream"]


async def test_a_saved_cursor_of_a_server_that_is_given_no_more_is_rewound(
    tmp_path: Path,
) -> None:
    """So that nothing is lost; what is within the slop comes again."""
    async with two_servers(tmp_path) as two:
        await two.publish(10)
        saved = f"{two.harnesses[0].log.head}@{two.urls[0]}/turbostream"
        async with running(two.urls[1:], cursor=saved, slop_seconds=3600) as program:
            await until(lambda: len(program.keys) == 10)
            assert program.keys == expected(10)


async def test_a_server_that_gets_nothing_is_left_for_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr("turbod.server.voice.HEARTBEAT_SECONDS", 0.05)
    async with two_servers(tmp_path) as two:
        await two.publish(1)
        two.harnesses[0].upstream = "stalled"
        async with running(two.urls, cursor=LONG_AGO) as program:
            await two.publish(1, only=1)
            await until(lambda: program.keys == expected(2))
            assert [status.is_stuck for status in program.statuses][-1:] == [False]


async def test_a_server_that_refuses_for_good_is_left_out_while_another_does_not(
    tmp_path: Path,
) -> None:
    async with (
        two_servers(tmp_path) as two,
        behaving(partial(say, b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")) as port,
    ):
        refusing = f"ws://127.0.0.1:{port}"
        async with running([two.urls[0], refusing], cursor=LONG_AGO) as program:
            for turn in range(1, 4):
                await two.publish(1)
                await until(lambda turn=turn: program.keys == expected(turn))  # type: ignore[misc]
                two.doors[0].cut()
        assert [one.server for one in program.statuses if "401" in one.words] == [
            f"{refusing}/turbostream"
        ]
        with trio.fail_after(5), pytest.raises(Refused, match="401"):
            await Program().run([refusing, refusing.replace("ws:", "http:")])


async def test_a_server_that_falls_silent_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "SILENCE_SECONDS", 0.5)
    async with two_servers(tmp_path) as two, running(two.urls, cursor=LONG_AGO) as program:
        await two.publish(2)
        await until(lambda: len(program.keys) == 2)
        two.doors[0].is_silent = True
        await two.publish(2)
        await until(lambda: program.keys == expected(4))


async def test_notices_are_recognised_too(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as two:
        for harness in two.harnesses:
            await harness.publish(*(notice(n, "account", author=did(n)) for n in range(5)))
        async with running(two.urls, cursor=LONG_AGO) as program:
            await until(lambda: len(program.lines) == 5)
            two.doors[0].close()
            await two.publish(1)
            await until(lambda: len(program.keys) == 1)
            assert len(program.lines) == 6


def test_what_is_known_is_kept_for_its_span_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Known(10 * SECOND_US)
    for second in range(1000):
        assert known.add(("x", str(second)), second * SECOND_US)
        assert not known.add(("x", str(max(second - 10, 0))), second * SECOND_US)
        assert len(known._newer) + len(known._older) <= 44
    monkeypatch.setattr("turbod.client.known.MAX_KEPT", 100)
    for number in range(1000):
        assert known.add(("y", str(number)), 1000 * SECOND_US)
        assert len(known._newer) + len(known._older) <= 100


# Real servers on one simulated network ----------------------------------------------------------


@asynccontextmanager
async def real_servers(
    simulation: Simulation, tmp_path: Path
) -> AsyncIterator[tuple[process.Turbod, process.Turbod]]:
    async with (
        process.serving(simulation, tmp_path / "one") as one,
        process.serving(simulation, tmp_path / "two") as two,
    ):
        yield one, two


def keys_of(program: Program) -> list[tuple[str | None, ...]]:
    return [item.key for item in program.items if isinstance(item, Record)]


@pytest.mark.slow
async def test_two_turbods_killed_in_turn_give_every_event_once(tmp_path: Path) -> None:
    """Each reads one network by itself, so their cursors differ; each is killed and comes back."""
    async with (
        simulated(rate=150, accounts=300) as simulation,
        real_servers(simulation, tmp_path) as turbods,
    ):
        urls = [f"ws://127.0.0.1:{turbod.port}" for turbod in turbods]
        async with running(urls, cursor=LONG_AGO) as program:
            for turn in range(4):
                await trio.sleep(1.5)
                turbod = turbods[turn % 2]
                await turbod.kill()
                await trio.sleep(1)
                await turbod.start()
            simulation.rate = 0
            await trio.sleep(3)
            got = keys_of(program)
        async with running(urls[0], cursor=LONG_AGO) as plain:
            await until(lambda: len(plain.lines) >= len(got), seconds=10)
            await trio.sleep(1)
    assert len(got) == len(set(got)), "nothing twice"
    assert set(got) >= set(keys_of(plain))
    assert len(got) > 500
    # A log that is younger than the slop says that it begins later than it was asked for.
    assert all("older than what is retained" in gap.message for gap in program.gaps)
