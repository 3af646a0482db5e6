"""What the journal has of turbod: fields that can be asked for, priorities, no flood."""

import pytest

from tests.acceptance.settling import until
from tests.systemd.unit import SERVICE, SOCKET, Unit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

INFO, WARNING, ERROR = "6", "4", "3"


async def test_each_event_has_its_fields_and_its_priority(unit: Unit) -> None:
    """As systemd.journal-fields(7) wants them, so that journalctl can select by them."""
    since = await unit.machine.journal_cursor()
    await unit.start()

    async def is_told() -> bool:
        return any("TURBOD_HOST" in entry for entry in await unit.journal(since=since))

    await until(is_told, seconds=30, what="an upstream that cannot be reached")
    ours = [e for e in await unit.journal(since=since) if "TURBOD_EVENT" in e]
    by_event = {str(entry["TURBOD_EVENT"]): entry for entry in ours}
    ready, away = by_event["ready"], by_event["upstream_disconnected"]
    assert (ready["PRIORITY"], away["PRIORITY"]) == (INFO, WARNING)
    assert {entry["SYSLOG_IDENTIFIER"] for entry in ours} == {"turbod"}
    assert {entry["_SYSTEMD_UNIT"] for entry in ours} == {SERVICE}
    assert "127.0.0.1:9" in str(away["TURBOD_HOST"])
    assert "127.0.0.1:9" in str(away["MESSAGE"])
    assert "\n" not in str(away["MESSAGE"])
    selected = await unit.run("journalctl", "--quiet", "--output=cat", "TURBOD_EVENT=ready")
    assert selected.splitlines()
    assert all(line.startswith("ready ") for line in selected.splitlines())


async def test_why_it_did_not_start_is_an_error(unit: Unit) -> None:
    since = await unit.machine.journal_cursor()
    unit.settings("wrong = 1")
    await unit.run("systemctl", "start", SOCKET, SERVICE, check=False)
    (entry,) = [e for e in await unit.journal(since=since) if e["SYSLOG_IDENTIFIER"] == "turbod"]
    assert entry["PRIORITY"] == ERROR
