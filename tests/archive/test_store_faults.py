"""What goes wrong with a bucket is said in one line: which, why, and never a secret."""

import gc
import hashlib
import random
import socket
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio

from tests.archive.s3_servers import ACCESS_KEY, CREDENTIALS, SECRET_KEY, S3Server
from tests.archive.scripted_s3 import HANG, Request, answer, error, scripted_s3, slow_way
from turbod.archive.stores import s3_client
from turbod.archive.stores.blocking import Call
from turbod.archive.stores.s3 import S3Store
from turbod.archive.stores.s3_faults import Task
from turbod.archive.stores.store import AlreadyThere, NeedsMending, NotThere, StoreFault
from turbod.config import S3Settings
from turbod.redaction import redacted

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEY = "dt=2026-11-20/hour=10/1795168800000000-1795168800000005.jsonl.zst"
TOKEN = "FwoGZXIvYXdzEXAMPLEsessiontoken0123456789"
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
Operation = Callable[[S3Store], Awaitable[object]]
OPERATIONS: dict[str, Operation] = {
    "list": lambda store: store.list(),
    "read": lambda store: store.read(KEY, offset=0, size=10),
    "sha256": lambda store: store.sha256(KEY),
    "put": lambda store: store.put_bytes(KEY, b"0123456789"),
    "delete": lambda store: store.delete(KEY),
    "check": lambda store: store.check(),
}
REFUSALS = (
    (error("404 Not Found", "NoSuchBucket"), "no such bucket: make it, or correct --archive"),
    (error("403 Forbidden", "InvalidAccessKeyId"), "the access key is not known"),
    (error("403 Forbidden", "SignatureDoesNotMatch"), "the secret key is wrong"),
    (error("400 Bad Request", "ExpiredToken"), "the session token has expired"),
    (error("403 Forbidden", "AccessDenied"), "no permission: the access keys need s3:"),
    (error("403 Forbidden", "RequestTimeTooSkewed"), "this machine's clock is wrong"),
    (error("503 Slow Down", "SlowDown"), "the server is busy"),
    (error("500 Internal Server Error", "InternalError"), "the server failed"),
    (error("507 Insufficient Storage", "XMinioStorageFull"), "the server's disk is full"),
    (
        error("400 Bad Request", "AuthorizationHeaderMalformed", "expecting 'eu-west-3'"),
        "the bucket lies in eu-west-3: set --s3-region",
    ),
    (
        error("301 Moved", "PermanentRedirect", x_amz_bucket_region="eu-north-1"),
        "the bucket lies in eu-north-1: set --s3-region",
    ),
    (error("400 Bad Request", "InvalidStorageClass", "No such class."), "No such class."),
)
TO_BE_MENDED = (
    "no such bucket",
    "the access key is not known",
    "the secret key is wrong",
    "no permission",
    "the bucket lies in",
)
NOT_S3 = (
    answer("200 OK", b"<html>welcome to the hotel</html>"),
    answer("200 OK", b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>"),
    answer("302 Found", b"", Location="https://example.org/login"),
    answer("403 Forbidden", b"<html>blocked by a proxy</html>"),
    answer("500 Oh", b"\x00\xff" * 100),
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 999999 OK\r\n\r\n",
    b"\x00" * 5000,
)
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment, with a session token; no pause before a second attempt."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    for name, value in {**CREDENTIALS, "AWS_SESSION_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)


def store_at(endpoint: str, *, seconds: float = 5, bucket: str = "bucket") -> S3Store:
    settings = S3Settings(endpoint=endpoint)
    return S3Store(bucket, "archive", settings, connect_seconds=seconds, answer_seconds=seconds)


async def fault(operation: Operation, store: S3Store, *, seconds: float = 15) -> StoreFault:
    """Return how it fails, which must be soon and in one line without secrets."""
    with trio.fail_after(seconds), pytest.raises(StoreFault) as caught:
        await operation(store)
    line = str(caught.value)
    assert line.startswith("s3://"), line
    assert line.isprintable(), line
    assert len(line) < 500, line
    for secret in (ACCESS_KEY, SECRET_KEY, TOKEN):
        assert secret not in line
    return caught.value


