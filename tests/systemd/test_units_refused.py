"""What cannot be: one line in the journal that says what to do, and no second try."""

import socket

import pytest
import trio

from tests.acceptance.settling import until
from tests.systemd.unit import NOWHERE, SERVICE, SETTINGS, SOCKET, Unit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WRONG_SETTING, CONFIG, CREDENTIALS = "2", "78", "243"
RESTART_SECONDS = 1
A_SECOND_TRY_SECONDS = 2.5


async def refused(unit: Unit, *, status: str) -> str:
    """Start it, check that it fails once and for all; return the one line that it said."""
    await unit.change_unit(SERVICE, "Service", f"RestartSec={RESTART_SECONDS}s")
    since = await unit.machine.journal_cursor()
    await unit.run("systemctl", "start", SOCKET, check=False)
    await unit.run("systemctl", "start", SERVICE, check=False)
    await trio.sleep(A_SECOND_TRY_SECONDS)
    shown = await unit.show("ExecMainStatus", "NRestarts", "SubState")
    assert shown == {"ExecMainStatus": status, "NRestarts": "0", "SubState": "failed"}
    lines = await unit.words(since=since)
    assert len(lines) == 1, lines
    return lines[0]


async def test_without_its_settings_file(unit: Unit) -> None:
    unit.machine.path(SETTINGS).unlink()
    line = await refused(unit, status=WRONG_SETTING)
    assert SETTINGS in line
    assert "No such file" in line


async def test_a_wrong_setting(unit: Unit) -> None:
    unit.settings(*NOWHERE, "[hydration]", "calls_per_second = 0")
    line = await refused(unit, status=WRONG_SETTING)
    assert f"hydration.calls_per_second in {SETTINGS} was 0: expected" in line


async def test_a_data_folder_of_a_newer_version(unit: Unit) -> None:
    await unit.start()
    await unit.run("systemctl", "stop", SOCKET)
    (unit.data / "format").write_text("999\n")
    line = await refused(unit, status=CONFIG)
    assert "written by a newer turbod" in line
    assert "install the newer one again" in line


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("ListenStream=\nListenDatagram=127.0.0.1:{port}", "no stream socket; use ListenStream="),
        ("ListenStream=\nListenStream=/run/turbod.sock", "set ListenStream=ADDRESS:PORT"),
        ("FileDescriptorName=web", "none is named http; set FileDescriptorName="),
    ],
    ids=["datagram", "unix", "another name"],
)
async def test_a_socket_of_the_wrong_kind(listen: str, words: str, unit: Unit) -> None:
    await unit.change_unit(SOCKET, "Socket", listen.format(port=unit.port))
    line = await refused(unit, status=CONFIG)
    assert words in line
    assert "turbod.socket" in line


async def test_a_connection_in_place_of_the_listening_socket(unit: Unit) -> None:
    """Accept=yes wants turbod@.service, which there is not: systemd says so, once."""
    await unit.change_unit(SOCKET, "Socket", "Accept=yes")
    since = await unit.machine.journal_cursor()
    await unit.run("systemctl", "start", SOCKET)
    with pytest.raises((OSError, trio.BrokenResourceError)):
        await unit.get("/healthz")
    said = [str(entry["MESSAGE"]) for entry in await unit.machine.journal(SOCKET, since=since)]
    assert any("not a template unit" in line for line in said)
    assert (await unit.show("SubState", unit=SOCKET))["SubState"] == "failed"
    assert await unit.state() == "dead"


async def test_a_credential_that_cannot_be_read(unit: Unit) -> None:
    """One that an own change of the unit asks for and that is not there: systemd says so, once."""
    missing = "LoadCredential=more:/etc/turbod/more"
    await unit.change_unit(SERVICE, "Service", missing)
    await unit.change_unit(SERVICE, "Service", f"RestartSec={RESTART_SECONDS}s")
    since = await unit.machine.journal_cursor()
    await unit.run("systemctl", "start", SERVICE, check=False)
    await trio.sleep(A_SECOND_TRY_SECONDS)
    shown = await unit.show("ExecMainStatus", "NRestarts", "SubState")
    assert shown == {"ExecMainStatus": CREDENTIALS, "NRestarts": "0", "SubState": "failed"}
    said = [str(entry["MESSAGE"]) for entry in await unit.journal(since=since)]
    assert any("credentials" in line for line in said)


async def test_the_credentials_folder_may_be_empty_or_absent(unit: Unit) -> None:
    await unit.run("rmdir", "/etc/turbod/credentials")
    await unit.start()
    assert (await unit.get("/readyz"))[0] == 200


async def test_who_keeps_connecting_does_not_have_it_started_for_ever(unit: Unit) -> None:
    """A connection that waits starts it again; after some starts the port closes instead."""
    unit.settings("wrong = 1")
    since = await unit.machine.journal_cursor()
    await unit.run("systemctl", "start", SOCKET)

    async def is_closed() -> bool:
        return (await unit.show("Result", unit=SOCKET))["Result"] == "trigger-limit-hit"

    async with await trio.open_tcp_stream("127.0.0.1", unit.port):
        await until(is_closed, seconds=60, what="the port closes")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", unit.port))
    starts = len(await unit.words(since=since))
    assert starts <= 20
    await trio.sleep(2)
    assert len(await unit.words(since=since)) == starts
    unit.settings(*NOWHERE)
    await unit.run("systemctl", "start", SERVICE)
    assert (await unit.get("/readyz"))[0] == 200, "starting the service opens the port again"
