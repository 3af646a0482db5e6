"""The log as whoever reads it meets it: one event, one line, no secret, no flood, no harm."""

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from turbod import journal, log_output
from turbod.log_output import Gate

EVENTS = """
import logging, sys, warnings
import structlog
from turbod import log_output
log = structlog.get_logger()
log_output.for_daemon("info", "FORMAT")
log.warning("first_event", text='a "quoted" one', yes=True, no=None, files=["a b"])
log.warning("second", text="Zürich\\ud800 \\x1b[31m two\\nlines", url="https://me:pass@example.com")
try:
    raise ValueError("x https://example.com/?X-Amz-Signature=aaaaaaaaaaaaaaaaaaaaa")
except ValueError:
    log.exception("third")
print("still here")
"""


def ran(
    program: str,
    *,
    stderr: int = subprocess.PIPE,
    form: str = "auto",
    pass_fds: Sequence[int] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Log in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("FORMAT", form)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        text=True,
        check=False,
    )


def test_without_a_terminal_one_event_is_one_line_of_key_and_value() -> None:
    lines = ran(EVENTS, LC_ALL="C").stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(
        'level=warning event=first_event text="a \\"quoted\\" one" yes=true no=null '
        'files="[\\"a b\\"]"'
    )
    assert "\x1b" not in lines[1]
    assert "https://***@example.com" in lines[1]
    assert r"\nValueError: x https://example.com/?***" in lines[2]


