"""What every archive promises, whether it lies in a folder or in a bucket."""

import hashlib
import os
import random
from pathlib import Path

import httpx
import pytest
import trio

from tests.archive.s3_servers import S3Server
from tests.archive.scripted_s3 import slow_way
from turbod.archive.format.names import Name
from turbod.archive.stores import folder, s3
from turbod.archive.stores.blocking import Threads
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.s3 import S3Store
from turbod.archive.stores.store import AlreadyThere, NotThere, Store, StoreFault, open_store
from turbod.config import ArchiveSettings, S3Settings

HOUR = 3_600_000_000
T0 = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z
KEY = Name(T0, T0 + 5).key
NEXT_KEY = Name(T0 + HOUR, T0 + HOUR + 5).key


@pytest.fixture(params=["folder", "other_disk", "rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty archive of each kind."""
    if request.param == "folder":
        return FolderStore(tmp_path / "archive")
    if request.param == "other_disk":
        mount: Path = request.getfixturevalue("other_disk")
        return FolderStore(mount / "archive")
    server: S3Server = request.getfixturevalue(request.param)
    return server.store(server.bucket())


@pytest.fixture(params=["rclone", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each S3 server."""
    found: S3Server = request.getfixturevalue(request.param)
    return found


def file(tmp_path: Path, data: bytes, name: str = "object") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


async def idle(threads: Threads) -> None:
    while threads._limiter.borrowed_tokens:  # noqa: ASYNC110 - a call left behind wakes nobody
        await trio.sleep(0.01)


async def keys(store: Store, *, after: str = "") -> list[str]:
    return [each.key for each in await store.list(after=after)]


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
async def test_what_is_put_comes_back_byte_for_byte(
    store: Store, tmp_path: Path, size: int
) -> None:
    data = random.randbytes(size)
    await store.check()
    await store.put(KEY, file(tmp_path, data))
    assert [(each.key, each.size) for each in await store.list()] == [(KEY, size)]
    assert await store.read(KEY, offset=0, size=size) == data
    assert await store.sha256(KEY) == hashlib.sha256(data).digest()


async def test_any_range_is_exact_and_none_goes_beyond_the_end(store: Store) -> None:
    data = random.randbytes(10_000)
    await store.check()
    await store.put_bytes(KEY, data)
    for offset, size in ((0, 1), (9_999, 1), (17, 4_096), (0, 10_000), (5, 0)):
        assert await store.read(KEY, offset=offset, size=size) == data[offset : offset + size]
    for offset, size in ((0, 10_001), (9_999, 2), (10_000, 1), (1_000_000, 5)):
        with pytest.raises(StoreFault) as caught:
            await store.read(KEY, offset=offset, size=size)
        assert not isinstance(caught.value, NotThere)
        assert "\n" not in str(caught.value)


async def test_what_is_not_there_is_said_to_be_not_there(store: Store) -> None:
    await store.check()
    await store.put_bytes(NEXT_KEY, b"another")
    for absent in (KEY, "turbod.json", "dt=2026-11-20/hour=11/", "nowhere/at/all"):
        with pytest.raises(NotThere):
            await store.read(absent, offset=0, size=10)
        with pytest.raises(NotThere):
            await store.sha256(absent)
    await store.delete(KEY)
    assert await keys(store) == [NEXT_KEY]


@pytest.mark.parametrize("is_checked", [True, False])
async def test_nothing_is_overwritten(store: Store, tmp_path: Path, *, is_checked: bool) -> None:
    """Whether or not it is known what the server does with conditional writes."""
    if is_checked:
        await store.check()
    await store.put(KEY, file(tmp_path, b"the first"))
    with pytest.raises(AlreadyThere):
        await store.put(KEY, file(tmp_path, b"the second", "second"))
    with pytest.raises(AlreadyThere):
        await store.put_bytes(KEY, b"the third")
    assert await store.read(KEY, offset=0, size=9) == b"the first"


async def test_a_listing_is_complete_and_in_order_and_starts_above_a_key(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several pages, where the store has pages."""
    monkeypatch.setattr(s3, "LISTED_A_PAGE", 7)
    await store.check()
    wanted = ["turbod.json", *(Name(T0 + i * HOUR, T0 + i * HOUR + i).key for i in range(26))]
    for key in random.sample(wanted, len(wanted)):
        await store.put_bytes(key, b"12")
    wanted.sort()
    assert await keys(store) == wanted
    for after in (*wanted, "dt=2026-11-21/", "dt=2026-11-20/hour=12", "a", "z", wanted[9] + "!"):
        assert await keys(store, after=after) == [key for key in wanted if key > after], after


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_more_than_a_thousand_objects_are_listed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = sorted(Name(T0 + i * HOUR, T0 + i * HOUR + 1).key for i in range(1_001))
    root, store = tmp_path, FolderStore(tmp_path / "archive")
    if kind == "rclone":
        server: S3Server = request.getfixturevalue(kind)
        bucket = server.bucket()
        assert server.folder is not None
        root, store = server.folder / bucket, server.store(bucket)  # type: ignore[assignment]
    for key in wanted:
        path = root / "archive" / key
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert await keys(store) == wanted
    assert await keys(store, after=wanted[500]) == wanted[501:]


async def test_foreign_objects_are_listed_and_the_stores_own_traces_are_not(store: Store) -> None:
    await store.check()
    foreign = ["notes.txt", "dt=2026-11-20/hour=10/notes é = &.txt", "dt=2026-11-20/.hidden"]
    for key in foreign:
        await store.put_bytes(key, b"mine")
    await store.check()
    assert await keys(store) == sorted(foreign)
    assert await store.read(foreign[1], offset=1, size=3) == b"ine"


async def test_a_deleted_object_is_gone_and_may_be_put_again(store: Store, tmp_path: Path) -> None:
    await store.check()
    for data in (b"once", b"twice"):
        await store.put(KEY, file(tmp_path, data))
        await store.delete(KEY)
        assert await store.list() == []
        await store.delete(KEY)
        (tmp_path / "object").unlink()


async def test_an_absent_file_is_named(store: Store, tmp_path: Path) -> None:
    await store.check()
    with pytest.raises(StoreFault, match=r"cannot .*absent: No such file"):
        await store.put(KEY, tmp_path / "absent")
    assert await store.list() == []


async def test_many_calls_at_once_do_not_mix(store: Store, tmp_path: Path) -> None:
    await store.check()
    objects = {Name(T0 + i * HOUR, T0 + i * HOUR).key: random.randbytes(9_000) for i in range(20)}

    async def there_and_back(key: str, data: bytes) -> None:
        await store.put(key, file(tmp_path, data, str(hash(key))))
        assert await store.read(key, offset=100, size=8_000) == data[100:8_100]
        assert await store.sha256(key) == hashlib.sha256(data).digest()

    async with trio.open_nursery() as nursery:
        for key, data in objects.items():
            nursery.start_soon(there_and_back, key, data)
    assert await keys(store) == sorted(objects)


async def test_of_two_that_write_one_key_at_once_the_object_is_one_of_theirs(
    store: Store, tmp_path: Path
) -> None:
    """And at most one is told that it wrote it, unless the server ignores conditions."""
    await store.check()
    stored = []

    async def put(data: bytes) -> None:
        try:
            await store.put(KEY, file(tmp_path, data, data[:1].decode()))
        except AlreadyThere:
            return
        stored.append(data)

    async with trio.open_nursery() as nursery:
        for letter in (b"a", b"b", b"c"):
            nursery.start_soon(put, letter * 500_000)
    assert await store.read(KEY, offset=0, size=500_000) in stored
    if not isinstance(store, S3Store) or store.honours_conditions:
        assert len(stored) == 1


@pytest.mark.parametrize("way", [{"stuck_after_bytes": 1e6}, {"there": 2e6}])
async def test_a_cancelled_upload_ends_at_once_and_leaves_nothing_partial(
    server: S3Server, tmp_path: Path, way: dict[str, float]
) -> None:
    """Whether the server takes the body slowly or, in the middle, no more of it."""
    bucket = server.bucket()
    path = file(tmp_path, random.randbytes(20_000_000))
    async with slow_way(server.port, **way) as endpoint:
        store = S3Store(bucket, "archive", S3Settings(endpoint=endpoint))
        started = trio.current_time()
        with trio.move_on_after(0.5):
            await store.put(KEY, path)
        assert 0.4 < trio.current_time() - started < 6  # a whole one takes many
        with trio.fail_after(10):  # its thread ends as well
            await idle(store._asker._threads if "there" in way else Threads(1))
    direct = server.store(bucket)
    await trio.sleep(0.1)
    assert await direct.list() == []
    await direct.put(KEY, path)


async def test_a_cancelled_copy_leaves_nothing(
    other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder on another disk."""
    monkeypatch.setattr(folder, "BLOCK_BYTES", 1)
    store = FolderStore(other_disk)
    with trio.move_on_after(0.1):
        await store.put(KEY, file(tmp_path, bytes(7_000_000)))
    with trio.fail_after(3):
        await idle(store._threads)
    assert not [name for _, _, names in os.walk(other_disk) for name in names]


async def test_a_presigned_url_is_read_by_anybody_without_keys(server: S3Server) -> None:
    store = server.store(server.bucket())
    await store.put_bytes(KEY, b"0123456789")
    url = await store.url_of(KEY, seconds=60)
    assert url is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url, headers={"Range": "bytes=2-4"})
    assert answer.content == b"234"


async def test_the_settings_lead_to_the_archive(tmp_path: Path) -> None:
    """A folder in the data folder where they name none; nothing is made yet."""
    found = open_store(ArchiveSettings(), S3Settings(), tmp_path)
    assert found.url == str(tmp_path / "archive")
    assert not (tmp_path / "archive").exists()
    found = open_store(ArchiveSettings(location="/mnt/disk"), S3Settings(), tmp_path)
    assert found.url == "/mnt/disk"
    settings = S3Settings(endpoint="https://s3.example.org:9000")
    found = open_store(ArchiveSettings(location="s3://bucket/a/b/"), settings, tmp_path)
    assert found.url == "s3://bucket/a/b at s3.example.org:9000"
