"""Running `turbod archive` for the tests: in this process, or as one of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.archive.sealed import HOUR, T0
from turbod import cli
from turbod.archive.bulk import asking

ROOT = Path(__file__).parents[2]


class Ran(msgspec.Struct, frozen=True):
    """How a command ended, and what it said."""

    code: int
    output: bytes
    errors: list[str]


class Commands:
    """Runs the command in this process, at noon or so of the day that the samples are of."""

    def __init__(
        self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._capture = capture
        monkeypatch.setattr(asking, "_now_us", lambda: T0 + 4 * HOUR)

    def __call__(self, *arguments: object) -> Ran:
        """Run `turbod archive` with these arguments."""
        self._capture.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(["archive", *map(str, arguments)])
        output, errors = self._capture.readouterr()
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, output, errors.decode().splitlines())


def start(*arguments: object, **given: object) -> subprocess.Popen[bytes]:
    """Start the real command."""
    command = [sys.executable, "-m", "turbod", "archive", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given}
    return subprocess.Popen(command, cwd=ROOT, **streams)  # type: ignore[call-overload, no-any-return]


def files_below(folder: Path, pattern: str = "*") -> Sequence[str]:
    """Return the files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file())
