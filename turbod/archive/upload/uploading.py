"""One object's way into the store: put, read back, or told apart from what is there already."""

import time
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import trio

from turbod import heartbeat
from turbod.archive.catalogue import Held
from turbod.archive.format.hour_object import Damaged, read_frame
from turbod.archive.format.names import Name, parse_key, partition
from turbod.archive.sealing import check
from turbod.archive.stores.store import Listed, Store, StoreFault

BLOCK_BYTES: Final = 8 * 1024 * 1024  # of what is read back to be looked at
_LINES_IN_A_BURST: Final = 1000  # of Python in a thread, some 0.5 ms; then the loop has its turn
_PAUSE_SECONDS: Final = 0.003
_COMPARE_SECONDS: Final = 900.0  # an hour of everything, twice, on a machine that is busy


class Conflict(Exception):
    """An hour of ours and the store's exclude each other: one line that says how, what to do."""


class Uploader:
    """Brings objects into the store, one at a time, and overwrites nothing.

    What it removes from the store is only what is lost to nobody: the beginning of an object that
    is whole here, and bytes that are no object, under a key that it wrote itself.
    """

    def __init__(self, store: Store, *, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        # Keys that were not there when we began to write them.
        self._begun: set[Name] = set()

    async def bring(self, held: Held, there: Sequence[Listed]) -> bool:
        """See to it that the store has every record of an object on this disk.

        Args:
            held: the object, with its file.
            there: what the store listed in the object's hour just now.

        Returns:
            True where it is in the store and was read back; False where what the store has of its
            hour otherwise has all its lines, so that it is not needed.

        Raises:
            Conflict: the store has something else.
            StoreFault: it is not known to be in the store; to be tried again.
            OSError: so is it where a file here cannot be read.
        """
        name = held.name
        ours = await _sha256(held)
        if all(listed.key != name.key for listed in there):
            others = [listed for listed in there if parse_key(listed.key) is not None]
            if others:
                return await self._is_needed(held, others)
            self._begun.add(name)
            await self._store.put(name.key, _file(held))
        if await self._store.sha256(name.key) != ours:
            return await self._judge(held)
        self._begun.discard(name)
        return True

    async def _judge(self, held: Held) -> Literal[False]:
        """Return False where what is stored under an object's key has all its lines.

        Where nobody misses it, it is removed.
        """
        key = held.name.key
        hour = await self._store.list(after=partition(held.name.hour))
        size = next((listed.size for listed in hour if listed.key == key), None)
        if size is None:
            raise StoreFault(f"{key} was stored, and is gone again")
        if size < held.size and await self._is_beginning(held, size):
            what = f"only the first {size} of its {held.size} bytes were stored"
        elif held.name in self._begun and await self._is_garbage(held.name, size):
            what = "other bytes were stored than were sent"
        else:
            return await self._is_needed(held, [Listed(key, size)])
        await self._store.delete(key)
        raise StoreFault(f"{key}: {what}; they are removed, and it is stored again")

    async def _is_beginning(self, held: Held, size: int) -> bool:
        """Tell whether what is stored is the beginning of ours, as a torn upload leaves it."""
        path = _file(held)
        for offset in range(0, size, BLOCK_BYTES):
            length = min(BLOCK_BYTES, size - offset)
            theirs = await self._store.read(held.name.key, offset=offset, size=length)
            if theirs != await trio.to_thread.run_sync(_read, path, offset, length):
                return False
        return True

    async def _is_garbage(self, name: Name, size: int) -> bool:
        """Tell whether what is stored is no object: then it is not another's."""
        path = await self._fetch(Listed(name.key, size))
        try:
            with heartbeat.allowing(_COMPARE_SECONDS):
                await trio.to_thread.run_sync(check, path, name, abandon_on_cancel=True)
        except Damaged:
            return True
        finally:
            path.unlink(missing_ok=True)
        return False

    async def _is_needed(self, held: Held, others: Sequence[Listed]) -> Literal[False]:
        """Return False where one of these has all lines of ours; else the hour is in conflict."""
        reason = "each has records that the other has not"
        for listed in others:
            path = await self._fetch(listed)
            try:
                with heartbeat.allowing(_COMPARE_SECONDS):
                    has_all = await trio.to_thread.run_sync(
                        _has_all, path, listed, held, abandon_on_cancel=True
                    )
                if has_all:
                    return False
            except Damaged as error:
                reason = f"one of them is damaged ({error})"
            finally:
                path.unlink(missing_ok=True)
        raise Conflict(
            f"the store has {others[0].key} of the hour of {_file(held)} here, and {reason}; "
            "keep one of them: move the other elsewhere"
        )

    async def _fetch(self, listed: Listed) -> Path:
        """Copy an object of the store beside ours, under a name that the next start removes."""
        path = self._scratch / f".{listed.key.rpartition('/')[2]}.theirs.making"
        try:
            with path.open("wb") as file:
                for offset in range(0, listed.size, BLOCK_BYTES):
                    size = min(BLOCK_BYTES, listed.size - offset)
                    block = await self._store.read(listed.key, offset=offset, size=size)
                    await trio.to_thread.run_sync(file.write, block)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StoreFault(f"{path} cannot be written: {error.strerror}") from None
            raise
        return path


def _file(held: Held) -> Path:
    assert held.path is not None, "only what is on this disk is brought to the store"
    return held.path


async def _sha256(held: Held) -> bytes:
    try:
        return await trio.to_thread.run_sync(_digest, _file(held))
    except OSError as error:
        raise Conflict(
            f"{_file(held)} cannot be read: {error.strerror}; it stays out of the archive"
        ) from None


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _has_all(path: Path, listed: Listed, held: Held) -> bool:
    """Tell whether every line of ours is in an object that was fetched. Blocks."""
    name = parse_key(listed.key)
    assert name is not None, "only objects are compared"
    theirs = _lines(path, name)
    return all(line in theirs for line in _lines(_file(held), held.name))  # both in order


def _lines(path: Path, name: Name) -> Iterator[bytes]:
    """Yield an object's lines.

    Raises:
        Damaged: it is not whole.
    """
    index = check(path, name)
    with path.open("rb") as file:
        for frame in index.frames:
            file.seek(frame.offset)
            lines = BytesIO(read_frame(file.read(frame.size), frame))
            for number, line in enumerate(lines):
                if number % _LINES_IN_A_BURST == 0:
                    time.sleep(_PAUSE_SECONDS)
                yield line