@operations
async def test_what_s3_refuses_is_said_in_words(operation: Operation) -> None:
    said = b""

    def script(request: Request) -> bytes:
        # To a HEAD there is no body, so no word for what is wrong; then the HTTP status decides.
        return answer("404 Not Found") if request.method == "HEAD" else said

    async with scripted_s3(script) as server:
        store = store_at(server.endpoint)
        for said, words in REFUSALS:  # noqa: B007 - the script sends it
            found = await fault(operation, store)
            if operation is OPERATIONS["sha256"]:
                assert isinstance(found, NotThere)
            else:
                assert words in str(found)
                assert not isinstance(found, NotThere)


async def test_what_an_operator_must_mend_is_told_from_what_may_pass() -> None:
    said = b""
    async with scripted_s3(lambda _: said) as server:
        store = store_at(server.endpoint)
        for said, words in REFUSALS:  # noqa: B007 - the script sends it
            found = await fault(OPERATIONS["list"], store)
            assert isinstance(found, NeedsMending) == words.startswith(TO_BE_MENDED), words


async def test_a_status_without_a_body_is_enough() -> None:
    said = b""
    async with scripted_s3(lambda _: said) as server:
        store = store_at(server.endpoint)
        for status, words in (
            ("403 Forbidden", "no permission: the access keys need s3:GetObject (403)"),
            ("503 Slow Down", "the server is busy (503)"),
            ("500 Oh", "the server failed (500)"),
            ("418 Teapot", "refused"),
        ):
            said = answer(status)
            assert words in str(await fault(OPERATIONS["sha256"], store))


async def test_a_server_that_never_answers_is_waited_for_so_long_and_no_longer() -> None:
    async with scripted_s3(lambda _: HANG) as server:
        store = store_at(server.endpoint, seconds=0.2)
        for operation in OPERATIONS.values():
            found = await fault(operation, store, seconds=3)
            assert "no answer in time" in str(found) or "not done within 0 s" in str(found)


async def test_a_server_that_breaks_off_is_asked_once_more_at_once() -> None:
    async with scripted_s3(lambda _: b"") as server:
        store = store_at(server.endpoint)
        for number, operation in enumerate(OPERATIONS.values(), 1):
            assert "the connection broke" in str(await fault(operation, store))
            assert len(server.requests) == 2 * number


async def test_a_server_that_is_not_there_is_a_fault() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = store_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for operation in OPERATIONS.values():
            found = await fault(operation, store)
            assert "no connection: refused: does the server run?" in str(found)


async def test_a_name_that_is_not_known_is_a_fault() -> None:
    found = await fault(OPERATIONS["list"], store_at("http://nowhere.invalid"))
    if "no connection: its name could not be looked up" not in str(found):  # without a resolver
        assert "no connection: there is no host of that name" in str(found)
        assert isinstance(found, NeedsMending)


async def test_tls_where_there_is_none_is_a_fault() -> None:
    async with scripted_s3(lambda _: answer("400 Bad Request")) as server:
        store = store_at(server.endpoint.replace("http://", "https://"))
        assert "TLS failed: " in str(await fault(OPERATIONS["list"], store))


@operations
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_answer_that_is_not_s3s_is_a_fault_or_harmless(operation: Operation) -> None:
    """Connections that boto3 then drops unclosed are collected before the next test."""
    said = b""
    async with scripted_s3(lambda _: said) as server:
        store = store_at(server.endpoint, seconds=1)
        for said in NOT_S3:  # noqa: B007 - the script sends it
            with suppress(StoreFault):
                await operation(store)
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_mangled_listings_never_do_more_than_fail() -> None:
    good = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t"
        b"</NextContinuationToken><Contents><Key>archive/a</Key><Size>12</Size><LastModified>"
        b"2026-11-20T10:00:00.000Z</LastModified></Contents></ListBucketResult>"
    )
    draw = random.Random(7)

    def script(_: Request) -> bytes:
        body = bytearray(good)
        for _edit in range(draw.randrange(1, 4)):
            at = draw.randrange(len(body))
            body[at : at + draw.randrange(3)] = draw.choice((b"", b"<", b"x", b"-", b"9" * 30))
        if draw.random() < 0.5:
            body = body.replace(b"true", b"false")
        return answer("200 OK", bytes(body))

    async with scripted_s3(script) as server:
        store = store_at(server.endpoint)
        for _ in range(150):
            with trio.move_on_after(0.5):
                with suppress(StoreFault):
                    for each in await store.list():
                        assert (type(each.key), type(each.size)) == (str, int)
    gc.collect()


