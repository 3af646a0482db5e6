"""What all tests share: the captured data, where it is at hand."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of captured real data; tests that need it skip where it is absent."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TURBOD_CAPTURES", beside))
    if not folder.is_dir():
        pytest.skip("captured data is not here: set TURBOD_CAPTURES to its folder")
    return folder


@pytest.fixture(scope="session")
def captured_events(captures: Path) -> list[bytes]:
    """Every captured event, as its bytes."""
    files = ("jetstream-v1/events.jsonl", "network-1/events.jsonl")
    return [line for file in files for line in (captures / file).read_bytes().splitlines()]
