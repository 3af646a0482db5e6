"""What is sent to a bucket: the file on its way, its checksums, and what is asked for it."""

import hashlib
import io
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from turbod.archive.stores.blocking import Call
from turbod.archive.stores.s3_faults import Task
from turbod.archive.stores.store import StoreFault
from turbod.config import S3Settings

BLOCK_BYTES: Final = 1024 * 1024
_TYPES: Final = {".zst": "application/zstd", ".json": "application/json"}


class Upload(io.FileIO):
    """A file on its way; its reading ends promptly once nobody waits for the call."""

    def __init__(self, path: Path, call: Call) -> None:
        super().__init__(path)
        self._call = call

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file; raises LeftBehind where nobody waits."""
        self._call.go_on()
        return super().read(-1 if size is None else size)


def options_of(file: BinaryIO, key: str, settings: S3Settings, *, is_aws: bool) -> dict[str, Any]:
    """Return what `put_object` takes for a file; all of it is read for its checksums."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        md5.update(block)
        if is_aws:
            sha256.update(block)
    options = {
        "Body": file,
        "ContentLength": file.tell(),
        "ContentMD5": b64encode(md5.digest()).decode(),
        "ChecksumSHA256": b64encode(sha256.digest()).decode() if is_aws else "",
        "ContentType": _TYPES.get(Path(key).suffix, ""),
        "ServerSideEncryption": settings.encryption,
        "SSEKMSKeyId": settings.kms_key,
        "StorageClass": settings.storage_class,
    }
    file.seek(0)
    return {name: value for name, value in options.items() if value != ""}


@contextmanager
def telling_unreadable(task: Task) -> Iterator[None]:
    """Raise StoreFault where a file of ours cannot be opened or read."""
    try:
        yield
    except OSError as error:
        raise StoreFault(task.because(f"{error.filename}: {error.strerror}")) from error
