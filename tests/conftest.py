"""What all tests share: the captured data, where it is at hand."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog


def pytest_configure() -> None:
    """Let what tests interrupt hear it: a shell's jobs in the background ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test that runs the command decide where the next one's log goes."""
    configure = structlog.configure

    def without_cache(**given: Any) -> None:
        configure(**given | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", without_cache)
    yield
    structlog.reset_defaults()


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
