"""Real S3 servers, each a process of its own: rclone's and moto's.

rclone's checks signatures and MD5 and ignores conditional writes; moto's is the other way round.
"""

import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
import msgspec
from botocore.config import Config

from tests.acceptance.process import free_port
from turbod.archive.stores.s3 import S3Store
from turbod.config import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ACCESS_KEY: Final = "turbodtestskey"
SECRET_KEY: Final = "turbod/tests+secret/0123456789"
# What a process needs to find the keys. While a server runs, they stand in our environment too.
CREDENTIALS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
START_SECONDS: Final = 30.0


class S3Server(msgspec.Struct, frozen=True):
    """A running server.

    Attributes:
        endpoint: for `--s3-endpoint`.
        folder: where rclone keeps each bucket as a folder of plain files, whose changes behind its
            back it may miss for 0.3 s (with none at all it is slower by 300 times); None for moto.
    """

    endpoint: str
    folder: Path | None = None

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def settings(self) -> S3Settings:
        """The settings that lead here."""
        return S3Settings(endpoint=self.endpoint)

    def client(self) -> "S3Client":
        """Return a client that is not turbod's, to look behind its back."""
        return _client(self.endpoint)

    def bucket(self) -> str:
        """Make a bucket that no other test uses; return its name."""
        name = f"turbod-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def store(self, bucket: str, prefix: str = "archive") -> S3Store:
        """Return turbod's own way there."""
        return S3Store(bucket, prefix, self.settings)


@cache
def _client(endpoint: str) -> "S3Client":
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    client: S3Client = session.client("s3", endpoint_url=endpoint, config=config)
    return client


@contextmanager
def rclone_server() -> Iterator[S3Server]:
    """Run `rclone serve s3` over a new folder."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="turbod-rclone-") as folder:
        command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--dir-cache-time", "300ms", folder]
        with _running(command, port):
            yield S3Server(f"http://127.0.0.1:{port}", Path(folder))


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto's server, which keeps everything in its memory."""
    port = free_port()
    with _running([program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port):
        yield S3Server(f"http://127.0.0.1:{port}")


def program(name: str) -> str:
    """Return the path of a program that was installed beside this Python."""
    return str(Path(sys.executable).parent / name)


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    environment = {**os.environ, "RCLONE_CONFIG": "/dev/null"}
    with (
        _credentials(),
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            _wait_until_it_listens(process, port)
            yield
        finally:
            process.kill()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(int(START_SECONDS / 0.05)):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            try:
                code = process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"{process.args!r} ended with {code}") from None
        return
    raise RuntimeError(f"{process.args!r} does not listen after {START_SECONDS} s")


@contextmanager
def _credentials() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
