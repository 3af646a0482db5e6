"""What `turbod check` says of the archive: real folders, real S3 servers, and what it leaves."""

from pathlib import Path

import pytest
import trio

from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import S3Server
from tests.archive.scripted_s3 import Request, answer, error, scripted_s3
from turbod.archive.format.names import IDENTITY_KEY
from turbod.archive.stores.s3 import PROBE_KEY
from turbod.archive.upload.identity import encode, new_identity, save_own
from turbod.check import archive
from turbod.check.finding import Finding
from turbod.config import ArchiveSettings, S3Settings, Settings

OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


async def found(data: Path, location: str = "", s3: S3Settings | None = None) -> list[Finding]:
    return await archive.look(
        Settings(
            data=str(data),
            archive=ArchiveSettings(location=location),
            s3=s3 or S3Settings(),
        )
    )


def owned(data: Path, instance: str) -> Path:
    """Give a data folder an id."""
    data.mkdir(exist_ok=True)
    save_own(data, instance)
    return data


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ---- folders


async def test_the_default_is_ok_before_there_is_anything_and_makes_nothing(
    tmp_path: Path,
) -> None:
    [finding] = await found(tmp_path / "data")
    assert finding.mark == "ok"
    assert "to be made" in finding.found
    assert everything(tmp_path) == []


async def test_a_folder_of_ours_is_ok_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    data = owned(tmp_path / "data", OURS)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / IDENTITY_KEY).write_bytes(encode(new_identity(OURS)))
    before = everything(tmp_path)
    [finding] = await found(data, str(tmp_path / "a"))
    assert finding.mark == "ok"
    assert f"ours ({OURS})" in finding.found
    assert everything(tmp_path) == before


async def test_that_of_another_is_a_fault_and_of_a_fresh_machine_a_takeover(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / IDENTITY_KEY).write_bytes(encode(new_identity(THEIRS)))
    [fresh] = await found(tmp_path / "fresh", str(tmp_path / "a"))
    assert fresh.mark == "warning"
    assert THEIRS in fresh.found
    [other] = await found(owned(tmp_path / "data", OURS), str(tmp_path / "a"))
    assert other.mark == "fault"
    assert THEIRS in other.found
    assert OURS in other.found


@pytest.mark.parametrize("said", [b"{", b'{"format":99,"instance":"a"}', b"x" * 70_000])
async def test_an_archive_that_does_not_say_whose_it_is_is_a_fault(
    said: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / IDENTITY_KEY).write_bytes(said)
    [finding] = await found(tmp_path / "data", str(tmp_path / "a"))
    assert finding.mark == "fault"
    assert IDENTITY_KEY in finding.found


async def test_a_folder_whose_own_is_not_there_is_a_fault_for_a_mount_may_be_missing(
    tmp_path: Path,
) -> None:
    [finding] = await found(tmp_path / "data", str(tmp_path / "mnt" / "disk" / "archive"))
    assert finding.mark == "fault"
    assert "mount it" in finding.found


# ---- buckets


@pytest.mark.parametrize("server", ["rclone", "moto"])
async def test_a_bucket_is_written_read_and_left_as_it_was(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    bucket = s3.bucket()
    [finding] = await found(tmp_path / "data", f"s3://{bucket}/a", s3.settings)
    assert finding.mark == "ok"
    assert ("conditional writes honoured" in finding.found) == (server == "moto")
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)
    assert everything(tmp_path) == []


async def test_a_bucket_of_ours_and_that_of_another(moto: S3Server, tmp_path: Path) -> None:
    bucket = moto.bucket()
    said = encode(new_identity(THEIRS))
    moto.client().put_object(Bucket=bucket, Key=f"a/{IDENTITY_KEY}", Body=said)
    where = f"s3://{bucket}/a"
    [ours] = await found(owned(tmp_path / "theirs", THEIRS), where, moto.settings)
    [other] = await found(owned(tmp_path / "ours", OURS), where, moto.settings)
    [fresh] = await found(tmp_path / "fresh", where, moto.settings)
    assert [each.mark for each in (ours, other, fresh)] == ["ok", "fault", "warning"]


async def test_what_it_tries_with_is_not_seen_by_a_turbod_that_lists_meanwhile(
    moto: S3Server,
) -> None:
    bucket = moto.bucket()
    moto.client().put_object(Bucket=bucket, Key=f"archive/{PROBE_KEY}-check", Body=b"x")
    assert await moto.store(bucket).list() == []


async def test_it_does_not_use_the_key_with_which_a_starting_turbod_tries(
    moto: S3Server, tmp_path: Path
) -> None:
    bucket = moto.bucket()
    theirs = f"a/{PROBE_KEY}"
    moto.client().put_object(Bucket=bucket, Key=theirs, Body=b"theirs")
    [finding] = await found(tmp_path / "data", f"s3://{bucket}/a", moto.settings)
    assert finding.mark == "ok"
    assert moto.client().get_object(Bucket=bucket, Key=theirs)["Body"].read() == b"theirs"


async def test_a_bucket_that_is_not_there_is_a_fault(moto: S3Server, tmp_path: Path) -> None:
    [finding] = await found(tmp_path / "data", "s3://turbod-nowhere/a", moto.settings)
    assert finding.mark == "fault"
    assert "there is no such bucket" in finding.found


async def test_wrong_keys_are_a_fault(
    rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    [finding] = await found(tmp_path / "data", f"s3://{bucket}/a", rclone.settings)
    assert finding.mark == "fault"
    assert "secret key is wrong" in finding.found


async def test_no_keys_are_a_fault(
    rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    [finding] = await found(tmp_path / "data", f"s3://{bucket}/a", rclone.settings)
    assert finding.mark == "fault"
    assert "AWS_ACCESS_KEY_ID" in finding.found


@pytest.mark.usefixtures("moto")
async def test_keys_that_may_not_write_are_a_fault(tmp_path: Path) -> None:
    def script(request: Request) -> bytes:
        is_list = request.method == "GET"
        return answer("200 OK", EMPTY) if is_list else error("403 Forbidden", "AccessDenied")

    async with scripted_s3(script) as server:
        s3 = S3Settings(endpoint=server.endpoint, addressing="path")
        [finding] = await found(tmp_path / "data", "s3://turbod-test/a", s3)
        assert finding.mark == "fault"
        assert "s3:PutObject" in finding.found


async def test_keys_that_may_not_delete_are_a_warning_that_names_what_is_left(
    moto: S3Server, tmp_path: Path
) -> None:
    bucket = moto.bucket()
    way = FaultyS3(moto.port)
    way.only, way.answer = "DELETE", (403, "AccessDenied")
    async with trio.open_nursery() as nursery:
        await nursery.start(way.run)
        s3 = S3Settings(endpoint=way.endpoint, addressing="path")
        [first, left] = await found(tmp_path / "data", f"s3://{bucket}/a", s3)
        nursery.cancel_scope.cancel()
    assert first.mark == "ok"
    assert left.mark == "warning"
    assert f"{PROBE_KEY}-check" in left.found


async def test_a_server_that_never_answers_is_a_fault_in_time(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moto.port
    monkeypatch.setattr(archive, "ANSWER_SECONDS", 0.3)
    async with scripted_s3(lambda _: None) as server:
        with trio.fail_after(5):
            [finding] = await found(
                tmp_path / "data", "s3://turbod-test/a", S3Settings(endpoint=server.endpoint)
            )
    assert finding.mark == "fault"
