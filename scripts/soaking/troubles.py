"""What goes wrong while events go by: each begins, lasts some seconds and is over."""

import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from soaking.stage import Stage
from tests.acceptance.test_chaos_kill import tear
from turbod.simulation.jetstream_host import JetstreamHost

Trouble = Callable[[Stage, random.Random], Awaitable[None]]
LEFT_BYTES: Final = 300_000
DROPPED: Final = 0.5  # the share of faulty hosts that cut their connections first
TORN: Final = 0.7  # of deaths that leave half a write behind
NONSENSE: Final = ('collections = ["', "[server]\nmax_connections = 0\n", "\0")
RELOADS: Final = (
    "[log]\nmemory_bytes = 20_000_000\n",
    "[cache]\npost_seconds = 600\n[hydration]\nconcurrent_calls = 4\n",
    "[server]\nmax_connections = 500\n",
    "",
)
HOST_FAULTS: Final[dict[str, dict[str, object]]] = {
    "host_silent": {"silent": True},
    "host_dead": {"dead": True},
    "host_lags": {"lag_seconds": 2.0},
    "host_blind": {"blind_fraction": 0.2},
    "host_repeats": {"repeat_seconds": 3.0},
    "host_talks_nonsense": {"poison_every": 50},
    "host_breaks_frames": {"break_every": 2000},
    "host_refuses": {"refuse_status": 503},
    "host_hangs_up": {"hang_up": True},
}
# A blind host's events come from the other, maybe behind later ones of the same account.
DISORDERLY: Final = frozenset({"host_blind"})
# While the AppView is not itself, views may be left out.
UNRESOLVED: Final = frozenset({"appview_down", "appview_fails", "appview_slow", "appview_refuses"})


def _host_fault(faults: dict[str, object]) -> Trouble:
    async def trouble(stage: Stage, dice: random.Random) -> None:
        host = dice.choice(stage.simulation.jetstreams)
        with _faulty(host, faults):
            if dice.random() < DROPPED or "refuse_status" in faults or "hang_up" in faults:
                host.drop_connections()
            await trio.sleep(dice.uniform(1, 4))

    return trouble