def test_as_json_one_event_is_one_object() -> None:
    first, second, third = map(json.loads, ran(EVENTS, form="json").stderr.splitlines())
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert (first["text"], first["files"], first["no"]) == ('a "quoted" one', ["a b"], None)
    assert second["url"] == "https://***@example.com"
    assert third["exception"].startswith("Traceback")


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_a_terminal_has_words_and_colours_unless_it_was_asked_for_none(
    no_color: str,
    escapes: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    ours, theirs = os.openpty()
    try:
        ended = ran(EVENTS, stderr=theirs, TERM="xterm", NO_COLOR=no_color)
        assert ended.stdout == "still here\n"
        text = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "first event" in text
    assert "\nTraceback" in text
    assert ("\x1b[" in text) is escapes
    assert "pass" not in text


@pytest.mark.parametrize("form", ["text", "logfmt", "json", "journal"])
def test_a_log_that_cannot_be_written_stops_nothing(form: str) -> None:
    with Path("/dev/full").open("wb") as full:
        assert ran(EVENTS, stderr=full.fileno(), form=form).stdout == "still here\n"


def test_a_log_that_nobody_reads_any_longer_stops_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert ran(EVENTS, stderr=write).stdout == "still here\n"
    finally:
        os.close(write)


def test_no_standard_error_at_all_stops_nothing() -> None:
    command = [sys.executable, "-c", EVENTS]
    program = f"import os; os.close(2); os.execv({sys.executable!r}, {command!r})"
    for form in ("auto", "text", "journal"):
        assert ran(program, form=form).stdout == "still here\n"


MANY = """
import os, structlog
from turbod import log_output
log = structlog.get_logger()
log_output.for_command()
for number in range(2000):
    log.info("one_of_many", number=number, text="x" * 100)
print("still here", flush=True)
while not os.read(0, 1): pass
log.info("after")
"""


LONG = """
import os, structlog
from turbod import log_output
log = structlog.get_logger()
log_output.for_command()
for number in range(200):
    try:
        raise ExceptionGroup("many", [ValueError("y" * 2000) for _ in range(10)])
    except ExceptionGroup as error:
        log.error("long", exc_info=error)
print("still here", flush=True)
while not os.read(0, 1): pass
log.info("after")
"""


def heard_late(program: str) -> tuple[list[str], int]:
    """Run one whose reader first takes nothing; return its lines but the last two, and the lost."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"still here\n"
    some = os.read(process.stderr.fileno(), 1 << 20)
    process.stdin.write(b"x")
    _, rest = process.communicate(timeout=20)
    *lines, loss, after = (some + rest).decode().splitlines()
    assert "event=after" in after
    return lines, int(loss.partition("event=log_lines_lost lines=")[2])


def test_a_reader_that_takes_nothing_holds_nobody_up_and_hears_later_what_was_lost() -> None:
    lines, lost = heard_late(MANY)
    assert lost + len(lines) == 2000


def test_lines_longer_than_a_pipe_has_room_for_hold_nobody_up_either() -> None:
    """The last that was begun is torn; those behind it stand on lines of their own."""
    lines, lost = heard_late(LONG)
    assert all(line.startswith("timestamp=") for line in lines)
    assert lost + len(lines) - 1 == 200


# ---- the journal


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
        bound.bind(str(tmp_path / "journal"))
        yield bound


@pytest.fixture
def outlet(tmp_path: Path) -> Iterator[log_output.Outlet]:
    opened = log_output.Outlet("journal", path=str(tmp_path / "journal"))
    yield opened
    assert opened._journal is not None
    opened._journal.close()


def written(outlet: log_output.Outlet, **fields: Any) -> None:
    with pytest.raises(structlog.DropEvent):
        outlet(None, "", {"level": "warning", **fields})


def test_the_journal_gets_words_a_priority_and_every_field(
    journald: socket.socket, outlet: log_output.Outlet
) -> None:
    written(
        outlet,
        event="upstream_disconnected",
        timestamp="x",
        host="wss://a",
        cause="went away",
        **{"odd-name.é": 1},
        exception="Traceback\nValueError: x",
    )
    data = journald.recv(65536)
    assert (
        'MESSAGE=upstream disconnected host=wss://a cause="went away" odd-name.é=1: ValueError: x\n'
        in data.decode("utf-8", "replace")
    )
    assert b"PRIORITY=4\nSYSLOG_IDENTIFIER=turbod\n" in data
    assert (
        b"TURBOD_EVENT=upstream_disconnected\nTURBOD_HOST=wss://a\nTURBOD_CAUSE=went away" in data
    )
    assert b"TURBOD_ODD_NAME__=1\n" in data
    assert (
        b"TURBOD_EXCEPTION\n" + (23).to_bytes(8, "little") + b"Traceback\nValueError: x\n" in data
    )
    assert b"TIMESTAMP" not in data


def test_of_a_group_of_exceptions_the_journals_message_says_what_is_in_it(
    journald: socket.socket, outlet: log_output.Outlet
) -> None:
    """What ends a nursery is one; its traceback ends with the edge of its frame."""
    group = ExceptionGroup("nursery", [ExceptionGroup("inner", [LookupError("we are wrong")])])
    text = "".join(traceback.format_exception(group))
    written(outlet, event="crashed", exception=text.rstrip())
    assert b"MESSAGE=crashed: LookupError: we are wrong\n" in journald.recv(65536)


def test_without_the_journal_a_line_carries_its_priority_on_standard_error(
    outlet: log_output.Outlet, capsys: pytest.CaptureFixture[str]
) -> None:
    written(outlet, event="down", host="wss://a")
    assert capsys.readouterr().err == "<4>level=warning event=down host=wss://a\n"


def test_what_a_full_journal_did_not_take_is_told_by_the_next_that_it_does(
    journald: socket.socket, outlet: log_output.Outlet
) -> None:
    for number in range(2000):
        written(outlet, event="one", number=number)
    taken = 0
    try:
        while journald.recv(65536):
            taken += 1
    except BlockingIOError:
        pass
    written(outlet, event="after")
    assert f"MESSAGE=log lines lost lines={2000 - taken}\n".encode() in journald.recv(65536)
    assert b"MESSAGE=after" in journald.recv(65536)


def test_the_format_follows_standard_error(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert log_output.chosen("auto", stream, ours) == "journal"
        assert log_output.chosen("auto", stream, {}) == "logfmt"
        assert log_output.chosen("json", stream, ours) == "json"
        assert log_output.chosen("auto", None, ours) == "logfmt"
    assert log_output.chosen("auto", stream, ours) == "logfmt"  # closed


def test_where_standard_error_is_the_journals_the_log_goes_there_by_itself(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        ran(
            EVENTS,
            stderr=stream.fileno(),
            JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}",
        )
    if not Path(journal.SOCKET).exists():  # else it went to the machine's own journal
        assert (tmp_path / "stream").read_text().startswith("<4>timestamp=")


def test_what_keeps_it_from_running_is_an_error_in_the_journal(tmp_path: Path) -> None:
    program = "from turbod import log_output; log_output.say('turbod: https://me:pass@a is wrong')"
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        ours = f"{status.st_dev}:{status.st_ino}"
        ran(program, stderr=stream.fileno(), JOURNAL_STREAM=ours)
    assert (tmp_path / "stream").read_text() == "<3>turbod: https://***@a is wrong\n"
    assert ran(program).stderr == "turbod: https://***@a is wrong\n"


# ---- levels, floods, strays


LEVELS = """
import structlog
from turbod import log_output
log = structlog.get_logger()
log_output.for_daemon("warning", "logfmt")
bound = log.bind(host="a")
for level in ("error", "info", "debug"):
    log.info(f"info_at_{level}")
    bound.warning(f"warning_at_{level}")
    log.debug(f"debug_at_{level}")
    log_output.set_level(level)
log.debug("end")
"""


def test_a_level_holds_at_once_for_loggers_that_were_there_before() -> None:
    said = [
        line.partition("event=")[2].partition(" ")[0] for line in ran(LEVELS).stderr.splitlines()
    ]
    assert said == ["warning_at_error", "info_at_debug", "warning_at_debug", "end"]


STRAYS = """
import logging, threading, warnings
from turbod import log_output
log_output.for_daemon("info", "logfmt")
logging.getLogger("urllib3").warning("Retrying %s", "https://a/b?c=d")
logging.getLogger("urllib3").info("nothing to say")
logging.getLogger("odd").error("%d", "no number")
warnings.simplefilter("always")
warnings.warn("two\\nlines", ResourceWarning)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise OSError("in a finaliser")
Bad()
raise AssertionError("turbod_" + "a" * 43)
"""


def test_libraries_warnings_and_crashes_are_events_like_any_other() -> None:
    ended = ran(STRAYS)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert 'event=library_says library=urllib3 text="Retrying https://a/b?***"' in lines[0]
    assert "level=error event=library_says library=odd text=%d" in lines[1]
    assert "library=py.warnings" in lines[2]
    assert "event=thread_crashed" in lines[3]
    assert "event=finaliser_failed" in lines[4]
    assert r"level=critical event=crashed" in lines[5]
    assert lines[5].endswith(r'AssertionError: turbod_***"')
    assert len(lines) == 6


FLOOD = """
import structlog
from turbod import log_output
log = structlog.get_logger()
log_output.for_daemon("info", "text")
for number in range(100):
    log.warning("it_failed", number=number)
log.info("other")
"""


def test_a_flood_is_ten_lines_and_a_summary_though_it_ended() -> None:
    lines = ran(FLOOD).stderr.splitlines()
    assert len(lines) == 12
    assert "it failed: 90 more in 0 s number=99" in lines[-1]


def gated(gate: Gate) -> list[structlog.typing.EventDict]:
    """Send what passes the gate into a list."""
    logs = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.processors.add_log_level, gate, logs])
    return logs.entries


def test_the_next_line_of_any_kind_brings_the_summary_before_itself() -> None:
    now = [0.0]
    logs = gated(Gate(lambda: now[0]))
    log = structlog.get_logger()
    for number in range(12):
        log.error("failed", number=number, exc_info=ValueError(number))
    now[0] = 61
    log.info("other")
    assert [entry["event"] for entry in logs[10:]] == ["failed", "other"]
    assert {name: logs[10][name] for name in ("number", "repeated", "repeated_seconds")} == {
        "number": 11,
        "repeated": 2,
        "repeated_seconds": 61,
    }
    assert "exc_info" not in logs[10]  # a traceback would keep its frames alive for a minute


async def test_a_task_brings_the_summary_where_no_line_follows(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(autojump_clock.current_time)
    logs = gated(gate)
    monkeypatch.setattr(log_output, "_gate", gate)
    async with trio.open_nursery() as nursery:
        await nursery.start(log_output.run)
        for _ in range(11):
            structlog.get_logger().warning("failed")
        await trio.sleep(70)
        nursery.cancel_scope.cancel()
    assert len(logs) == 11
    assert logs[-1]["repeated"] == 1


def test_an_event_costs_little() -> None:
    program = """
import os, time, structlog
from turbod import log_output
log_output.for_command()
log = structlog.get_logger()
began = time.process_time()
for number in range(1000):
    log.info("hour_sealed", object="2026/11/20/x.jsonl.zst", bytes=number, seconds=1.2)
print(time.process_time() - began)
"""
    with Path(os.devnull).open("wb") as nowhere:
        assert float(ran(program, stderr=nowhere.fileno()).stdout) < 2  # measured: 0.1


def test_a_long_value_and_a_long_traceback_lose_their_middle() -> None:
    program = """
import structlog
from turbod import log_output
log_output.for_command()
try:
    raise ValueError("y" * 90_000 + "end")
except ValueError:
    structlog.get_logger().error("long", text="x" * 10_000, exc_info=True)
"""
    (line,) = ran(program).stderr.splitlines()
    assert len(line) < 70_000
    assert "6000 characters" in line
    assert line.endswith('yend"')
