"""An archive in a folder: plain files that appear whole, under their names, or not at all."""

import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import trio

from turbod.archive.stores.blocking import Call, Threads
from turbod.archive.stores.store import MAX_LISTED, AlreadyThere, Listed, NotThere, StoreFault
from turbod.eventlog.appender import sync_folder

T = TypeVar("T")

CALLS_AT_ONCE: Final = 8
ANSWER_SECONDS: Final = 60.0  # a network's file system that hangs is a fault like others
SLOWEST_BYTES_PER_SECOND: Final = 256 * 1024
BLOCK_BYTES: Final = 1024 * 1024
_PARTITIONS: Final = ("dt=", "hour=")  # what a folder's name starts with, level by level
_LEFTOVER: Final = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
# What the file systems of other disks, of networks, and of cameras say to a hard link.
_NO_LINKS: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
)


class FolderStore:
    """An archive below a folder.

    On the file system that the stored file comes from, it becomes a hard link: there is no second
    copy. On another it is copied, and gets its name once it is whole and synced.
    """

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is read or made yet."""
        self._root = root
        self._threads = Threads(CALLS_AT_ONCE)

    @property
    def url(self) -> str:
        """Where it is, for people."""
        return str(self._root)

    async def check(self) -> None:
        """Make the folder, where there is the one that it is to lie in; clean up; write a file."""

        def work(call: Call) -> None:
            self._make_folders(self._root)
            for _, entry in self._walk(""):
                call.go_on()
                if _LEFTOVER.fullmatch(entry.name):
                    _remove_leftover(Path(entry.path))
            trial = _leftover_of(self._root / "check")
            trial.touch(exist_ok=False)
            trial.unlink()

        await self._run(work, verb="write")

    async def list(self, *, after: str = "") -> list[Listed]:
        """Return every object whose key is above `after`, in order of key."""

        def work(call: Call) -> list[Listed]:
            found = []
            for key, entry in self._walk(after):
                call.go_on()
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if not _LEFTOVER.fullmatch(entry.name):
                        found.append(Listed(key, entry.stat().st_size))
                if len(found) > MAX_LISTED:
                    raise StoreFault(f"{self._root}: more than {MAX_LISTED:,} files")
            return sorted(found)

        return await self._run(work, verb="list")

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Return exactly these bytes of an object."""
        path = self._path(key)

        def work(_: Call) -> bytes:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)

        data = await self._run(work, verb="read", key=key)
        if len(data) != size:
            raise StoreFault(f"{path}: of {size} bytes from {offset} on, it has {len(data)}")
        return data

    async def put(self, key: str, path: Path) -> None:
        """Store a file under a new key."""
        target = self._path(key)

        def work(call: Call) -> None:
            self._make_folders(target.parent)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if not _link(path, target):
                    _copy(file, target, call)
            sync_folder(target.parent)

        size = await self._run(lambda _: path.stat().st_size, verb="write", key=key)
        await self._run(work, verb="write", key=key, size=size)

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Store a few bytes under a new key."""
        target = self._path(key)

        def work(call: Call) -> None:
            self._make_folders(target.parent)
            _copy(io.BytesIO(data), target, call)
            sync_folder(target.parent)

        await self._run(work, verb="write", key=key)

    async def sha256(self, key: str) -> bytes:
        """Return the SHA-256 of an object as it lies on the disk, not in the memory before it."""
        path = self._path(key)

        def work(call: Call) -> bytes:
            digest = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    call.go_on()
            return digest.digest()

        size = await self._run(lambda _: path.stat().st_size, verb="read", key=key)
        return await self._run(work, verb="read", key=key, size=size)

    async def delete(self, key: str) -> None:
        """Remove an object, and folders that are empty without it."""
        path = self._path(key)

        def work(_: Call) -> None:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                for folder in path.parents[: key.count("/")]:
                    folder.rmdir()

        await self._run(work, verb="delete", key=key)

    def renew(self) -> None:
        """Do nothing: a folder has no keys."""

    async def url_of(self, key: str, *, seconds: int) -> None:
        """Return None: whoever wants an object reads it through turbod."""

    async def _run(
        self, work: Callable[[Call], T], *, verb: str, key: str = "", size: int = 0
    ) -> T:
        seconds = ANSWER_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        try:
            return await self._threads.run(work, seconds=seconds)
        except trio.TooSlowError:
            why = f"not done within {seconds:.0f} s"
        except OSError as error:
            if isinstance(error, FileNotFoundError) and verb == "read" and self._root.is_dir():
                raise NotThere(f"{self._root}: there is no {key}") from error
            why = f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
        raise StoreFault(f"{self._root}: cannot {verb} {key}".rstrip() + f": {why}")

    def _path(self, key: str) -> Path:
        """Return where an object lies; no key leads out of the folder."""
        if "\0" in key or {"", ".", ".."} & set(key.split("/")):
            raise NotThere(f"{self._root}: no object can be called {key!r}")
        return self._root / key

    def _make_folders(self, folder: Path) -> None:
        """Make the folder and those above it up to the root, durably."""
        if folder != self._root:
            self._make_folders(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
            sync_folder(folder.parent)

    def _walk(self, after: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield every file in the root and in the partitions, with its key, if above `after`."""
        folders = [("", self._root)]
        while folders:
            key, path = folders.pop()
            entries = list(_entries(path, must_be_there=not key))
            for entry in entries:
                if entry.is_dir():
                    below = f"{key}{entry.name}/"
                    if _is_partition(below) and (below > after or after.startswith(below)):
                        folders.append((below, Path(entry.path)))
                elif entry.is_file() and (name := key + _readable(entry.name)) > after:
                    yield name, entry


def _entries(path: Path, *, must_be_there: bool) -> Iterator[os.DirEntry[str]]:
    with suppress(*() if must_be_there else (FileNotFoundError,)), os.scandir(path) as entries:
        yield from entries


def _is_partition(key: str) -> bool:
    parts = key.rstrip("/").split("/")
    return len(parts) <= len(_PARTITIONS) and all(map(str.startswith, parts, _PARTITIONS))


def _readable(name: str) -> str:
    """Return a name that is no UTF-8 so that it can be printed; no object of ours has such one."""
    return os.fsencode(name).decode(errors="replace")


def _link(path: Path, target: Path) -> bool:
    """Give a file a second name; False where the file system cannot."""
    try:
        os.link(path, target)
    except FileExistsError as error:
        raise AlreadyThere(f"{target} is already there") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _copy(source: BinaryIO, target: Path, call: Call) -> None:
    """Copy under another name, and rename once it is whole and synced.

    While it is written it is locked: by that a leftover of a crash is told from a file on its way.
    """
    if target.exists():
        raise AlreadyThere(f"{target} is already there")
    part = _leftover_of(target)
    try:
        with part.open("xb") as file:
            with suppress(OSError):  # file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while block := source.read(BLOCK_BYTES):
                call.go_on()
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            call.go_on()
            if not _link(part, target):
                part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _leftover_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def _remove_leftover(path: Path) -> None:
    """Remove what a crash left; not what somebody is writing."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
