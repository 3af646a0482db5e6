"""`turbod archive` against a running turbod, and what it shows on its way."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from tests.archive.commands import ROOT, start
from tests.archive.sealed import make_archive
from tests.server.served_archive import serving_archive
from turbod.archive.bulk.progress import Bar
from turbod.archive.bulk.walk import Progress


async def turbod(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the real command."""
    command = [sys.executable, "-m", "turbod", "archive", *map(str, arguments)]
    return await trio.run_process(
        command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
    )


async def test_a_running_turbods_archive_is_listed_fetched_and_verified_by_its_url(
    tmp_path: Path,
) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        url = f"http://127.0.0.1:{harness.port}"
        for action in ("ls", "get", "verify"):
            served, stored = await turbod(action, url), await turbod(action, archive.folder)
            assert (served.returncode, served.stderr) == (0, b"")
            assert served.stdout == stored.stdout
    assert stored.stdout == b"3 objects, 360 records: all is whole\n"


# Progress -----------------------------------------------------------------------------------


def at(passed: int) -> Progress:
    """Return some progress of 1,000 bytes."""
    return Progress(
        cursor=1,
        passed_bytes=passed,
        total_bytes=1000,
        raw_bytes=passed * 1_000_000,
        records=passed * 10,
    )


def test_without_a_terminal_there_is_a_line_every_ten_seconds() -> None:
    now = [100.0]
    with capture_logs() as lines, Bar("fetching", clock=lambda: now[0]) as bar:
        for second in range(0, 31, 2):
            now[0] = 100.0 + second
            bar.show(at(second * 10))
    assert [line["percent"] for line in lines] == [10.0, 20.0, 30.0]
    assert lines[1] == {
        "event": "archive_progress",
        "log_level": "info",
        "percent": 20.0,
        "records": 2000,
        "records_per_second": 100,
        "megabytes_per_second": 10,
        "seconds_left": 80,
    }


def on_terminal(*arguments: object, is_output_too: bool) -> str:
    """Run the real command with a terminal as standard error; return what that showed."""
    ours, theirs = os.openpty()
    process = start(
        *arguments,
        stdout=theirs if is_output_too else subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end is closed
        while block := os.read(ours, 65536):
            shown += block
    os.close(ours)
    assert process.wait(timeout=20) == 0
    return shown.decode()


def test_on_a_terminal_there_is_a_bar_with_rates_unless_the_records_go_there_too(
    tmp_path: Path,
) -> None:
    make_archive(tmp_path, range(4), count=60)
    shown = on_terminal("get", tmp_path, is_output_too=False)
    assert "fetching" in shown
    assert re.search(r"240 records, [0-9,]+/s, [0-9,]+ MB/s", shown)
    assert "100%" in shown
    shown = on_terminal("get", tmp_path, is_output_too=True)
    assert "fetching" not in shown
    assert len(shown.splitlines()) == 240


def test_a_terminal_that_cannot_draw_a_bar_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an editor's shell."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = [100.0]
    with capture_logs() as lines, Bar("fetching", clock=lambda: now[0]) as bar:
        now[0] += 10
        bar.show(at(10))
    assert len(lines) == 1
