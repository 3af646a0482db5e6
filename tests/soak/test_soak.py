"""The soak itself, in its short form: scripts/soak without arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_through_days_of_troubles_every_promise_is_kept(tmp_path: Path) -> None:
    """Each event once on disk and for everybody; memory and files level; every figure right."""
    command = [sys.executable, "-m", "soaking", "--data", str(tmp_path)]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "scripts")])
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:  # out of time: it ends what it started
            process.terminate()
            raise
    assert process.returncode == 0, said
    assert "all bounds met" in said, said
