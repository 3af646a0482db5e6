"""Shorter waits, for clients that never answer a goodbye and clocks that tick."""

import pytest

from turbod.server import connection


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(connection, "TICK_SECONDS", 0.02)
