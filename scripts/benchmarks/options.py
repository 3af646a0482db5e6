"""What a run was asked for: sizes, where data lies, whether to sample the daemon."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import say
from benchmarks.processes import Turbod
from benchmarks.sampled import table


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's.

    Attributes:
        full: whole sizes in place of scaled ones.
        profile: sample the daemon, which costs it a few per cent, and say where its time goes.
        data: on which disk the daemon writes; None for the usual place of temporary files.
    """

    full: bool
    profile: bool
    data: Path | None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="turbod-bench-", dir=self.data) as name:
            yield Path(name)

    def show_profile(self, turbod: Turbod) -> None:
        """Say where a daemon that has stopped spent its time."""
        if turbod.profile_path is not None:
            say(table(turbod.profile_path))