@contextmanager
def _faulty(host: JetstreamHost, faults: dict[str, object]) -> Iterator[None]:
    before = {name: getattr(host.faults, name) for name in faults}
    for name, value in faults.items():
        setattr(host.faults, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(host.faults, name, value)


async def host_down(stage: Stage, dice: random.Random) -> None:
    """A host is gone for a while."""
    host = dice.choice(stage.simulation.jetstreams)
    host.go_down()
    await trio.sleep(dice.uniform(1, 4))
    host.come_up()


async def hosts_drop(stage: Stage, dice: random.Random) -> None:
    """Both cut all connections, at once."""
    for _ in range(dice.randrange(1, 4)):
        for host in stage.simulation.jetstreams:
            host.drop_connections()
        await trio.sleep(dice.uniform(0.2, 1))


async def appview_fails(stage: Stage, dice: random.Random) -> None:
    """A third of its answers are none."""
    stage.simulation.appview.fail(0.3)
    await trio.sleep(dice.uniform(1, 4))
    stage.simulation.appview.fail(0)


async def appview_down(stage: Stage, dice: random.Random) -> None:
    """It cannot be reached, now and then for longer than it is waited for."""
    stage.simulation.appview.go_down()
    await trio.sleep(dice.choice((2.0, 7.0)))
    stage.simulation.appview.come_up()


async def appview_slow(stage: Stage, dice: random.Random) -> None:
    """It takes a second for each answer."""
    stage.simulation.appview.latency_seconds = 1.0
    await trio.sleep(dice.uniform(1, 4))
    stage.simulation.appview.latency_seconds = 0.0


async def appview_refuses(stage: Stage, dice: random.Random) -> None:
    """It allows few calls, and says so."""
    stage.simulation.appview.budget = (20, 1.0)
    await trio.sleep(dice.uniform(1, 4))
    stage.simulation.appview.budget = None


async def store_down(stage: Stage, dice: random.Random) -> None:
    """The bucket cannot be reached."""
    stage.proxy.go_down()
    await trio.sleep(dice.uniform(2, 6))
    stage.proxy.come_up()


async def store_refuses(stage: Stage, dice: random.Random) -> None:
    """The bucket says that it is busy."""
    stage.proxy.answer = (503, "SlowDown")
    await trio.sleep(dice.uniform(2, 6))
    stage.proxy.be_good()


async def store_loses_answers(stage: Stage, dice: random.Random) -> None:
    """The bucket takes what it is given and does not say so."""
    stage.proxy.loses_answers = True
    await trio.sleep(dice.uniform(2, 6))
    stage.proxy.be_good()


async def store_breaks_off(stage: Stage, dice: random.Random) -> None:
    """The bucket takes the beginning of everything."""
    stage.proxy.takes_bytes = 5000
    await trio.sleep(dice.uniform(2, 6))
    stage.proxy.be_good()


async def reloaded(stage: Stage, dice: random.Random) -> None:
    """Settings change; now and then to what is none."""
    for text in (dice.choice(RELOADS), dice.choice(NONSENSE), RELOADS[-1]):
        stage.settings_file.write_text(text)
        stage.turbod.process.send_signal(signal.SIGHUP)
        await trio.sleep(dice.uniform(0.2, 1))


async def disk_full(stage: Stage, dice: random.Random) -> None:
    """There is no room for the log."""
    ballast = stage.turbod.data / "ballast"
    await trio.to_thread.run_sync(_fill, ballast)
    await trio.sleep(dice.uniform(2, 5))
    ballast.unlink()


def _fill(ballast: Path) -> None:
    """Take what is free but a little; turbod writes meanwhile, so that it may be less."""
    disk = os.statvfs(ballast.parent)
    with ballast.open("wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - LEFT_BYTES)


async def killed(stage: Stage, dice: random.Random) -> None:
    """SIGKILL, whatever it is doing, and what a power cut may leave behind the log."""
    for _ in range(dice.randrange(1, 4)):
        await trio.sleep(dice.uniform(0.1, 2))
        await stage.turbod.kill()
        if dice.random() < TORN:
            tear(stage.turbod.data, dice)
        await stage.turbod.start()


async def stopped(stage: Stage, dice: random.Random) -> None:
    """SIGTERM: it says goodbye, ends with 0, and goes on where it was."""
    await trio.sleep(dice.uniform(0.1, 2))
    code = await stage.turbod.stop()
    if code:
        stage.ledger.complain(f"SIGTERM ended it with {code}")
    await stage.turbod.start()


HOSTS: Final[dict[str, Trouble]] = {
    **{name: _host_fault(faults) for name, faults in HOST_FAULTS.items()},
    "host_down": host_down,
    "hosts_drop": hosts_drop,
}
OTHERS: Final[dict[str, Trouble]] = {
    trouble.__name__: trouble
    for trouble in (
        *(appview_fails, appview_down, appview_slow, appview_refuses),
        *(store_down, store_refuses, store_loses_answers, store_breaks_off),
        *(reloaded, disk_full),
    )
}
DEATHS: Final[dict[str, Trouble]] = {"killed": killed, "stopped": stopped}
TROUBLES: Final = HOSTS | OTHERS | DEATHS


def plan(dice: random.Random, hours: int, *, lethal: bool, can_fill: bool) -> list[list[str]]:
    """Return the troubles of each hour: every one of a kind before any of it comes again.

    There is one with a host in each, and one elsewhere. Never with both hosts for longer than
    they remember: what neither has is lost, and that is another promise.
    """
    others = [name for name in OTHERS if can_fill or name != "disk_full"]
    kinds = [list(HOSTS), others, *([["killed", "killed", "stopped"]] if lethal else [])]
    return [list(each) for each in zip(*(_bag(dice, kind, hours) for kind in kinds), strict=True)]


def _bag(dice: random.Random, names: list[str], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        found += dice.sample(names, len(names))
    return found[:count]
