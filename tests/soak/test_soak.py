"""The soak itself, in its short form: scripts/soak without arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# Fewer for a quick look; what has to stay level shows over many only.
EVENTS = os.environ.get("TURBOD_SOAK_EVENTS", "2000000")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_through_days_of_troubles_every_promise_is_kept(tmp_path: Path) -> None:
    """Each event once on disk and for everybody; memory and files level; every figure right."""
    command = [sys.executable, "-m", "soaking", "--events", EVENTS, "--data", str(tmp_path)]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "scripts")])
    said = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(said.stdout)  # noqa: T201 - shown by pytest where it fails
    assert said.returncode == 0
    assert "all bounds met" in said.stdout