async def test_a_server_that_sends_everybody_elsewhere_is_asked_once() -> None:
    """Not again and again where it lies: boto3 itself would, until the stack is full."""
    away = answer("302 Found", Location="https://example.org/login")
    async with scripted_s3(lambda _: away) as server:
        found = await fault(OPERATIONS["list"], store_at(server.endpoint))
        assert len(server.requests) == 1
    assert "elsewhere: correct --s3-endpoint or --s3-region (302)" in str(found)


async def test_a_listing_holds_objects_above_the_key_only() -> None:
    """Whatever the server makes of the key to start after; not our probe, nor a console's marks."""
    rows = (("", 0), ("a/", 0), ("b", 1), ("c", 2), ("d/", 3), ("e/", 0), ("turbod-probe", 9))
    body = EMPTY.replace(
        b"</ListB",
        "".join(
            f"<Contents><Key>archive/{key}</Key><Size>{size}</Size></Contents>"
            for key, size in rows
        ).encode()
        + b"</ListB",
    )
    async with scripted_s3(lambda _: answer("200 OK", body)) as server:
        listed = await store_at(server.endpoint).list(after="b")
        assert "start-after=archive%2Fb&" in server.requests[-1].target
    assert [(each.key, each.size) for each in listed] == [("c", 2), ("d/", 3)]


async def test_a_listing_that_goes_in_circles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbod.archive.stores.s3.MAX_PAGES", 10)
    body = EMPTY.replace(b"false", b"true").replace(
        b"</ListB", b"<NextContinuationToken>again</NextContinuationToken></ListB"
    )
    async with scripted_s3(lambda _: answer("200 OK", body)) as server:
        found = await fault(OPERATIONS["list"], store_at(server.endpoint))
        assert len(server.requests) == 10
    assert "is the prefix the archive's own?" in str(found)


async def test_what_a_server_says_is_passed_on_without_what_looks_like_a_key() -> None:
    """Whatever it repeats of what it was sent."""

    def script(request: Request) -> bytes:
        said = " ".join(request.headers.values()).replace("<", "").replace("&", "")
        return error("400 Bad Request", "Odd", f"It is odd:\n\x85 {TOKEN} {SECRET_KEY} {said}")

    async with scripted_s3(script) as server:
        found = await fault(OPERATIONS["list"], store_at(server.endpoint))
    assert "refused: It is odd: " in str(found)


async def test_a_broken_connection_is_tried_once_more_at_once() -> None:
    answers = [b"", answer("200 OK", EMPTY)]
    async with scripted_s3(lambda _: answers.pop(0)) as server:
        assert await store_at(server.endpoint).list() == []


async def test_keys_that_nobody_has_are_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    async with scripted_s3(lambda _: answer("200 OK", EMPTY)) as server:
        store = store_at(server.endpoint)
        for operation in OPERATIONS.values():
            found = await fault(operation, store)
            assert "no access keys: set AWS_ACCESS_KEY_ID" in str(found)
            assert isinstance(found, NeedsMending)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        assert "only a part of the access keys" in str(await fault(OPERATIONS["list"], store))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        assert await store.list() == []


async def test_a_profile_that_does_not_exist_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "night-shift")
    found = await fault(OPERATIONS["list"], store_at("http://127.0.0.1:9"))
    assert "night-shift" in str(found)


async def test_a_proxys_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:opensesame@127.0.0.1:9")
    found = await fault(OPERATIONS["list"], store_at("http://s3.example.org"))
    assert "HTTP_PROXY" in str(found)
    assert "opensesame" not in str(found)


