"""The archiver and real S3 servers, with a proxy of faults between."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.archive.archivers import Machine, put_into, retry_quickly, until
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import S3Server
from tests.archive.samples_archive import plain_lines
from turbod.archive.format.names import IDENTITY_KEY, Name
from turbod.archive.stores.s3 import S3Store
from turbod.archive.upload.archiver import Archiver
from turbod.config import ArchiveSettings, S3Settings

NOISE = 3000  # a line, so that an object takes several blocks of the proxy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture(params=["rclone", pytest.param("moto", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> S3Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3Server)
    return found


class Site:
    """A machine, the bucket, and the proxy between them."""

    def __init__(self, machine: Machine, server: S3Server, bucket: str, proxy: FaultyS3) -> None:
        self.machine = machine
        self.server = server
        self.bucket = bucket
        self.proxy = proxy

    def stored(self) -> dict[str, bytes]:
        """Return all that is in the bucket, by key, read without turbod."""
        client = self.server.client()
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        keys = [each["Key"] for each in listed]
        return {
            key.removeprefix("archive/"): client.get_object(Bucket=self.bucket, Key=key)[
                "Body"
            ].read()
            for key in keys
        }

    def is_whole(self) -> bool:
        """Tell whether the store has each verified object once, as it is here, and no more."""
        stored = self.stored()
        stored.pop(IDENTITY_KEY)
        folder = self.machine.data / "verified"
        here = {path.name: path.read_bytes() for path in folder.iterdir()}
        return here == {key.rpartition("/")[2]: data for key, data in stored.items()}


@asynccontextmanager
async def at(server: S3Server, tmp_path: Path, *, seconds: float = 20) -> AsyncIterator[Site]:
    """Bring a machine to a server, through a proxy that is good as yet."""
    bucket = server.bucket()
    proxy = FaultyS3(server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        settings = S3Settings(endpoint=proxy.endpoint)
        store = S3Store(bucket, "archive", settings, connect_seconds=1, answer_seconds=seconds)
        location = ArchiveSettings(location=f"s3://{bucket}/archive")
        machine = Machine(tmp_path / "data", store, settings=location)
        yield Site(machine, server, bucket, proxy)
        nursery.cancel_scope.cancel()


async def test_what_waits_is_stored_oldest_first(server: S3Server, tmp_path: Path) -> None:
    async with at(server, tmp_path) as site:
        for hour in (2, 1, 3):
            site.machine.seal(hour)
        async with site.machine.running() as archiver:
            await until(lambda: archiver.statistics().uploaded == 3)
            assert archiver.statistics().state == "ok"
            assert archiver.statistics().hours_left is None
        assert site.is_whole()
        assert site.machine.files("sealed") == []


FAULTS: dict[str, tuple[Callable[[FaultyS3], None], str]] = {
    "down": (FaultyS3.go_down, "refused"),
    "500": (lambda proxy: setattr(proxy, "answer", (500, "InternalError")), ""),
    "slow down": (lambda proxy: setattr(proxy, "answer", (503, "SlowDown")), "busy"),
    "no permission": (lambda proxy: setattr(proxy, "answer", (403, "AccessDenied")), "s3:"),
    "cut in the middle": (lambda proxy: setattr(proxy, "takes_bytes", 20_000), ""),
    "answer lost": (lambda proxy: setattr(proxy, "loses_answers", True), ""),
    "no answer": (lambda proxy: setattr(proxy, "stalls", True), ""),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_told_and_costs_nothing(
    server: S3Server, tmp_path: Path, fault: str
) -> None:
    """Every kind of fault, while an object is being put; then all is as if there had been none."""
    begin, words = FAULTS[fault]
    async with at(server, tmp_path, seconds=0.5 if fault == "no answer" else 20) as site:
        async with site.machine.running() as archiver:
            site.machine.sealed(archiver, 1)
            await until(lambda: archiver.statistics().uploaded)
            site.proxy.only = "PUT"
            begin(site.proxy)
            site.machine.sealed(archiver, 2, noise=NOISE)
            site.machine.sealed(archiver, 3)
            await until(lambda: archiver.statistics().state == "failing")
            assert words in str(archiver.statistics().fault)
            assert len(site.machine.files("verified")) == 1 or fault == "answer lost"
            site.proxy.be_good()
            site.proxy.come_up()
            await until(lambda: archiver.statistics().uploaded == 3)
            assert archiver.statistics().state == "ok"
        assert site.is_whole()


async def test_an_answer_that_was_lost_costs_no_second_upload(
    server: S3Server, tmp_path: Path
) -> None:
    async with at(server, tmp_path) as site, site.machine.running() as archiver:
        site.proxy.only, site.proxy.loses_answers = "PUT", True
        name = site.machine.sealed(archiver, 1)
        await until(lambda: archiver.statistics().uploaded)
        # botocore asks twice by itself.
        assert site.proxy.seen[f"PUT /{site.bucket}/archive/{_quoted(name)}"] <= 2
        assert site.is_whole()


async def test_what_is_spoilt_on_its_way_does_not_count(moto: S3Server, tmp_path: Path) -> None:
    """What comes is taken by moto; rclone would see by the MD5 that it is not what was sent."""
    async with at(moto, tmp_path) as site, site.machine.running() as archiver:
        site.proxy.only, site.proxy.spoils = "PUT", True
        site.machine.sealed(archiver, 1, noise=NOISE)
        await until(lambda: archiver.statistics().state == "failing")
        assert "other bytes were stored than were sent" in str(archiver.statistics().fault)
        assert site.machine.files("verified") == []
        site.proxy.be_good()
        await until(lambda: archiver.statistics().uploaded)
        assert site.is_whole()


async def test_what_is_spoilt_where_it_is_kept_does_not_count(
    rclone: S3Server, tmp_path: Path
) -> None:
    async with at(rclone, tmp_path) as site:
        assert rclone.folder is not None
        name = site.machine.seal(1)
        path = rclone.folder / site.bucket / "archive" / name.key
        async with site.machine.running():
            await until(path.exists)
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        verified = site.machine.data / "verified" / name.file
        if verified.exists():
            verified.rename(site.machine.data / "sealed" / name.file)
        async with site.machine.running() as archiver:
            await until(lambda: archiver.statistics().state == "conflict")
            assert name.key in str(archiver.statistics().fault)
            assert site.machine.files("sealed") == [name.file]
        assert path.read_bytes() == data


@pytest.mark.parametrize("ignores", [False, True])
async def test_a_key_taken_a_moment_before_is_never_overwritten(
    server: S3Server, tmp_path: Path, *, ignores: bool
) -> None:
    """Between our listing and our put another stores the same key: whole, with other content."""
    if ignores and server.folder is not None:
        pytest.skip("rclone does so by itself, and checks the signature of every header")
    lines = plain_lines(1, 20)
    lines[3] = lines[3].replace(b"null", b"true")
    theirs = put_into(tmp_path / "elsewhere", lines)
    before = theirs.read_bytes()
    async with at(server, tmp_path) as site:
        site.proxy.only, site.proxy.ignores_conditions = "PUT", ignores
        look = site.machine.store.list
        name = Name(*map(int, theirs.name.partition(".")[0].split("-")))

        async def look_too_early(*, after: str = "") -> list[object]:
            listed: list[object] = list(await look(after=after))
            if after:
                key = f"archive/{name.key}"
                server.client().put_object(Bucket=site.bucket, Key=key, Body=before)
            return listed

        async with site.machine.running() as archiver:
            site.machine.store.list = look_too_early  # type: ignore[method-assign, assignment]
            assert site.machine.sealed(archiver, 1) == name
            await until(lambda: archiver.statistics().state == "conflict")
            assert site.machine.files("sealed") == [name.file]
        assert site.stored()[name.key] == before


async def test_an_upload_under_way_ends_promptly_and_is_done_at_the_next_start(
    server: S3Server, tmp_path: Path
) -> None:
    async with at(server, tmp_path) as site:
        site.proxy.only, site.proxy.bytes_per_second = "PUT", 20_000
        async with site.machine.running() as archiver:
            name = site.machine.sealed(archiver, 1, noise=NOISE)
            key = f"PUT /{site.bucket}/archive/{_quoted(name)}"
            await until(lambda: site.proxy.seen[key])
            began = trio.current_time()
        assert trio.current_time() - began < 2
        assert site.machine.files("sealed") == [name.file]
        site.proxy.be_good()
        async with site.machine.running() as archiver:
            await until(lambda: archiver.statistics().uploaded)
        assert site.is_whole()


@pytest.mark.parametrize("code", ["NoSuchBucket", "SignatureDoesNotMatch"])
async def test_a_bucket_that_cannot_be_used_is_told_at_the_start(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    store = server.store("no-such-bucket-here")
    if code == "SignatureDoesNotMatch":
        if server.folder is None:
            pytest.skip("moto believes everybody")
        store = server.store(server.bucket())
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    machine = Machine(tmp_path / "data", store, settings=ArchiveSettings(location="s3://bucket"))
    machine.seal(1)
    words = {"NoSuchBucket": "no such bucket", "SignatureDoesNotMatch": "secret key is wrong"}
    async with machine.running(open_seconds=0.1) as archiver:
        await until(lambda: words[code] in str(archiver.statistics().fault))
        statistics = archiver.statistics()
        assert statistics.state == "failing"
        assert (statistics.hours_waiting, archiver.instance != "") == (1, True)


async def test_a_fresh_machine_with_the_same_bucket_goes_on(
    server: S3Server, tmp_path: Path
) -> None:
    async with at(server, tmp_path) as site:
        async with site.machine.running() as archiver:
            site.machine.sealed(archiver, 1)
            await until(lambda: archiver.statistics().uploaded)
            instance = archiver.instance
        fresh = Machine(tmp_path / "fresh", site.machine.store, settings=site.machine.settings)
        async with fresh.running() as archiver:
            assert archiver.instance == instance
            assert [held.is_stored for held in fresh.catalogue] == [True]
            fresh.sealed(archiver, 2)
            await until(lambda: archiver.statistics().uploaded)
            assert _is_well(archiver)
        assert len(site.stored()) == 3


def _is_well(archiver: Archiver) -> bool:
    statistics = archiver.statistics()
    return statistics.state == "ok" and not statistics.conflicts and not statistics.foreign


def _quoted(name: Name) -> str:
    return name.key.replace("=", "%3D")
