"""What docs/client.md shows does what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.server.harness import DID, did, post, serving
from turbod.client import Record

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "client.md"
IMPATIENT = "from turbod.client import following; following.REPORT_SECONDS = 0"


def blocks() -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text())


async def test_the_example_prints_records_and_goes_on_behind_what_it_saved(tmp_path: Path) -> None:
    example = blocks()[0]
    assert len([line for line in example.splitlines() if line]) <= 11
    async with serving(tmp_path / "data") as harness:
        program = example.replace("127.0.0.1:8080", f"127.0.0.1:{harness.port}")
        program = f"{IMPATIENT}\n{program}"
        await harness.fill(5)
        first = await printed(program, tmp_path, 5)
        await harness.fill(3)
        again = await printed(program, tmp_path, 3)
    assert [line.split()[1][-2:] for line in first + again] == [f"k{n}" for n in range(8)]


async def printed(program: str, folder: Path, count: int) -> list[str]:
    """Run it until it has printed so many lines and saved the last."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    output = b""
    try:
        with trio.fail_after(10):
            while output.count(b"\n") < count:
                output += await process.stdout.receive_some()
            cursor = output.splitlines()[-1].split()[0]
            saved = folder / "cursor"
            while not saved.exists() or saved.read_bytes() != cursor:  # noqa: ASYNC110 - a file
                await trio.sleep(0.01)
    finally:
        process.kill()
        await process.wait()
    return output.decode().splitlines()


def event(message: bytes, **commit: Any) -> Record:
    """Return a record as a client has it."""
    decoded = json.loads(message)
    decoded.get("commit", {}).update(commit)
    uri = f"at://{decoded['did']}"
    if "commit" in decoded:
        uri += f"/{decoded['commit']['collection']}/{decoded['commit']['rkey']}"
    line = {
        "cursor": 1_795_000_000_000_000,
        "at_uri": uri,
        "did": decoded["did"],
        "time_us": 1,
        "message": decoded,
        "hydrated_metadata": {},
    }
    return Record(json.dumps(line, separators=(",", ":")).encode())


def account(time: str, status: str | None) -> Record:
    payload = {"did": DID, "seq": 1, "time": time, "active": status is None}
    payload |= {"status": status} if status else {}
    return event(json.dumps({"did": DID, "kind": "account", "account": payload}).encode())


def new_fold() -> Any:
    namespace: dict[str, Any] = {}
    exec(blocks()[1], namespace)  # the page's own words
    return namespace["Fold"]()


def test_folding_applies_a_commit_only_above_the_last_rev() -> None:
    fold = new_fold()
    one = event(post(1, text="new"), rev="3b")
    fold.apply(one)
    fold.apply(event(post(1, text="late"), rev="3a"))
    assert fold.shown(one.at_uri)["text"] == "new"
    fold.apply(event(post(1, operation="delete"), rev="3d"))
    fold.apply(event(post(1, operation="update", text="late"), rev="3c"))
    assert fold.shown(one.at_uri) is None
    fold.apply(event(post(1, text="again"), rev="3e"))
    assert fold.shown(one.at_uri)["text"] == "again"


def test_folding_hides_accounts_and_drops_the_deleted() -> None:
    fold = new_fold()
    mine, other = event(post(1), rev="3a"), event(post(2, author=did(2)), rev="3a")
    fold.apply(mine)
    fold.apply(other)
    for number, status in enumerate(["deactivated", "takendown", "suspended"]):
        fold.apply(account(f"2026-11-20T0{number}:00:00Z", status))
        assert fold.shown(mine.at_uri) is None
        fold.apply(account(f"2026-11-20T0{number}:30:00Z", None))
        fold.apply(account(f"2026-11-20T0{number}:10:00Z", "deactivated"))  # late
        assert fold.shown(mine.at_uri) is not None
    fold.apply(account("2026-11-20T05:00:00Z", "deleted"))
    fold.apply(account("2026-11-20T06:00:00Z", None))
    assert fold.shown(mine.at_uri) is None
    assert fold.shown(other.at_uri) is not None
