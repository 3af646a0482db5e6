"""The journal's protocol, with a socket of our own in the journal's place."""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod import journal
from turbod.journal import Journal, datagram, is_at


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@pytest.fixture
def journald(place: str) -> Iterator[socket.socket]:
    """A bound socket, as journald has one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
        bound.bind(place)
        yield bound


@pytest.fixture
def sender(place: str) -> Iterator[Journal]:
    sending = Journal(place)
    yield sending
    sending.close()


def entry(data: bytes) -> dict[str, str]:
    """Read a datagram as the protocol's page says."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, is_plain, value = line.partition(b"=")
        if not is_plain:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


names = st.from_regex("[A-Z][A-Z0-9_]{0,63}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(names, texts))
def test_every_text_comes_out_as_it_went_in(fields: dict[str, str]) -> None:
    assert entry(datagram(fields)) == fields


def test_an_event_is_one_datagram(journald: socket.socket, sender: Journal) -> None:
    fields = {"MESSAGE": "two\nlines", "PRIORITY": "4", "TURBOD_TEXT": "a=b"}
    assert sender.send(fields) == "taken"
    assert entry(journald.recv(65536)) == fields


def test_what_is_too_long_for_a_datagram_arrives_short_and_says_so(
    journald: socket.socket, sender: Journal
) -> None:
    fields = {"MESSAGE": "m" * 5000, "PRIORITY": "3", "TURBOD_EXCEPTION": "x" * 2_000_000}
    assert sender.send(fields) == "taken"
    came = entry(journald.recv(65536))
    assert came["MESSAGE"].startswith("mmm")
    assert came["MESSAGE"].endswith(" … cut")
    assert (came["PRIORITY"], int(came["TURBOD_CUT_BYTES"]) > 2_000_000) == ("3", True)
    assert "TURBOD_EXCEPTION" not in came


def test_a_journal_that_does_not_keep_up_is_not_waited_for(
    journald: socket.socket, sender: Journal
) -> None:
    outcomes = [sender.send({"MESSAGE": str(number)}) for number in range(100_000)]
    assert outcomes[0] == "taken"
    assert outcomes[-1] == "full"
    journald.recv(65536)
    assert sender.send({"MESSAGE": "there is room again"}) == "taken"


def test_no_journal_is_told_not_raised(place: str, sender: Journal) -> None:
    assert sender.send({"MESSAGE": "x"}) == "away"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(place)
        assert sender.send({"MESSAGE": "x"}) == "taken"
    assert sender.send({"MESSAGE": "x"}) == "away"  # its end is gone, the file still there


def test_a_name_that_the_journal_would_drop_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="no name of a field"):
        datagram({"_PID": "1"})


def test_standard_error_is_the_journals_where_device_and_inode_say_so(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("wb") as stream:
        status = os.fstat(stream.fileno())
        right = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        wrong: list[Mapping[str, str]] = [{}, {"JOURNAL_STREAM": f"{status.st_dev}:1"}]
        wrong += [{"JOURNAL_STREAM": "x"}]
        assert is_at(stream.fileno(), right)
        assert not any(is_at(stream.fileno(), each) for each in wrong)
    assert not is_at(2**30, right)


def test_the_socket_is_journalds() -> None:
    assert journal.SOCKET == "/run/systemd/journal/socket"
