"""Where an archive lies: a folder or a bucket, looked at and changed behind turbod's back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.archive.s3_servers import S3Server

PREFIX = "some/prefix"


class Place(Protocol):
    """One archive, as plain named bytes."""

    @property
    def options(self) -> Mapping[str, object]:
        """What leads `turbod serve` there."""

    @property
    def words(self) -> Sequence[str]:
        """What leads `turbod archive` there."""

    def listing(self) -> list[str]:
        """Return the names of all that is there, sorted."""

    def read(self, key: str) -> bytes:
        """Return the bytes of one."""

    def write(self, key: str, data: bytes) -> None:
        """Put it there, or something else in its place."""

    def remove(self, key: str) -> None:
        """Take it away."""


@dataclass(frozen=True)
class FolderPlace:
    """The folder that an archive is by default."""

    root: Path

    @property
    def options(self) -> Mapping[str, object]:
        """Nothing: it is the default."""
        return {}

    @property
    def words(self) -> Sequence[str]:
        """The folder."""
        return [str(self.root)]

    def listing(self) -> list[str]:
        """Return the names of all files."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in files)

    def read(self, key: str) -> bytes:
        """Return the bytes of one."""
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Put it there, or something else in its place."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, key: str) -> None:
        """Take it away."""
        (self.root / key).unlink()


@dataclass(frozen=True)
class BucketPlace:
    """A prefix of a bucket on a real server."""

    server: S3Server
    bucket: str

    @property
    def options(self) -> Mapping[str, object]:
        """The bucket and its server."""
        return {"archive": f"s3://{self.bucket}/{PREFIX}", "s3-endpoint": self.server.endpoint}

    @property
    def words(self) -> Sequence[str]:
        """The bucket and its server."""
        return [f"s3://{self.bucket}/{PREFIX}", "--s3-endpoint", self.server.endpoint]

    def listing(self) -> list[str]:
        """Return the names of all objects."""
        answer = self.server.client().list_objects_v2(Bucket=self.bucket)
        found = [each["Key"] for each in answer.get("Contents", ())]
        assert all(key.startswith(f"{PREFIX}/") for key in found), found
        return sorted(key.removeprefix(f"{PREFIX}/") for key in found)

    def read(self, key: str) -> bytes:
        """Return the bytes of one."""
        answer = self.server.client().get_object(Bucket=self.bucket, Key=f"{PREFIX}/{key}")
        return answer["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        """Put it there, or something else in its place."""
        self.server.client().put_object(Bucket=self.bucket, Key=f"{PREFIX}/{key}", Body=data)

    def remove(self, key: str) -> None:
        """Take it away."""
        self.server.client().delete_object(Bucket=self.bucket, Key=f"{PREFIX}/{key}")
