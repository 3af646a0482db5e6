"""How long records wait until they are on disk: each counted once, none exaggerated."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.eventlog.samples import record, running
from turbod.eventlog.appender import SyncedFile
from turbod.eventlog.batch import MAX_BATCH_RECORDS

STORE_SECONDS = 0.1
BATCHES, BACKLOG = 20, 3.5


@pytest.fixture
def _slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    append = SyncedFile.append

    def append_late(file: SyncedFile, *given: Any) -> None:
        time.sleep(STORE_SECONDS)
        append(file, *given)

    monkeypatch.setattr(SyncedFile, "append", append_late)


@pytest.mark.usefixtures("_slow_disk")
async def test_each_record_waits_as_long_as_the_oldest_of_its_batch(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for number in range(2 * MAX_BATCH_RECORDS + 500):
            log.append(record(number))
        await log.flush()
        seen = log.statistics()
    assert seen.commit_seconds.count == seen.records == 2500
    assert seen.store_seconds.count == seen.stores == 3
    batches = STORE_SECONDS * (1000 * 1 + 1000 * 2 + 500 * 3)
    assert batches <= seen.commit_seconds.sum < 3 * batches
    assert seen.commit_seconds.counts[-1] == 0


@pytest.mark.usefixtures("_slow_disk")
async def test_a_backlog_that_never_ends_makes_no_record_older_than_it_is(tmp_path: Path) -> None:
    """Where there is always something left, who comes new waits no longer for that."""
    async with running(tmp_path) as log:
        began, number = trio.current_time(), 0
        while number < BATCHES * MAX_BATCH_RECORDS:
            while log.statistics().queued_records < BACKLOG * MAX_BATCH_RECORDS:
                log.append(record(number))
                number += 1
            await trio.sleep(0.01)
        await log.flush()
        seconds = trio.current_time() - began
        seen = log.statistics().commit_seconds
    assert seen.count == number
    # As old as the backlog, they would have waited for half of the time.
    assert seen.sum / seen.count < seconds / 3
