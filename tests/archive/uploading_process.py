"""An archiver in a process of its own, to be killed: `... DATA LOCATION [ENDPOINT]`.

Says `opened`, uploads what waits, says `done`.
"""

import sys
from pathlib import Path

import trio

from tests.archive.archivers import Machine, until
from turbod.archive.stores.store import open_store
from turbod.archive.upload import archiver
from turbod.config import ArchiveSettings, S3Settings


async def main(data: Path, /, *places: str) -> None:
    """Upload everything."""
    archiver.FIRST_RETRY_SECONDS = archiver.LONGEST_RETRY_SECONDS = 0.05  # type: ignore[misc]
    location, *endpoints = places
    settings = ArchiveSettings(location=location)
    store = open_store(settings, S3Settings(endpoint="".join(endpoints)), data)
    machine = Machine(data, store, settings=settings)
    async with machine.running(open_seconds=20):
        print("opened", flush=True)  # noqa: T201 - what the test waits for
        await until(lambda: not machine.local.sealed(), seconds=50)
        print("done", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), *sys.argv[2:])
