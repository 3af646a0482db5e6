"""A folder as archive: what only a folder can meet."""

import errno
import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from turbod.archive.stores import folder
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.store import AlreadyThere, NotThere, StoreFault

KEY = "dt=2026-11-20/hour=10/1795168800000000-1795168800000005.jsonl.zst"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the archive is to lie."""
    return tmp_path / "archive"


def source(tmp_path: Path, data: bytes = b"0123456789") -> Path:
    path = tmp_path / "sealed.jsonl.zst"
    path.write_bytes(data)
    return path


def everything(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def files(path: Path) -> list[str]:
    return [name for name in everything(path) if (path / name).is_file()]


async def test_on_one_disk_there_is_one_copy(root: Path, tmp_path: Path) -> None:
    path = source(tmp_path)
    store = FolderStore(root)
    await store.put(KEY, path)
    assert (root / KEY).samefile(path)
    path.unlink()  # as pruning does
    assert await store.read(KEY, offset=0, size=10) == b"0123456789"


async def test_where_there_are_no_hard_links_it_is_copied_and_renamed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = FolderStore(root)
    await store.put(KEY, source(tmp_path))
    with pytest.raises(AlreadyThere):
        await store.put(KEY, source(tmp_path, b"other"))
    assert files(root) == [KEY]
    assert await store.read(KEY, offset=0, size=10) == b"0123456789"


async def test_a_full_disk_is_a_fault_that_leaves_nothing(other_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(other_disk)
    with pytest.raises(StoreFault, match=f"{other_disk}: cannot write {KEY}: No space left"):
        await store.put(KEY, source(tmp_path, random.randbytes(9_000_000)))
    assert files(other_disk) == []
    await store.put(KEY, source(tmp_path))
    assert files(other_disk) == [KEY]


async def test_a_crash_leaves_nothing_after_the_next_start(root: Path) -> None:
    """But what another process is still writing stays."""
    store = FolderStore(root)
    await store.put_bytes(KEY, b"whole")
    dead = folder._leftover_of(root / KEY)
    alive = folder._leftover_of(root / "turbod.json")
    dead.write_bytes(b"half")
    alive.write_bytes(b"half")
    assert [each.key for each in await store.list()] == [KEY]
    with alive.open("rb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        await store.check()
        assert files(root) == sorted([KEY, alive.name])
    await store.check()
    assert files(root) == [KEY]


async def test_no_key_leads_out_of_the_folder(root: Path, tmp_path: Path) -> None:
    secret = source(tmp_path)
    store = FolderStore(root)
    await store.check()
    out = (f"../{secret.name}", f"a/../../{secret.name}", str(secret))
    for key in (*out, "", "a//b", "./a", "a\0"):
        with pytest.raises(NotThere):
            await store.read(key, offset=0, size=10)
        with pytest.raises(NotThere):
            await store.put_bytes(key, b"mine")
        with pytest.raises(NotThere):
            await store.delete(key)
    assert files(tmp_path) == [secret.name]


async def test_a_folder_whose_disk_is_not_there_is_a_fault_and_no_empty_archive(
    root: Path, tmp_path: Path
) -> None:
    """Nor is anything of it said to be missing."""
    store = FolderStore(tmp_path / "no such disk" / "archive")
    for operation in (store.check(), store.list(), store.put(KEY, source(tmp_path))):
        with pytest.raises(StoreFault, match="No such file or directory"):
            await operation
    with pytest.raises(StoreFault) as caught:
        await FolderStore(root).read(KEY, offset=0, size=1)
    assert not isinstance(caught.value, NotThere)
    await FolderStore(root).check()
    assert await FolderStore(root).list() == []


async def test_a_file_in_place_of_the_folder_is_a_fault(root: Path) -> None:
    store = FolderStore(source(root.parent))
    for operation in (store.check(), store.list(), store.put_bytes(KEY, b""), store.sha256(KEY)):
        with pytest.raises(StoreFault, match="Not a directory"):
            await operation


async def test_a_folder_in_place_of_an_object_is_a_fault(root: Path, tmp_path: Path) -> None:
    (root / KEY).mkdir(parents=True)
    store = FolderStore(root)
    for operation in (store.read(KEY, offset=0, size=1), store.sha256(KEY), store.delete(KEY)):
        with pytest.raises(StoreFault, match="Is a directory"):
            await operation
    with pytest.raises(StoreFault):
        await store.put(KEY, source(tmp_path))
    assert await store.list() == []


async def test_folders_go_with_their_last_object_and_the_root_stays(root: Path) -> None:
    store = FolderStore(root)
    other = KEY.replace("hour=10", "hour=11")
    await store.put_bytes(KEY, b"")
    await store.put_bytes(other, b"")
    await store.delete(KEY)
    assert everything(root) == [Path(other).parts[0], str(Path(other).parent), other]
    await store.delete(other)
    assert everything(root) == []


async def test_names_that_are_no_text_do_no_harm(root: Path) -> None:
    """They are listed as they can be shown; other folders are left alone."""
    store = FolderStore(root)
    await store.put_bytes(KEY, b"")
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"12")
    (root / os.fsdecode(b"dt=\xff")).mkdir()
    (root / os.fsdecode(b"dt=\xff/hour=\n")).mkdir()
    (root / "lost+found").mkdir()
    (root / "lost+found" / "x").write_bytes(b"")
    listed = await store.list()
    assert [each.key for each in listed] == [KEY, "��"]
    for each in listed:
        each.key.encode()


async def test_a_partition_may_be_a_link_to_another_disk(root: Path, tmp_path: Path) -> None:
    store = FolderStore(root)
    await store.put_bytes(KEY, b"0123456789")
    (root / "dt=2026-11-20").rename(tmp_path / "moved")
    (root / "dt=2026-11-20").symlink_to(tmp_path / "moved")
    assert [each.key for each in await store.list()] == [KEY]
    assert await store.read(KEY, offset=3, size=2) == b"34"


async def test_a_disk_that_hangs_is_a_fault_in_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network's file system does whose server is away; a pipe that nobody writes hangs too."""
    monkeypatch.setattr(folder, "ANSWER_SECONDS", 0.3)
    store = FolderStore(root)
    await store.check()
    os.mkfifo(root / "pipe")
    with pytest.raises(StoreFault, match="cannot read pipe: not done within 0 s"):
        await store.read("pipe", offset=0, size=1)
    os.close(os.open(root / "pipe", os.O_WRONLY))  # lets its thread end
    assert await store.list() == []


def test_a_folder_costs_no_boto3() -> None:
    """Of 25 MB."""
    code = (
        "import pathlib, sys\n"
        "from turbod.archive.stores.store import open_store\n"
        "from turbod.config import ArchiveSettings, S3Settings\n"
        "open_store(ArchiveSettings(), S3Settings(), pathlib.Path('data'))\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
