"""Every figure on /metrics agrees with a count that turbod has no part in."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import disk_usage
from typing import Any

import pytest
import trio
from websockets.sync.client import ClientConnection, connect

from tests.acceptance.archive_faults import racing
from tests.acceptance.plain_scan import logged
from tests.acceptance.process import Turbod, serving
from tests.acceptance.scrape import Scrape, scrape
from tests.acceptance.settling import settled
from turbod.simulation.questions import POSTS, PROFILES
from turbod.simulation.world import Simulation, simulated

QUIET_SECONDS = 1.5
SMALL, MIDDLE = 126, 65_536
POSTS_ONLY = "wantedCollections=app.bsky.feed.post"


class Counting:
    """A client that counts what it gets: the websockets package's, no line of ours in it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.messages = self.bytes = self.records = 0

    def read(self) -> None:
        """Read until it is quiet; blocks."""
        with suppress(TimeoutError):
            while True:
                text = self._connection.recv(timeout=QUIET_SECONDS)
                assert isinstance(text, str)
                size = len(text.encode())
                self.messages += 1
                self.bytes += size + (2 if size < SMALL else 4 if size < MIDDLE else 10)
                self.records += len(json.loads(text)) if text.startswith("[") else 0


@contextmanager
def counting(port: int, query: str) -> Iterator[Counting]:
    url = f"ws://127.0.0.1:{port}/turbostream?{query}"
    with connect(url, max_size=None, compression=None) as connection:
        yield Counting(connection)


async def read_all(clients: list[Counting]) -> None:
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(trio.to_thread.run_sync, client.read)


def check_upstream(seen: Scrape, simulation: Simulation, log: list[dict[str, Any]]) -> None:
    for host in simulation.jetstreams:
        assert seen("turbod_upstream_events_total", host=host.url) == host.messages_sent
        assert seen("turbod_upstream_connects_total", host=host.url) == len(host.connects)
        assert seen("turbod_upstream_host_state", host=host.url, state="live") == 1
        assert 0 <= seen("turbod_upstream_lag_seconds", host=host.url) < 60
    kinds = Counter(record["message"]["kind"] for record in log)
    for kind in ("commit", "identity", "account"):
        assert seen("turbod_events_total", kind=kind, outcome="logged") == kinds[kind]
    fates = {
        fate: seen("turbod_upstream_events_total", fate=fate)
        for fate in ("accepted", "cache_only", "duplicate")
    }
    assert fates["accepted"] == len(log)
    assert fates["cache_only"] == seen("turbod_events_total", outcome="cache_only") > 0
    assert fates["duplicate"] == fates["accepted"] + fates["cache_only"]  # of two hosts
    assert seen("turbod_upstream_gaps_total") == 0


def check_hydration(seen: Scrape, simulation: Simulation, log: list[dict[str, Any]]) -> None:
    asked = simulation.appview.statistics
    for path, kind in ((PROFILES, "profiles"), (POSTS, "posts")):
        outcomes = {name: count for (where, name), count in asked.outcomes.items() if where == path}
        assert seen("turbod_appview_calls_total", kind=kind) == sum(outcomes.values())
        assert seen("turbod_appview_calls_total", kind=kind, result="ok") == outcomes["200"]
        assert seen("turbod_appview_call_seconds_count", kind=kind) == sum(outcomes.values())
    assert seen("turbod_appview_asked_items_total") == sum(asked.items.values())
    for name in ("unresolved", "from_stream"):
        views = sum(len(record["hydrated_metadata"].get(name, ())) for record in log)
        assert seen(f"turbod_views_{name}_total") == views, name
    found = seen("turbod_appview_items_total", outcome="found")
    assert 0 < seen("turbod_views_total", source="appview") <= found
    assert seen("turbod_hydration_seconds_count") == len(log)
    assert seen("turbod_waiting_events") == seen("turbod_waiting_bytes") == 0


def check_log(seen: Scrape, turbod: Turbod, log: list[dict[str, Any]]) -> None:
    assert seen("turbod_log_records_total") == seen("turbod_records_total") == len(log)
    assert seen("turbod_log_commit_seconds_count") == len(log)
    assert seen("turbod_log_store_seconds_count") == seen("turbod_log_stores_total") > 0
    assert seen("turbod_log_head") == log[-1]["cursor"]
    files = (turbod.data / "live").glob("*.jsonl")
    assert seen("turbod_log_disk_bytes") == sum(file.stat().st_size for file in files)
    assert 0 < seen("turbod_lag_seconds") < 60
    assert seen("turbod_behind_upstream_seconds") == 0


