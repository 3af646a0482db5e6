"""What the upstreams sent and what lies on disk, each read plainly, and how they differ."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard

from tests.acceptance.follower import cursor_of
from tests.acceptance.process import COLLECTIONS
from turbod.simulation.history import EVERY_HOST
from turbod.simulation.world import Simulation

Key = tuple[str, ...]
SHOWN = 5


def key_of(event: dict[str, Any]) -> Key:
    """Return what an event is recognised by, by protocol.md."""
    if event["kind"] != "commit":
        return (event["kind"], event["did"], event[event["kind"]]["time"])
    commit = event["commit"]
    names = ("collection", "rkey", "rev", "operation")
    return (event["did"], *(commit[name] for name in names), commit.get("cid", ""))


def is_wanted(event: dict[str, Any], collections: Sequence[str] = COLLECTIONS) -> bool:
    """Tell whether an event is for the log."""
    if event["kind"] != "commit":
        return True
    name = event["commit"]["collection"]
    return any(
        name.startswith(wanted[:-1]) if wanted.endswith(".*") else name == wanted
        for wanted in collections
    )


def sent(simulation: Simulation) -> list[dict[str, Any]]:
    """Return every wanted event of the network that some host has, in its order."""
    history = simulation.history
    entries = history.slice(history.first, history.end)
    messages = (
        message
        for entry, message in zip(entries, simulation.everything(), strict=True)
        if any(host.has(entry) for host in simulation.jetstreams)
    )
    return [event for event in map(json.loads, messages) if is_wanted(event)]


def missed(simulation: Simulation) -> set[Key]:
    """Return the keys of events that some host never has."""
    history = simulation.history
    entries = history.slice(history.first, history.end)
    return {
        key_of(json.loads(message))
        for entry, message in zip(entries, simulation.everything(), strict=True)
        if entry.only != EVERY_HOST or not all(host.has(entry) for host in simulation.jetstreams)
    }


def logged(data: Path) -> list[bytes]:
    """Return every whole line of the log, hours and objects alike; each cursor has one line."""
    found: dict[int, bytes] = {}
    for path in sorted(data.glob("live/*.jsonl")):
        if not path.name.endswith(".gaps.jsonl"):
            with suppress(FileNotFoundError):  # it became an object meanwhile
                _take(found, path.read_bytes())
    for path in objects(data):
        with suppress(FileNotFoundError):  # it went on to the next folder, which is looked at later
            _take(found, decompressed(path))
    return [found[cursor] for cursor in sorted(found)]


def objects(data: Path) -> list[Path]:
    """Return every object on disk: waiting, verified, and in the archive where it is a folder."""
    folders = ("sealed", "verified", "archive/dt=*/hour=*")
    return [path for folder in folders for path in sorted(data.glob(f"{folder}/[0-9]*.jsonl.zst"))]


def decompressed(path: Path) -> bytes:
    """Return an object's lines, by the library alone."""
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return reader.read()


def _take(found: dict[int, bytes], data: bytes) -> None:
    lines = data.split(b"\n")[:-1]  # behind the last break: being written
    cursors = [cursor_of(line) for line in lines]
    assert cursors == sorted(set(cursors)), "cursors in a file rise strictly"
    for cursor, line in zip(cursors, lines, strict=True):
        assert found.setdefault(cursor, line) == line, f"two records of {cursor}"


def events_of(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the upstream events in records."""
    return [json.loads(line)["message"] for line in lines]


def differences(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    """Say what is missing, what is there twice, and what nobody sent; nothing where all is well."""
    wanted = {key_of(event): event for event in expected}
    counts = Counter(map(key_of, found))
    missing = [key for key in wanted if key not in counts]
    twice = [key for key, count in counts.items() if count > 1]
    unknown = [key for key in counts if key not in wanted]
    words = []
    for name, keys in (("missing", missing), ("twice", twice), ("never sent", unknown)):
        if keys:
            examples = "\n    ".join(
                str((key, wanted.get(key, {}).get("time_us"))) for key in keys[:SHOWN]
            )
            words.append(f"{len(keys)} of {len(wanted)} {name}:\n    {examples}")
    return "\n".join(words)


def disorder(
    expected: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    *,
    excused: Callable[[Key], bool] = lambda _: False,
) -> str:
    """Say where events of one DID come in another order than the network's.

    An event that some host missed may come late (protocol.md, "rely on" 5).
    """
    place = {key_of(event): number for number, event in enumerate(expected)}
    greatest: dict[str, int] = defaultdict(lambda: -1)
    words = []
    for event in found:
        key = key_of(event)
        number = place[key]
        if number < greatest[event["did"]] and not excused(key):
            words.append(f"{key} comes late")
        greatest[event["did"]] = max(number, greatest[event["did"]])
    return "\n".join(words[:SHOWN])


def line_differences(expected: Sequence[bytes], found: Sequence[bytes]) -> str:
    """Say how two runs of records differ; nothing where they are the same bytes."""
    if list(expected) == list(found):
        return ""
    want, have = ({cursor_of(line): line for line in lines} for lines in (expected, found))
    missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    other = [cursor for cursor in want.keys() & have.keys() if want[cursor] != have[cursor]]
    return (
        f"{len(expected)} expected, {len(found)} found; missing {missing[:SHOWN]} "
        f"({len(missing)}), extra {extra[:SHOWN]} ({len(extra)}), other bytes {other[:SHOWN]}"
    )
