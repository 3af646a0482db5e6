"""What systemd is told, and what it passes."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from turbod import systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(1)
        yield listening


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def notifier(manager: socket.socket) -> systemd.Notifier:
    return systemd.Notifier({"NOTIFY_SOCKET": manager.getsockname()})


def test_each_state_is_told_as_sd_notify_has_it(manager: socket.socket) -> None:
    speaking = notifier(manager)
    speaking.ready("Live")
    assert told(manager) == ["READY=1", "STATUS=Live"]
    speaking.status("Two\nlines\tare one " + "x" * 1000)
    (line,) = told(manager)
    assert line.startswith("STATUS=Two lines are one xxx")
    assert len(line) == len("STATUS=") + systemd.MAX_STATUS_CHARACTERS
    speaking.reloading()
    state, clock, _ = told(manager)
    assert state == "RELOADING=1"
    assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
    speaking.stopping("Stopping")
    assert told(manager) == ["STOPPING=1", "STATUS=Stopping"]
    speaking.alive()
    assert told(manager) == ["WATCHDOG=1"]
    speaking.extend(1.5)
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=1500000"]
    speaking.close()


def test_a_status_is_utf_8_and_does_nothing_to_a_terminal(manager: socket.socket) -> None:
    """A file's name need not be UTF-8, and an error may quote what a stranger sent."""
    speaking = notifier(manager)
    speaking.status("\udcff \x1b[2J Ä")
    assert told(manager) == ["STATUS=? ?[2J Ä"]
    speaking.close()


@pytest.mark.parametrize("address", ["vsock:2:1234", "/" + "x" * 200, "nowhere", "@"])
def test_a_manager_that_cannot_be_reached_is_none(address: str) -> None:
    speaking = systemd.Notifier({"NOTIFY_SOCKET": address})
    speaking.ready("nobody listens")
    speaking.close()


def test_an_abstract_address_is_reached() -> None:
    name = f"turbod-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(1)
        speaking = systemd.Notifier({"NOTIFY_SOCKET": f"@{name}"})
        speaking.alive()
        assert told(listening) == ["WATCHDOG=1"]
        speaking.close()


def test_without_a_manager_or_with_one_that_is_gone_or_full_nothing_happens(
    tmp_path: Path, manager: socket.socket
) -> None:
    silent = systemd.Notifier({})
    assert not silent.is_heard
    silent.ready("nobody listens")
    gone = systemd.Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.ready("nobody listens")
    gone.close()
    full = notifier(manager)
    for _ in range(10_000):  # more than a socket holds; a blocking send would hang here
        full.status("x" * 300)
    full.close()
    full.status("closed")


def test_sockets_are_ours_only_where_the_pid_is() -> None:
    passed = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:"}
    assert systemd.inherited(passed, pid=8) == ()
    assert systemd.inherited({}, pid=8) == ()
    for nothing in ("", "0", "-1", "x", "1.5", "²", "9" * 30):
        assert not systemd.inherited({"LISTEN_PID": "8", "LISTEN_FDS": nothing}, pid=8)


def test_descriptors_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", 1_000_000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        systemd.inherited({"LISTEN_PID": "7", "LISTEN_FDS": "9999999999"}, pid=7)


def test_passed_descriptors_have_their_names_and_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryFile() as file:
        low = fcntl.fcntl(file, fcntl.F_DUPFD, 700)  # above all that others have open
        os.dup2(file.fileno(), low + 1)
    monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", low)
    found = systemd.inherited(
        {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}, pid=7
    )
    assert [each.name for each in found] == ["http", "unknown"]
    assert [each.descriptor for each in found] == [low, low + 1]
    for each in found:
        assert not os.get_inheritable(each.descriptor)
        os.close(each.descriptor)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "4000000"}, 4.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "7"}, 4.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "4 s"}, None),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": ""}, None),
    ],
)
def test_the_watchdog_is_fed_where_it_is_meant_for_us(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert systemd.watchdog_seconds(environment, pid=7) == seconds


def test_a_credential_is_a_file_in_the_folder_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert systemd.credential(environment, "tokens") == tmp_path / "tokens"
    assert systemd.credential(environment, "s3") is None
    assert systemd.credential({}, "tokens") is None


def test_a_credential_may_come_from_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "turbod_tokens").write_text("")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert systemd.credential(environment, "tokens") == tmp_path / "turbod_tokens"
