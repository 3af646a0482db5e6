"""A real S3 server on loopback, a process of its own: rclone's, over a folder of plain files."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import free_port, until

NAME: Final = "bench"
START_SECONDS: Final = 20.0
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "turbodbenchkey",
    "AWS_SECRET_ACCESS_KEY": "turbodbenchsecret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where it is.

    Attributes:
        folder: in which its objects are files.
        pid: the server's.
    """

    endpoint: str
    folder: Path
    pid: int

    @property
    def url(self) -> str:
        """What turbod calls it."""
        return f"s3://{NAME}/archive"


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """Serve what lies in `folder`; the keys are in this process's environment from now on."""
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    os.environ.update(_KEYS)
    port = free_port()
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3"]
    command += ["--addr", f"127.0.0.1:{port}", "--dir-cache-time", "300ms", "--log-level", "ERROR"]
    command += ["--auth-key", f"{_KEYS['AWS_ACCESS_KEY_ID']},{_KEYS['AWS_SECRET_ACCESS_KEY']}"]
    environment = {**os.environ, "RCLONE_CONFIG": "/dev/null"}
    with subprocess.Popen([*command, str(folder)], env=environment) as process:  # noqa: S603 - our own command
        try:
            until("rclone listens", lambda: _listens(port), seconds=START_SECONDS)
            yield Bucket(f"http://127.0.0.1:{port}", folder / NAME / "archive", process.pid)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
