"""systemctl reload: what can change at run time does, and what is wrong changes nothing."""

import hashlib
import json

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import connected
from tests.acceptance.settling import caught_up, settled, until
from tests.systemd.unit import SERVICE, Unit, reading
from turbod.simulation.world import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TOKENS = "/etc/turbod/tokens.toml"
TOKEN = "turbod_" + "A" * 43


def bearer(token: str) -> str:
    """Return the header of a token."""
    return f"Authorization: Bearer {token}"


async def test_a_reload_changes_level_limits_and_tokens_under_load(unit: Unit) -> None:
    """In the same process, while a client follows, who loses nothing."""
    async with simulated(seed=51) as simulation, trio.open_nursery() as nursery:
        unit.settings(*reading(simulation))
        await unit.start()
        follower = Follower(unit.port)
        await nursery.start(follower.run)
        await connected(simulation)
        simulation.rate = 50
        await until(lambda: len(follower.lines) > 50, seconds=30, what="events")
        pid = await unit.main_pid()
        since = await unit.machine.journal_cursor()
        changed = reading(
            simulation, "[server]", "max_connections = 1", general={"log_level": "debug"}
        )
        unit.settings(*changed)
        line = await reloaded(unit, since, "reloaded")
        assert "log_level" in line
        assert "server.max_connections" in line
        assert (await unit.get("/records?limit=1"))[0] == 429, "the follower has the only place"
        assert await unit.main_pid() == pid
        simulation.rate = 0
        await caught_up([follower], await settled(simulation, unit.data))
        assert not follower.ends
        nursery.cancel_scope.cancel()


async def test_tokens_come_and_go_with_a_reload(unit: Unit) -> None:
    """Their hashes are no secret, so the file may be read by anybody, turbod included."""
    unit.machine.write(TOKENS, entry("alice", TOKEN))
    async with simulated(seed=52) as simulation:
        settings = reading(simulation, "[server]", f"tokens = {json.dumps(TOKENS)}")
        unit.settings(*settings)
        await unit.start()
        assert (await unit.get("/records?cursor=0"))[0] == 401
        assert (await unit.get("/records?cursor=0", headers=[bearer(TOKEN)]))[0] == 200
        since = await unit.machine.journal_cursor()
        other = TOKEN.replace("A", "B")
        unit.machine.write(TOKENS, entry("bob", other))
        await reloaded(unit, since, "reloaded")
        assert (await unit.get("/records?cursor=0", headers=[bearer(TOKEN)]))[0] == 401
        assert (await unit.get("/records?cursor=0", headers=[bearer(other)]))[0] == 200


async def test_a_wrong_settings_file_changes_nothing_and_says_so(unit: Unit) -> None:
    async with simulated(seed=53) as simulation:
        unit.settings(*reading(simulation))
        await unit.start()
        pid = await unit.main_pid()
        since = await unit.machine.journal_cursor()
        unit.settings(*reading(simulation, "[server]", "max_connections = 0"))
        line = await reloaded(unit, since, "reload refused")
        assert "server.max_connections" in line
        assert "expected a whole number from 1" in line
        assert (await unit.get("/readyz"))[0] == 200
        assert await unit.main_pid() == pid
        assert await unit.state() == "running"


async def reloaded(unit: Unit, since: str, words: str) -> str:
    """Reload; return the one line that says what came of it."""
    await unit.run("systemctl", "reload", SERVICE)
    lines: list[str] = []

    async def is_told() -> bool:
        lines[:] = [line for line in await unit.words(since=since) if line.startswith(words)]
        return bool(lines)

    # What kill(1) sent may be taken up after systemctl is back.
    await until(is_told, seconds=20, what=words)
    (line,) = lines
    return line


def entry(name: str, token: str) -> str:
    """Return a token's entry in the file."""
    return f'[{name}]\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
