"""Where the archive lies, as the rest of turbod sees it: keys, bytes, and what may go wrong."""

from pathlib import Path
from typing import Final, Protocol

import msgspec

from turbod.config import ArchiveSettings, S3Settings

MAX_LISTED: Final = 1_000_000  # objects, some 114 years of hours and 150 MB of memory; else a fault
DEFAULT_FOLDER: Final = "archive"  # in the data folder


class StoreFault(Exception):
    """A store did not do what was asked: one line that says which, why, and what to do."""


class NeedsMending(StoreFault):
    """Asking again is of no use until somebody has changed something: a bucket, a key, a right."""


class NotThere(StoreFault):
    """There is no object of this key, or no longer."""


class AlreadyThere(StoreFault):
    """There is an object of this key, so none was written; what it holds is not known."""


class Listed(msgspec.Struct, frozen=True, order=True):
    """One object in a listing. The key is relative to the archive's prefix."""

    key: str
    size: int


class Source(Protocol):
    """An archive to read from: a folder, a bucket, or another turbod."""

    @property
    def url(self) -> str:
        """Where it is, for people; without secrets."""

    async def list(self, *, after: str = "") -> list[Listed]:
        """Return every object whose key is above `after`, in order of key.

        Raises:
            StoreFault: where it cannot be known.
        """

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Return exactly these bytes of an object.

        Raises:
            NotThere: there is no such object.
            StoreFault: anything else, an object shorter than that included.
        """


class Store(Source, Protocol):
    """An archive that may be written. Nothing in it is ever overwritten."""

    async def check(self) -> None:
        """Make ready to write: learn whether the archive may be listed and written.

        A folder is made where there is none, and rid of what a crash left half copied. A bucket is
        written and rid of one small object, by which it shows whether it honours conditional
        writes. For whoever owns the archive; a mere reader does not call it.

        Raises:
            StoreFault: it may not.
        """

    async def put(self, key: str, path: Path) -> None:
        """Store a file under a new key; cancelled promptly, leaving the whole object or none.

        Raises:
            AlreadyThere: where the store noticed.
            StoreFault: where it is not known to have been stored.
        """

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Store a few bytes under a new key. Raises as `put`."""

    async def sha256(self, key: str) -> bytes:
        """Return the SHA-256 of an object as the store has it: read back, or of the store's own.

        Raises:
            NotThere: there is no such object.
            StoreFault: where it cannot be known.
        """

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""

    def renew(self) -> None:
        """Look for the keys anew before the next question; those under way end with the old."""

    async def url_of(self, key: str, *, seconds: int) -> str | None:
        """Return a URL by which anybody can read an object for so long; None where there is none.

        Raises:
            StoreFault: where the keys for that are not at hand.
        """


def bucket_of(location: str) -> tuple[str, str] | None:
    """Return bucket and prefix of an archive's location; None where it is a folder."""
    kind, _, where = location.partition("://")
    bucket, _, prefix = where.partition("/")
    return (bucket, prefix) if kind == "s3" else None


def folder_of(location: str, data: Path) -> Path | None:
    """Return the folder of an archive's location; None where it is a bucket."""
    if bucket_of(location) is not None:
        return None
    return Path(location) if location else data / DEFAULT_FOLDER


def open_store(archive: ArchiveSettings, s3: S3Settings, data: Path) -> Store:
    """Return the archive that the settings name. Nothing is read or written yet.

    boto3 is imported only for a bucket: it takes some 25 MB of memory and 0.2 s.
    """
    folder = folder_of(archive.location, data)
    if folder is not None:
        from turbod.archive.stores.folder import FolderStore  # noqa: PLC0415 - it raises what is above

        return FolderStore(folder)
    from turbod.archive.stores.s3 import S3Store  # noqa: PLC0415 - what a folder never pays

    place = bucket_of(archive.location)
    assert place is not None, "it is a bucket or a folder"
    return S3Store(*place, s3)
