"""An AppView that is down, slow, wrong or short of budget; and what must never be shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import logged
from tests.acceptance.process import serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.network import MOSTLY_POSTS
from turbod.simulation.world import simulated

POST = "app.bsky.feed.post"
TROUBLES = ("500", "502", "429", "drop", "truncated", "not_json", "wrong_shape", "empty", "silent")
MANY_DEPARTURES = {
    **MOSTLY_POSTS,
    "delete_post": 12,
    "deactivate": 2,
    "reactivate": 1,
    "take_down": 1,
    "delete_account": 0.5,
}


def metadata(line: bytes) -> dict[str, Any]:
    """Return a record's views."""
    views: dict[str, Any] = json.loads(line)["hydrated_metadata"]
    return views


def shown(value: Any) -> Iterator[str]:
    """Yield the DIDs and URIs of all views in a value: of whoever has a handle or an author."""
    if isinstance(value, list):
        for item in value:
            yield from shown(item)
    elif isinstance(value, dict):
        if value.get("notFound") or value.get("blocked") or value.get("detached"):
            return
        if "handle" in value:
            yield value["did"]
        if "author" in value:
            yield value["uri"]
        for name, item in value.items():
            if not (name in {"record", "value"} and "cid" in value):
                yield from shown(item)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_an_appview_in_every_kind_of_trouble_stops_nothing(tmp_path: Path) -> None:
    """Whatever it answers, the stream goes on: null and `unresolved` after the deadline."""
    async with (
        simulated(seed=51, mix=MOSTLY_POSTS) as simulation,
        serving(simulation, tmp_path / "data", options={"hydration-deadline-seconds": 1}) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        for trouble in TROUBLES:
            simulation.appview.failures = {trouble: 1.0}
            simulation.emit(30)
            await trio.sleep(0.5)
        simulation.appview.failures = {}
        simulation.appview.go_down()
        simulation.emit(50)
        await settled(simulation, turbod.data, seconds=15)
        last = cursor_of(logged(turbod.data)[-1])
        unresolved = sum("unresolved" in metadata(line) for line in logged(turbod.data))
        assert unresolved > 20
        simulation.appview.come_up()
        await trio.sleep(3)
        simulation.act("post", 30)
        log = await settled(simulation, turbod.data, seconds=15)
        after = [line for line in log if cursor_of(line) > last]
        assert after
        assert not any("unresolved" in metadata(line) for line in after)
        assert all(
            metadata(line)["user"]
            for line in after
            if json.loads(line)["message"]["kind"] == "commit"
        )
        await caught_up([follower], log)
        assert not follower.ends
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_short_budget_makes_intake_wait_and_leaves_nothing_unresolved(
    tmp_path: Path,
) -> None:
    """A replay with a cold cache and few calls: all hydrated, `catching_up` meanwhile."""
    options = {"hydration-deadline-seconds": 1, "hydration-max-pending-bytes": 1024 * 1024}
    async with (
        simulated(seed=52, accounts=2000, history_seconds=300, history_rate=10) as simulation,
        serving(simulation, tmp_path / "data", options=options, start=False) as turbod,
        trio.open_nursery() as nursery,
    ):
        simulation.appview.budget = (12, 2.0)
        for host in simulation.jetstreams:
            host.faults.repeat_seconds = 310
        await turbod.start()
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        states: set[str] = set()

        async def is_done() -> bool:
            states.add((await turbod.status())["upstream"])
            return "live" in states and len(states) > 1

        await until(is_done, seconds=60, what="catching up, then live")
        log = await settled(simulation, turbod.data, seconds=60)
        assert "catching_up" in states
        assert "stalled" not in states
        assert not any("unresolved" in metadata(line) for line in log)
        await caught_up([follower], log)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_what_is_gone_is_never_shown_again(tmp_path: Path) -> None:
    """No view anywhere in a record shows what was deleted or deactivated before its event."""
    excluded_file = tmp_path / "excluded"
    async with (
        simulated(
            seed=53, accounts=60, mix=MANY_DEPARTURES, indexing_delay_seconds=0.5
        ) as simulation,
        serving(
            simulation, tmp_path / "data", options={"exclude": excluded_file}, start=False
        ) as turbod,
        trio.open_nursery() as nursery,
    ):
        people = [account.did for account in simulation.network.people.accounts]
        excluded_file.write_text(f"{people[3]}  # asked for it\n")
        simulation.appview.latency_seconds = 0.05
        await turbod.start()
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(follower.connected.is_set, seconds=10, what="connected")
        simulation.rate = 100
        await trio.sleep(6)
        simulation.rate = 0
        await trio.sleep(2)
        assert check_departures(logged(turbod.data)) > 10
        seen = {did for line in follower.lines for did in shown(metadata(line))}
        assert people[3] not in seen
        assert not any(json.loads(line)["did"] == people[3] for line in follower.lines)
        # The list changes: what is older is served without those who are on it now.
        assert people[1] in seen
        excluded_file.write_text("\n".join(people[1:4]))
        await trio.sleep(3)
        simulation.rate = 100
        await trio.sleep(2)
        simulation.rate = 0
        late = Follower(turbod.port)
        await nursery.start(late.run)
        await until(
            lambda: late.cursor >= follower.lines[-1].decode()[10:26], seconds=10, what="all"
        )
        left = {did for line in late.lines for did in shown(metadata(line))}
        assert left.isdisjoint(people[1:4])
        assert len(late.lines) > len(follower.lines) / 2
        assert not any(json.loads(line)["did"] in people[1:4] for line in late.lines)
        nursery.cancel_scope.cancel()


def check_departures(log: list[bytes]) -> int:
    """Walk the log in order and all views in it; return how many departures there were.

    An event of one account may be logged before another's that was seen earlier: only what was
    logged before is known here to have been seen before.
    """
    gone: dict[str, int] = {}
    departures = 0
    for line in log:
        record = json.loads(line)
        event, cursor = record["message"], record["cursor"]
        commit = event.get("commit", {})
        uri = record["at_uri"]
        if event["kind"] == "account":
            departures += not event["account"]["active"]
            if event["account"]["active"]:
                gone.pop(event["did"], None)
            else:
                gone[event["did"]] = cursor
        elif commit.get("collection") == POST and commit["operation"] == "delete":
            departures += 1
            gone[uri] = cursor
        for ref in shown(record["hydrated_metadata"]):
            authority = ref.split("/")[2] if ref.startswith("at:") else ref
            for name in (ref, authority):
                assert name not in gone, f"{uri} at {cursor} shows {name}, gone at {gone[name]}"
    return departures
