"""The archiver over a folder: oldest first, read back, nothing overwritten, within its bounds."""

from pathlib import Path

import pytest

from tests.archive.archivers import folder_machine, until
from turbod.archive import archiver as archiver_module


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again at once."""
    monkeypatch.setattr(archiver_module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(archiver_module, "LONGEST_RETRY_SECONDS", 0.05)


async def test_what_waits_is_stored_oldest_first_and_then_lies_in_verified(tmp_path: Path) -> None:
    machine = folder_machine(tmp_path)
    names = [machine.seal(hour) for hour in (3, 1, 2)]
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded == 3)
    assert machine.files("sealed") == []
    assert machine.files("verified") == sorted(name.file for name in names)
    for name in names:
        stored = (tmp_path / "archive" / name.key).read_bytes()
        assert stored == (machine.data / "verified" / name.file).read_bytes()
