"""Looks at the archive: whose it is, and whether it can be listed, written, read and rid again."""

from pathlib import Path
from typing import Final

import msgspec
import trio

from turbod.archive.format.names import IDENTITY_KEY
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.store import (
    AlreadyThere,
    Store,
    StoreFault,
    bucket_of,
    folder_of,
)
from turbod.archive.upload.identity import (
    MAX_IDENTITY_BYTES,
    Identity,
    Unreadable,
    decode,
    is_fresh,
    load_own,
)
from turbod.check.data import existing
from turbod.check.finding import Finding
from turbod.check.network_verdicts import ArchiveSeen, judge_archive
from turbod.check.trial import sync_seconds
from turbod.config import Settings

ANSWER_SECONDS: Final = 4.0
_TRIAL: Final = b"turbod check\n"


async def look(settings: Settings) -> list[Finding]:
    """Return whether finished hours could go there."""
    data = Path(settings.data)
    folder = folder_of(settings.archive.location, data)
    try:
        seen = await (_bucket(settings) if folder is None else _folder(folder, data))
        own = await trio.to_thread.run_sync(_own, data, abandon_on_cancel=True)
    except (StoreFault, Unreadable) as error:
        return judge_archive(ArchiveSeen("", str(error)))
    return judge_archive(msgspec.structs.replace(seen, own=own[0], may_take_over=own[1]))


async def _folder(folder: Path, data: Path) -> ArchiveSeen:
    """Look at a folder, or at the one that it is to be made in."""

    def see() -> bool:
        place = existing(folder)
        if place not in (folder, folder.absolute().parent) and folder.parent != data:
            raise StoreFault(f"{folder}: there is no {folder.parent}; make it, or mount it")
        try:
            sync_seconds(place)
        except OSError as error:
            raise StoreFault(f"{folder}: cannot write: {error.strerror}") from None
        return folder.is_dir()

    exists = await trio.to_thread.run_sync(see, abandon_on_cancel=True)
    identity = await _identity(FolderStore(folder)) if exists else None
    return ArchiveSeen(str(folder), exists=exists, identity=identity)


async def _bucket(settings: Settings) -> ArchiveSeen:
    from turbod.archive.stores.s3 import (  # noqa: PLC0415 - boto3, which a folder never pays
        PROBE_KEY,
        S3Store,
    )

    place = bucket_of(settings.archive.location)
    assert place is not None, "it is no folder"
    key = f"{PROBE_KEY}-check"
    store = S3Store(
        *place,
        settings.s3,
        connect_seconds=ANSWER_SECONDS,
        answer_seconds=ANSWER_SECONDS,
        probe_key=key,
    )
    identity = await _identity(store)
    with trio.CancelScope(shield=True):  # each step has its own time, and the last one cleans up
        left = await _try(store, key)
    return ArchiveSeen(
        store.url, identity=identity, honours_conditions=store.honours_conditions, left=left
    )


async def _identity(store: Store) -> Identity | None:
    """Return what the archive says of itself."""
    listed = await store.list(after=IDENTITY_KEY[:-1])
    there = next((each for each in listed if each.key == IDENTITY_KEY), None)
    if there is None:
        return None
    if there.size > MAX_IDENTITY_BYTES:
        raise Unreadable(f"{IDENTITY_KEY} has {there.size} bytes; turbod did not write it")
    return decode(await store.read(IDENTITY_KEY, offset=0, size=there.size))


async def _try(store: Store, key: str) -> str:
    """Write, read back and delete a small object; return its key where it cannot be deleted.

    Raises:
        StoreFault: it could not be written or read.
    """
    await store.check()
    try:
        await store.put_bytes(key, _TRIAL)
    except AlreadyThere:
        return key  # of the step before, which could not delete it
    try:
        if await store.read(key, offset=0, size=len(_TRIAL)) != _TRIAL:
            raise StoreFault(f"{store.url}: {key} came back as something else")
    finally:
        left = await _delete(store, key)
    return left


async def _delete(store: Store, key: str) -> str:
    try:
        await store.delete(key)
    except StoreFault:
        return key
    return ""


def _own(data: Path) -> tuple[str | None, bool]:
    """Return the data folder's id, and whether it may take that of an archive."""
    try:
        return load_own(data), is_fresh(data)
    except OSError as error:
        raise StoreFault(f"{data}/instance cannot be read: {error.strerror}") from None