async def test_a_server_that_knows_no_conditions_is_written_without_one() -> None:
    """After a look; the next write does not try them again."""
    absent = answer("404 Not Found")

    def script(request: Request) -> bytes:
        if request.method == "HEAD":
            return absent
        if "if-none-match" in request.headers:
            return error("501 Not Implemented", "NotImplemented")
        return answer("200 OK")

    async with scripted_s3(script) as server:
        store = store_at(server.endpoint)
        await store.put_bytes(KEY, b"data")
        await store.put_bytes(KEY, b"data")
        assert [each.method for each in server.requests] == ["HEAD", "PUT", "PUT", "HEAD", "PUT"]


@pytest.mark.parametrize("status", ["412 Precondition Failed", "200 OK"])
async def test_a_write_is_conditional_and_a_refused_one_is_already_there(status: str) -> None:
    """Also where nothing was there a moment before."""
    said = {"HEAD": answer("404 Not Found"), "PUT": answer(status)}
    async with scripted_s3(lambda request: said[request.method]) as server:
        if status.startswith("412"):
            found = await fault(OPERATIONS["put"], store_at(server.endpoint))
            assert isinstance(found, AlreadyThere)
        else:
            await OPERATIONS["put"](store_at(server.endpoint))
        assert server.requests[-1].headers["if-none-match"] == "*"


async def test_a_write_that_meets_another_may_be_tried_again() -> None:
    said = {
        "HEAD": answer("404 Not Found"),
        "PUT": error("409 Conflict", "ConditionalRequestConflict"),
    }
    async with scripted_s3(lambda request: said[request.method]) as server:
        found = await fault(OPERATIONS["put"], store_at(server.endpoint))
    assert "to be tried again" in str(found)
    assert not isinstance(found, AlreadyThere)


async def test_bytes_that_were_damaged_on_their_way_are_a_fault() -> None:
    said = {"HEAD": answer("404 Not Found"), "PUT": error("400 Bad Request", "BadDigest")}
    async with scripted_s3(lambda request: said[request.method]) as server:
        found = await fault(OPERATIONS["put"], store_at(server.endpoint))
    assert "damaged on their way" in str(found)


async def test_what_the_settings_ask_for_goes_with_every_write() -> None:
    settings = {"encryption": "aws:kms", "kms_key": "alias/archive", "storage_class": "STANDARD_IA"}
    async with scripted_s3(lambda _: answer("200 OK")) as server:
        own = S3Settings(endpoint=server.endpoint, **settings)
        store = S3Store("bucket", "archive", own)
        store.honours_conditions = True
        await store.put_bytes(KEY, b"data")
        headers = server.requests[-1].headers
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/archive"
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["content-type"] == "application/zstd"


@pytest.mark.parametrize("is_aws", [True, False])
async def test_only_aws_is_believed_what_it_says_of_its_own_checksum(
    monkeypatch: pytest.MonkeyPatch, *, is_aws: bool
) -> None:
    """It took it when the object was written, of what it got; from others all is read back."""
    monkeypatch.setattr("turbod.archive.stores.s3.is_aws", lambda _: is_aws)
    told = hashlib.sha256(b"told").digest()
    said = {
        "PUT": answer("200 OK"),
        "HEAD": answer("200 OK", x_amz_checksum_sha256=b64encode(told).decode()),
        "GET": answer("200 OK", b"read"),
    }
    async with scripted_s3(lambda request: said[request.method]) as server:
        store = store_at(server.endpoint)
        store.honours_conditions = True
        await store.put_bytes(KEY, b"told")
        headers = server.requests[-1].headers
        assert headers["content-md5"] == b64encode(hashlib.md5(b"told").digest()).decode()
        sent = headers.get("x-amz-checksum-sha256")
        assert sent == (b64encode(told).decode() if is_aws else None)
        assert await store.sha256(KEY) == (told if is_aws else hashlib.sha256(b"read").digest())
        assert headers["x-amz-content-sha256"] == told.hex()


@pytest.mark.parametrize("checksum", ["", "AAAA", "!", "A" * 43 + "=-3"])
async def test_a_checksum_that_is_not_of_the_whole_object_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, checksum: str
) -> None:
    monkeypatch.setattr("turbod.archive.stores.s3.is_aws", lambda _: True)
    said = {
        "HEAD": answer("200 OK", x_amz_checksum_sha256=checksum),
        "GET": answer("200 OK", b"read"),
    }
    async with scripted_s3(lambda request: said[request.method]) as server:
        found = await store_at(server.endpoint).sha256(KEY)
    assert found == hashlib.sha256(b"read").digest()


