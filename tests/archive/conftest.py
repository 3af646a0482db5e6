"""What the archive's tests share: S3 servers, of which each takes a bucket, and a small disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.s3_servers import S3Server, moto_server, rclone_server


@pytest.fixture(scope="session")
def rclone() -> Iterator[S3Server]:
    """Run rclone's S3 server."""
    with rclone_server() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """Run moto's S3 server."""
    with moto_server() as server:
        yield server


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    place = tmp_path / "mount"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
