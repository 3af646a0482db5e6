"""What the tests of `turbod check` share: settings, S3 servers."""

from collections.abc import Iterator

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
