"""kill -9 while hours are uploaded: nothing lost, nothing twice, nothing unverified in verified."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.archive.archivers import Machine
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import S3Server
from turbod.archive.stores.folder import FolderStore

REPOSITORY = Path(__file__).parents[2]
HOURS = 40
KILLS = 12

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def run(*arguments: str, kill_after: float | None) -> str:
    """Run an archiver; kill it so long after it opened, or let it finish; return what it said."""
    command = [sys.executable, "-m", "tests.archive.uploading_process", *arguments]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY
    )
    assert process.stdout is not None
    said = b""
    async with process.stdout:
        while (data := await process.stdout.receive_some()) and b"opened" not in said + data:
            said += data
        said += data
        with trio.move_on_after(float("inf") if kill_after is None else kill_after):
            async for data in process.stdout:
                said += data
        process.kill()
        await process.wait()
    return said.decode()


class Books:
    """What there was at first, and what may never be otherwise after a kill."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.objects = {path.name: path.read_bytes() for path in (data / "sealed").iterdir()}

    def check(self, stored: dict[str, bytes]) -> int:
        """Compare; return how many objects are verified."""
        sealed, verified = (
            {path.name: path.read_bytes() for path in (self.data / folder).iterdir()}
            for folder in ("sealed", "verified")
        )
        assert not sealed.keys() & verified.keys()
        assert sealed | verified == self.objects
        assert {name: stored[name] for name in verified} == verified
        assert stored.keys() <= self.objects.keys()
        return len(verified)


async def kill_and_check(
    books: Books, arguments: list[str], stored: Callable[[], dict[str, bytes]], *, span: float
) -> list[int]:
    """Kill it again and again, then let it finish; return how far it had come each time."""
    chance = random.Random(7)
    counts = []
    for _ in range(KILLS):
        await run(*arguments, kill_after=chance.random() * span)
        counts.append(books.check(stored()))
    said = await run(*arguments, kill_after=None)
    assert "done" in said, said
    assert books.check(stored()) == len(books.objects)
    assert stored() == books.objects
    return counts


async def test_killed_while_uploading_to_a_folder(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data", FolderStore(tmp_path / "archive"))
    for hour in range(HOURS):
        machine.seal(hour)
    archive = tmp_path / "archive"

    def stored() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in archive.glob("dt=*/hour=*/*")}

    arguments = [str(machine.data), str(archive)]
    counts = await kill_and_check(Books(machine.data), arguments, stored, span=0.15)
    assert len(set(counts)) > 2, "it was killed at one place only"
    instance = (machine.data / "instance").read_text().strip()
    assert json.loads((archive / "turbod.json").read_text())["instance"] == instance


@pytest.mark.parametrize("name", ["rclone", "moto"])
async def test_killed_while_uploading_to_a_bucket(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    server = request.getfixturevalue(name)
    assert isinstance(server, S3Server)
    bucket = server.bucket()
    machine = Machine(tmp_path / "data", FolderStore(tmp_path / "none"))
    for hour in range(HOURS):
        machine.seal(hour, noise=1000)
    proxy = FaultyS3(server.port)
    proxy.only, proxy.bytes_per_second = "PUT", 200_000  # a tenth of a second an object
    client = server.client()

    def stored() -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=bucket, Prefix="archive/dt=").get("Contents", [])
        return {
            each["Key"].rpartition("/")[2]: client.get_object(Bucket=bucket, Key=each["Key"])[
                "Body"
            ].read()
            for each in listed
        }

    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        arguments = [str(machine.data), f"s3://{bucket}/archive", proxy.endpoint]
        counts = await kill_and_check(Books(machine.data), arguments, stored, span=0.8)
        nursery.cancel_scope.cancel()
    assert len(set(counts)) > 2, "it was killed at one place only"
    puts = [count for what, count in proxy.seen.items() if what.startswith("PUT") and "dt" in what]
    assert len(puts) == HOURS
    assert sum(puts) <= HOURS + KILLS, "a kill costs the upload under way and no other"