def check_clients(seen: Scrape, clients: list[Counting]) -> None:
    for unit in ("messages", "records", "bytes"):
        counted = sum(getattr(client, unit) for client in clients)
        assert seen(f"turbod_{unit}_sent_total") == counted, unit
    assert seen("turbod_subscribers") == len(clients)
    assert seen("turbod_connections") == len(clients) + 1  # and who asks for the metrics
    assert seen("turbod_subscribers_behind", seconds="10") == 0
    assert seen("turbod_delivery_seconds_count") > 0
    assert seen("turbod_delivery_seconds_bucket", le="10.0") == seen(
        "turbod_delivery_seconds_count"
    )


def check_process(seen: Scrape, turbod: Turbod, resident_bytes: int) -> None:
    assert seen("turbod_resident_bytes") == pytest.approx(resident_bytes, rel=0.05)
    folder = Path(f"/proc/{turbod.process.pid}/fd")
    files = seen("turbod_bound_used_items", what="open_files")
    assert abs(files - len(list(folder.iterdir()))) <= 2  # who asks, and the folder itself
    assert seen("turbod_hearts") >= 10
    assert seen("turbod_event_loop_lag_seconds_count") > 4
    assert seen("turbod_event_loop_lag_seconds_bucket", le="1.0") > 4


@pytest.mark.timeout(90)
async def test_figures_agree_with_what_the_others_count(tmp_path: Path) -> None:
    """Hosts, AppView, files and clients count for themselves, through calls that fail as well."""
    async with (
        simulated(seed=71, hosts=2) as simulation,
        serving(simulation, tmp_path / "data", options={"hydration-deadline-seconds": 2}) as turbod,
    ):
        with ExitStack() as stack:
            queries = ("", "", POSTS_ONLY)
            clients = [stack.enter_context(counting(turbod.port, query)) for query in queries]
            for share in (0.0, 0.4, 0.0):
                simulation.appview.fail(share)
                for _ in range(10):
                    simulation.emit(40)
                    await trio.sleep(0.05)
            await settled(simulation, turbod.data)
            await read_all(clients)
            for _ in range(3):
                assert (await turbod.get("/nothing"))[0] == 404
            assert (await turbod.get("/turbostream"))[0] == 426
            seen = await scrape(turbod)
            check_process(seen, turbod, await turbod.resident_bytes())
        log = [json.loads(line) for line in logged(turbod.data)]
        check_upstream(seen, simulation, log)
        check_hydration(seen, simulation, log)
        check_log(seen, turbod, log)
        check_clients(seen, clients)
        assert seen("turbod_refused_total", error="NotFound") == 3
        assert seen("turbod_refused_total") == 4


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_figures_of_the_archive_agree_with_its_folder(tmp_path: Path) -> None:
    """Hours by where they are, their bytes, how often each was sealed and stored."""
    async with racing(tmp_path) as race:
        await race.hours(5)
        await race.stored()
        seen = await scrape(race.turbod)
        data = race.turbod.data
        objects = list((data / "archive").rglob("*.zst"))
        here = list((data / "verified").glob("*.zst"))
        plain = [path for path in (data / "live").glob("*.jsonl") if ".gaps" not in path.name]
    assert len(objects) == len(here) == 4
    for place, count in {"stored": 4, "verified": 4, "waiting": 0, "plain": 0}.items():
        assert seen("turbod_archive_objects", place=place) == count, place
    size = sum(path.stat().st_size for path in objects)
    for place in ("stored", "verified"):
        assert seen("turbod_archive_bytes", place=place) == size
    for name in ("sealed", "uploaded"):
        assert seen(f"turbod_archive_{name}_total") == 4
        assert seen(f"turbod_archive_{name}_bytes_total") == size
    assert seen("turbod_archive_seal_seconds_count") == 4
    assert seen("turbod_archive_upload_seconds_count") == 4
    on_disk = size + sum(path.stat().st_size for path in plain)
    assert seen("turbod_bound_used_bytes", what="log_disk") == on_disk
    assert seen("turbod_archive_oldest_waiting_seconds") == 0
    assert seen("turbod_archive_state", state="ok") == 1
    assert seen("turbod_disk_free_bytes") == pytest.approx(disk_usage(tmp_path).free, rel=0.2)
