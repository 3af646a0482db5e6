"""Captured networks through the whole daemon: every record is what the plain model says."""

import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.acceptance.model import Json, Views, Wanted, World, at_uri, built_post, line, wanted
from tests.acceptance.plain_scan import logged
from tests.acceptance.plain_subscriber import subscribed
from tests.acceptance.process import Turbod, serving
from turbod.simulation.world import Simulation, simulated

EVERYTHING = ("app.bsky.*", "com.atproto.*", "fm.teal.alpha.*")
PATIENCE_SECONDS = 30.0
# A view fetched right after a change may still be the old one, so turbod asks again after 30 s.
SURELY_AT_HAND_SECONDS = 20.0
PAGE_RECORDS = 500
OPTIONS = {"hydration-calls-per-second": 1000}


@asynccontextmanager
async def replaying(
    folder: Path,
    *,
    hosts: int,
    answers: dict[str, bytes],
    program: Sequence[str] = ("-m", "turbod"),
) -> AsyncIterator[tuple[Simulation, Turbod]]:
    """Run turbod on silent hosts; what is fed to them is the first that they send."""
    async with (
        simulated(accounts=2, hosts=hosts, answers=answers) as simulation,
        serving(
            simulation,
            folder / "data",
            collections=EVERYTHING,
            options=OPTIONS,
            program=program,
        ) as turbod,
    ):
        with trio.fail_after(PATIENCE_SECONDS):
            while not all(host.connects for host in simulation.jetstreams):  # noqa: ASYNC110 - hosts tell nobody
                await trio.sleep(0.01)
        yield simulation, turbod
        assert await turbod.stop() == 0


async def every_record(turbod: Turbod) -> list[bytes]:
    """Return everything retained, page by page from the oldest on."""
    lines: list[bytes] = []
    cursor = 0
    while True:
        status, body = await turbod.get(f"/records?cursor={cursor}&limit={PAGE_RECORDS}")
        assert status == 200
        if not body:
            return lines
        lines += body.removesuffix(b"\n").split(b"\n")
        cursor = json.loads(lines[-1])["cursor"]


def message_of(record: bytes) -> bytes:
    """Return the upstream's event in a record, as its bytes."""
    start = record.index(b',"message":') + len(b',"message":')
    return record[start : record.index(b',"hydrated_metadata":{"user":', start)]


def check_cursors(records: Sequence[Json]) -> None:
    """Cursors strictly rise, and have 16 digits."""
    cursors = [record["cursor"] for record in records]
    assert all(before < after for before, after in itertools.pairwise(cursors))
    assert all(len(str(cursor)) == 16 for cursor in cursors)


def check_order(records: Iterable[bytes], messages: Iterable[bytes]) -> None:
    """Every event is there once, and those of one DID are in the order of the stream."""
    assert by_did(map(message_of, records)) == by_did(messages)