async def test_only_amazons_hosts_are_aws() -> None:
    for region in ("us-east-1", "eu-central-1", "cn-north-1"):
        assert s3_client.is_aws(client_at("", region=region))
    for endpoint in ("http://127.0.0.1:9000", "https://s3.amazonaws.com.example.org"):
        assert not s3_client.is_aws(client_at(endpoint))


def client_at(endpoint: str, *, region: str = "") -> "S3Client":
    asker = s3_client.Asker(
        S3Settings(endpoint=endpoint, region=region), connect_seconds=1, answer_seconds=1
    )
    return asker._made()


async def test_wrong_keys_are_refused_by_a_real_server(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.bucket()
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "wrong" in str(await fault(OPERATIONS["list"], rclone.store(bucket)))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "not known" in str(await fault(OPERATIONS["list"], rclone.store(bucket)))


async def test_keys_are_looked_for_anew_when_told(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They stand in a file that an operator mends while turbod runs."""
    file = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    right = f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
    file.write_text(right.replace(SECRET_KEY, "wrong"))
    store = rclone.store(rclone.bucket())
    assert "wrong" in str(await fault(OPERATIONS["list"], store))
    file.write_text(right)
    assert "wrong" in str(await fault(OPERATIONS["list"], store))
    store.renew()
    assert await store.list() == []


async def test_what_is_under_way_ends_with_the_client_that_it_began_with(rclone: S3Server) -> None:
    asker = s3_client.Asker(rclone.settings, connect_seconds=5, answer_seconds=5)
    task, begun, goes_on = Task("", "read"), trio.Event(), threading.Event()
    bucket = rclone.bucket()

    def work(_: Call, client: "S3Client") -> int:
        trio.from_thread.run_sync(begun.set)
        assert goes_on.wait(5)
        client.list_objects_v2(Bucket=bucket)
        return id(client)

    async with trio.open_nursery() as nursery:
        found: list[int] = []

        async def ask() -> None:
            found.append(await asker.ask(task, work))

        nursery.start_soon(ask)
        await begun.wait()
        asker.renew()
        found.append(await asker.ask(task, lambda _, client: id(client)))
        goes_on.set()
    assert len(set(found)) == 2


@pytest.mark.parametrize("kind", ["rclone", "moto"])
async def test_a_bucket_that_does_not_exist_is_named_by_a_real_server(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    for name in ("list", "check", "read", "put"):
        found = await fault(OPERATIONS[name], server.store("no-such-bucket-here"))
        assert "s3://no-such-bucket-here" in str(found)
        if name != "read":
            assert "there is no such bucket" in str(found), name


async def test_an_answer_that_comes_in_drops_is_not_waited_for_for_ever(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though every drop comes in time."""
    monkeypatch.setattr(s3_client, "SLOWEST_BYTES_PER_SECOND", 10_000_000)
    bucket = moto.bucket()
    moto.client().put_object(Bucket=bucket, Key=f"archive/{KEY}", Body=bytes(2_000_000))
    async with slow_way(moto.port, back=200_000) as endpoint:
        store = store_at(endpoint, bucket=bucket, seconds=0.6)
        found = await fault(OPERATIONS["sha256"], store, seconds=4)
    assert "not done within 1 s" in str(found)


async def test_a_url_of_aws_names_the_host_of_the_buckets_own_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host of all regions may redirect, and what was signed for it does not hold elsewhere."""
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    store = S3Store("bucket", "archive", S3Settings(region="us-west-2"))
    url = await store.url_of(KEY, seconds=60)
    assert url is not None
    assert url.startswith("https://bucket.s3.us-west-2.amazonaws.com/archive/dt%3D2026-11-20/")


async def test_the_keys_in_use_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "wJalrXUtnFEMIsK7MDENGsbPxRfiCYEXAMPLEKEX"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    store = S3Store("bucket", "", S3Settings(endpoint="http://127.0.0.1:9"))
    with pytest.raises(StoreFault):
        await store.list()
    assert redacted(f"{secret} {TOKEN}") == "*** ***"
