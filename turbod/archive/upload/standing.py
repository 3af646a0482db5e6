"""Whether this machine may write to the archive: one instance does, and `turbod.json` names it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from turbod.archive.catalogue import Catalogue
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import IDENTITY_KEY
from turbod.archive.stores.store import AlreadyThere, Listed, Store, StoreFault
from turbod.archive.upload.identity import (
    MAX_IDENTITY_BYTES,
    Identity,
    Unreadable,
    decode,
    encode,
    is_fresh,
    load_own,
    new_identity,
    new_instance,
    save_own,
)


class NotOurs(Exception):
    """Nothing may be written there by us: one line that says why, and what to do."""


class Standing:
    """Knows this machine's id, and whether it is that of the archive.

    A machine without any hour or id takes the archive's id over, but only before it was settled
    that it has one of its own. An archive without `turbod.json` is given one.

    Attributes:
        instance: this machine's id, empty until it is settled.
        identity: what the archive said of itself when it was last ours.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        *,
        data: Path,
        half_of_free: Callable[[], Awaitable[int]],
    ) -> None:
        self.instance = ""
        self.identity: Identity | None = None
        self._store = store
        self._catalogue = catalogue
        self._data = data
        self._half_of_free = half_of_free
        self._may_take_over = False
        self._is_saved = self._is_ready = False

    async def check(self, there: Listed | None) -> None:
        """Return where this machine may write; `there` is `turbod.json` in a listing just had.

        Raises:
            NotOurs: it may not.
            StoreFault: that cannot be known, or the archive cannot be marked as ours.
        """
        await self._load()
        try:
            found = await self._read(there)
            writer = found.instance if found is not None else await self._writer_of_newest()
        except Unreadable as error:
            raise NotOurs(str(error)) from None
        if not self.instance:
            self.instance = (writer if self._may_take_over else None) or new_instance()
        await self._save()
        if writer is not None and writer != self.instance:
            raise self._another(writer)
        if not self._is_ready:
            await self._store.check()
            self._is_ready = True
        self.identity = found if found is not None else await self._introduce()

    async def settle(self) -> None:
        """Have an id from now on, whatever the archive says later."""
        with suppress(StoreFault):
            await self._load()
            self.instance = self.instance or new_instance()
            await self._save()
        self.instance = self.instance or new_instance()

    async def _load(self) -> None:
        """Read this machine's id where that has not been done."""
        if self._is_saved:
            return
        try:
            own = await trio.to_thread.run_sync(load_own, self._data)
            self._may_take_over = await trio.to_thread.run_sync(is_fresh, self._data)
        except OSError as error:
            raise StoreFault(f"{self._data}/instance cannot be read: {error.strerror}") from None
        if own is not None:
            self.instance, self._is_saved = own, True

    async def _save(self) -> None:
        if self._is_saved:
            return
        try:
            await trio.to_thread.run_sync(save_own, self._data, self.instance)
        except OSError as error:
            raise StoreFault(f"{self._data}/instance cannot be written: {error.strerror}") from None
        self._is_saved = True

    async def _read(self, there: Listed | None) -> Identity | None:
        if there is None:
            return None
        if there.size > MAX_IDENTITY_BYTES:
            raise Unreadable(f"{IDENTITY_KEY} has {there.size} bytes; turbod did not write it")
        return decode(await self._store.read(IDENTITY_KEY, offset=0, size=there.size))

    async def _writer_of_newest(self) -> str | None:
        """Return whose the newest hour is where `turbod.json` is gone; None where there is none."""
        newest = self._catalogue.before(self._catalogue.end)
        while newest is not None and not newest.is_stored:
            newest = self._catalogue.before(newest.name.first)
        if newest is None:
            return None
        key = newest.name.key
        try:
            return (await load_index(self._store, key, newest.size, newest.name)).instance
        except Damaged as error:
            raise Unreadable(
                f"{IDENTITY_KEY} is gone, and {key}, which would tell whose this archive is, is "
                f"damaged: {error}; put {IDENTITY_KEY} back"
            ) from None

    async def _introduce(self) -> Identity:
        """Mark the archive as ours: of two that try, both see the same one in it."""
        ours = new_identity(self.instance, max_bytes=await self._half_of_free())
        with suppress(AlreadyThere):
            await self._store.put_bytes(IDENTITY_KEY, encode(ours))
        listed = await self._store.list(after=IDENTITY_KEY[:-1])
        there = next((each for each in listed if each.key == IDENTITY_KEY), None)
        try:
            found = await self._read(there)
        except Unreadable as error:
            raise NotOurs(str(error)) from None
        if found is None:
            raise StoreFault(f"{IDENTITY_KEY} was stored, and is gone again")
        if found.instance != self.instance:
            raise self._another(found.instance)
        return found

    def _another(self, instance: str) -> NotOurs:
        return NotOurs(
            f"{self._store.url} belongs to the turbod {instance}, this one is {self.instance}, so "
            "it only reads there; give this one a place of its own with --archive, or, to go on in "
            "place of the other, stop that one and start this one with an empty --data"
        )