def by_did(messages: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Return the events of each DID, in their order."""
    ordered = defaultdict(list)
    for message in messages:
        ordered[json.loads(message)["did"]].append(message)
    return ordered


def difference(index: int, got: bytes, expected: bytes) -> str:
    """Say where a record differs from the one expected."""
    place = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), -1)
    around = slice(max(place - 80, 0), place + 200)
    return f"record {index} at byte {place}:\n got {got[around]!r}\nwant {expected[around]!r}"


# One group of events at a time, so that every record is determined to the byte.


def groups(events: Sequence[Json]) -> Iterator[list[int]]:
    """Cut the stream where an event's record depends on what came before it being complete.

    Creates and updates ask for what they show; the answers depend on nothing but what is gone.
    Deletes, identity and account events change that, show only what is at hand, and ask nothing.
    A change of a profile is alone where that profile may be under way at the same time.
    """
    group: list[int] = []
    asking: set[str] = set()
    only_cache = False
    for index, event in enumerate(events):
        want = wanted(event)
        is_of_this_group = want.from_cache_only == only_cache
        changes_profile = event.get("commit", {}).get("collection", "").count("actor") > 0
        if group and (not is_of_this_group or (changes_profile and event["did"] in asking)):
            yield group
            group, asking = [], set()
        only_cache = want.from_cache_only
        group.append(index)
        asking |= set(want.named())
    yield group


class Oracle:
    """What each record must be, in the order of the stream."""

    def __init__(self, views: Views) -> None:
        self._world = World(views)

    def check(self, index: int, event: Json, message: bytes, got: bytes) -> None:
        """Compare a record with the model, byte for byte."""
        world, want, record = self._world, wanted(event), json.loads(got)
        world.see(event)
        shown = {key: world.show(key) for key in want.named()}
        user = record["hydrated_metadata"]["user"]
        if want.from_cache_only and not self._must_show(want, user):
            shown[want.user] = None
        hydrated_us = record["hydrated_metadata"].get("hydrated_us")
        expected = line(message, shown.get, cursor=record["cursor"], hydrated_us=hydrated_us)
        assert got == expected, difference(index, got, expected)
        if not want.from_cache_only:
            for key in want.named():
                if key.startswith("did:") and world.show(key):
                    world.at_hand.setdefault(key, time.monotonic())

    def _must_show(self, want: Wanted, user: Json | None) -> bool:
        since = self._world.at_hand.get(want.user)
        if since is None:
            return False
        return user is not None or time.monotonic() - since < SURELY_AT_HAND_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_record_of_a_captured_network_is_what_the_plain_model_says(
    captures: Path, tmp_path: Path
) -> None:
    messages = (captures / "network-1/events.jsonl").read_bytes().splitlines()
    events: list[Json] = [json.loads(message) for message in messages]
    views = Views.captured(captures / "network-1")
    oracle = Oracle(views)
    began_us = time.time_ns() // 1000
    async with replaying(tmp_path, hosts=1, answers=views.bytes) as (simulation, turbod):
        host = simulation.jetstreams[0]
        host.faults.hold = True
        simulation.feed(messages)
        with subscribed(turbod.port) as subscriber:
            for group in groups(events):
                host.release(len(group))
                await subscriber.read_until(group[-1] + 1)
                by_message = {message_of(got): got for got in subscriber.lines[group[0] :]}
                for index in group:
                    got = by_message[messages[index]]
                    oracle.check(index, events[index], messages[index], got)
        assert await every_record(turbod) == subscriber.lines
    assert logged(tmp_path / "data") == subscriber.lines
    records = [json.loads(got) for got in subscriber.lines]
    assert len(records) == len(events)
    check_cursors(records)
    times = [r["hydrated_metadata"].get("hydrated_us", began_us) for r in records]
    assert all(began_us <= hydrated_us <= time.time_ns() // 1000 for hydrated_us in times)


# As fast as it goes: what depends on timing may be either way, all else is as strict.


def states_of(views: Views, events: Sequence[Json]) -> list[frozenset[str]]:
    """Return what is gone after each event."""
    world, states = World(views), []
    for event in events:
        world.see(event)
        states.append(world.gone)
    return states


def possible_lines(
    message: bytes,
    got: bytes,
    views: Callable[[str, frozenset[str]], bytes | None],
    states: Iterable[frozenset[str]],
    *,
    built: Collection[str] = (),
) -> set[bytes]:
    """Return each line that a record may be, if it was hydrated in one of these states."""
    record, want = json.loads(got), wanted(json.loads(message))
    choices = {key: {views(key, gone) for gone in states} for key in want.named()}
    if want.from_cache_only:
        choices[want.user].add(None)
    cursor, hydrated_us = record["cursor"], record["hydrated_metadata"].get("hydrated_us")
    lines = set()
    for shown in itertools.product(*choices.values()):
        show = dict(zip(choices, shown, strict=True)).get
        if any(show(key) for key in choices if key not in built) == (hydrated_us is not None):
            lines.add(line(message, show, cursor=cursor, hydrated_us=hydrated_us, built=built))
    return lines


@pytest.mark.parametrize("appview", ["up to date", "behind"])
async def test_at_full_speed_from_two_hosts_each_event_comes_once_in_order_and_as_it_may_be(
    captures: Path, tmp_path: Path, appview: str
) -> None:
    """Of an AppView that is behind, nothing is shown that the stream has seen go."""
    messages = (captures / "network-1/events.jsonl").read_bytes().splitlines()
    events: list[Json] = [json.loads(message) for message in messages]
    views = Views.captured(captures / "network-1")
    if appview == "behind":
        views = views.with_the_gone(events)
    states = states_of(views, events)
    async with replaying(tmp_path, hosts=2, answers=views.bytes) as (simulation, turbod):
        with subscribed(turbod.port) as subscriber:
            simulation.feed(messages)
            await subscriber.read_until(len(messages))
        assert await every_record(turbod) == subscriber.lines
        calls = simulation.appview.statistics.calls
        assert max(len(call.items) for call in calls) <= 25
        assert all(len(set(call.items)) == len(call.items) for call in calls)
    assert logged(tmp_path / "data") == subscriber.lines
    check_order(subscriber.lines, messages)
    check_cursors([json.loads(got) for got in subscriber.lines])
    place = {message: index for index, message in enumerate(messages)}
    for got in subscriber.lines:
        index = place[message_of(got)]
        possible = possible_lines(messages[index], got, views, dict.fromkeys(states[index:]))
        assert got in possible, difference(index, got, min(possible))


async def test_production_events_come_out_verbatim(captures: Path, tmp_path: Path) -> None:
    messages = (captures / "jetstream-v1/events.jsonl").read_bytes().splitlines()
    async with replaying(tmp_path, hosts=2, answers={}) as (simulation, turbod):
        with subscribed(turbod.port) as subscriber:
            simulation.feed(messages)
            await subscriber.read_until(len(messages))
        assert await every_record(turbod) == subscriber.lines
    check_order(subscriber.lines, messages)
    for index, got in enumerate(subscriber.lines):
        cursor = json.loads(got)["cursor"]
        expected = line(message_of(got), lambda _: None, cursor=cursor, hydrated_us=None)
        assert got == expected, difference(index, got, expected)


# At the time of the capture, when its posts were fresh.


def indexed_at(record: Json) -> dict[str, str]:
    """Return when each post in a record was indexed, as the server says."""
    data = record["hydrated_metadata"]
    places = ("parent_post", "reply_post", "quote_post", "subject_post")
    shown = [post for post in map(data.get, places) if post is not None]
    return {post["uri"]: post["indexedAt"] for post in shown}


async def test_posts_that_the_appview_does_not_have_yet_are_built_from_the_stream(
    captures: Path, tmp_path: Path
) -> None:
    """The AppView has the accounts and none of the posts; the clock stands at the capture's end."""
    messages = (captures / "network-1/events.jsonl").read_bytes().splitlines()
    events: list[Json] = [json.loads(message) for message in messages]
    profiles = Views((captures / "network-1/profiles.jsonl").read_bytes().splitlines())
    states = states_of(profiles, events)
    seen = {
        at_uri(event): message
        for event, message in zip(events, messages, strict=True)
        if event.get("commit", {}).get("operation") == "create"
    }
    program = ("-m", "tests.acceptance.turbod_at", str(events[-1]["time_us"]))
    async with replaying(tmp_path, hosts=2, answers=profiles.bytes, program=program) as (
        simulation,
        turbod,
    ):
        with subscribed(turbod.port) as subscriber:
            simulation.feed(messages)
            await subscriber.read_until(len(messages))
    check_order(subscriber.lines, messages)
    place = {message: index for index, message in enumerate(messages)}
    for got in subscriber.lines:
        index = place[message_of(got)]
        times = indexed_at(json.loads(got))

        def built(key: str, gone: frozenset[str], times: dict[str, str] = times) -> bytes | None:
            if key.startswith("did:"):
                return profiles(key, gone)
            author = profiles(key.split("/")[2], gone)
            if author is None or key in gone:
                return None
            return built_post(seen[key], author, indexed_at=times.get(key, "never"))

        possible = possible_lines(
            messages[index], got, built, dict.fromkeys(states[index:]), built=seen
        )
        assert got in possible, difference(index, got, min(possible))
