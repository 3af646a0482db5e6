"""An archive in an S3 bucket, one request an object."""

import hashlib
import io
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypedDict
from urllib.parse import urlsplit

import msgspec
import structlog
import trio
from botocore.exceptions import ClientError

from turbod.archive.stores.blocking import Call
from turbod.archive.stores.s3_body import BLOCK_BYTES, Upload, options_of, telling_unreadable
from turbod.archive.stores.s3_client import ANSWER_SECONDS, CONNECT_SECONDS, Asker, is_aws
from turbod.archive.stores.s3_faults import Task, code_of
from turbod.archive.stores.store import MAX_LISTED, AlreadyThere, Listed, NotThere, StoreFault
from turbod.config import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.get_logger()

# A thread that parses keeps the event loop waiting: 36 us an object, so 7 ms a page.
LISTED_A_PAGE: Final = 200
MAX_PAGES: Final = 2 * MAX_LISTED // LISTED_A_PAGE
PROBE_KEY: Final = "turbod-probe"
_PROBE: Final = b"turbod tries here what the server does with conditional writes\n"


class S3Store:
    """An archive below a prefix of a bucket.

    Never overwrites: a write is conditional where the server honours that. Some accept the
    condition and ignore it, so where it is not known to be honoured, or is refused, we look first.

    Attributes:
        honours_conditions: whether the server honours conditional writes, None where not known.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        settings: S3Settings,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        probe_key: str = PROBE_KEY,
    ) -> None:
        """Name the bucket; nothing is asked of it yet.

        Two processes that probe at once need two keys, of which each begins with PROBE_KEY.
        """
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._settings = settings
        self._asker = Asker(
            settings, connect_seconds=connect_seconds, answer_seconds=answer_seconds
        )
        self._probe_key = probe_key
        self.honours_conditions: bool | None = None

    @property
    def url(self) -> str:
        """Where it is, for people; without secrets."""
        url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        at = urlsplit(self._settings.endpoint)
        port = f":{at.port}" if at.port else ""
        return f"{url} at {at.hostname}{port}" if at.hostname else url

    async def check(self) -> None:
        """List one object; write one, as a probe, and delete it."""
        await self._page("", token=None, limit=1)
        try:
            await self._probe()
        finally:
            with suppress(StoreFault):
                await self.delete(self._probe_key)

    async def list(self, *, after: str = "") -> list[Listed]:
        """Return every object whose key is above `after`, in order of key."""
        found: list[Listed] = []
        token: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._page(after, token=token, limit=LISTED_A_PAGE)
            found += page.objects
            if not page.token:
                return sorted(found)
            token = page.token
        why = f"more than {MAX_LISTED:,} objects: is the prefix the archive's own?"
        raise StoreFault(self._task("list").because(why))

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Return exactly these bytes of an object."""
        if not size:
            return b""
        task = self._task("read", key)

        def work(_: Call, client: "S3Client") -> bytes:
            span = f"bytes={offset}-{offset + size - 1}"
            with closing(client.get_object(**self._at(key), Range=span)["Body"]) as body:
                return body.read(size + 1)  # a server that knows no ranges sends more

        data = await self._asker.ask(task, work, size=size)
        if len(data) != size:
            why = f"of {size} bytes from {offset} on, {len(data)} came"
            raise StoreFault(task.because(why))
        return data

    async def put(self, key: str, path: Path) -> None:
        """Store a file under a new key, in one request: the object is whole or absent."""
        task = self._task("write", key)
        with telling_unreadable(task):
            size = (await trio.Path(path).stat()).st_size
        await self._put(task, lambda call: Upload(path, call), size)

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Store a few bytes under a new key."""
        await self._put(self._task("write", key), lambda _: io.BytesIO(data), len(data))

    async def sha256(self, key: str) -> bytes:
        """Return the SHA-256 that AWS took when it was written; of other servers, read it all."""
        task = self._task("read", key)
        seen = await self._see(key)
        if seen.sha256 is not None:
            return seen.sha256

        def work(call: Call, client: "S3Client") -> bytes:
            digest = hashlib.sha256()
            with closing(client.get_object(**self._at(key))["Body"]) as body:
                while block := body.read(BLOCK_BYTES):
                    digest.update(block)
                    call.go_on()
            return digest.digest()

        return await self._asker.ask(task, work, size=seen.size)

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""
        with suppress(NotThere):
            await self._asker.ask(
                self._task("delete", key), lambda _, client: client.delete_object(**self._at(key))
            )

    def renew(self) -> None:
        """Look for the keys anew before the next question."""
        self._asker.renew()

    async def url_of(self, key: str, *, seconds: int) -> str | None:
        """Return a presigned URL; one signed with keys that are lent ends with them."""

        def work(_: Call, client: "S3Client") -> str:
            return client.generate_presigned_url(
                "get_object", Params=self._at(key), ExpiresIn=seconds
            )

        return await self._asker.ask(self._task("read", key), work)

    async def _page(self, after: str, *, token: str | None, limit: int) -> "_Page":
        start: _Start = {"StartAfter": self._prefix + after}
        if token:
            start = {"ContinuationToken": token}

        def work(_: Call, client: "S3Client") -> _Page:
            answer = client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=limit, **start
            )
            objects = [
                Listed(each["Key"].removeprefix(self._prefix), each["Size"])
                for each in answer.get("Contents", ())
            ]
            kept = [each for each in objects if each.key > after and _is_object(each)]
            return _Page(kept, answer["NextContinuationToken"] if answer["IsTruncated"] else None)

        return await self._asker.ask(self._task("list"), work)

    async def _probe(self) -> None:
        """Learn what becomes of a conditional write onto an object that is there."""
        task = self._task("write", self._probe_key)
        try:
            for _ in range(2):
                await self._write(task, lambda _: io.BytesIO(_PROBE), len(_PROBE))
        except AlreadyThere:
            self.honours_conditions = True
        else:
            self.honours_conditions = False
            log.info("archive_conditional_writes_not_honoured", archive=self.url)

    async def _put(self, task: Task, body: Callable[[Call], BinaryIO], size: int) -> None:
        if not self.honours_conditions:
            with suppress(NotThere):
                await self._see(task.key)
                raise AlreadyThere(task.because("it is already there"))
        await self._write(task, body, size)

    async def _write(self, task: Task, body: Callable[[Call], BinaryIO], size: int) -> None:
        def work(call: Call, client: "S3Client") -> None:
            with telling_unreadable(task):
                file = body(call)
            with file:
                with telling_unreadable(task):
                    options = options_of(file, task.key, self._settings, is_aws=is_aws(client))
                self._send(client, {**self._at(task.key), **options})

        await self._asker.ask(task, work, size=size)

    def _send(self, client: "S3Client", options: dict[str, Any]) -> None:
        """Write on condition that nothing is there, unless the server knows no conditions."""
        if self.honours_conditions is not False:
            try:
                client.put_object(**options, IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) not in {"NotImplemented", "501"}:
                    raise
                self.honours_conditions = False
                options["Body"].seek(0)
            else:
                return
        client.put_object(**options)

    async def _see(self, key: str) -> "_Seen":
        """Ask what there is under a key; raises NotThere."""

        def work(_: Call, client: "S3Client") -> _Seen:
            if not is_aws(client):
                return _Seen(client.head_object(**self._at(key))["ContentLength"], None)
            answer = client.head_object(**self._at(key), ChecksumMode="ENABLED")
            return _Seen(answer["ContentLength"], _digest(answer.get("ChecksumSHA256", "")))

        return await self._asker.ask(self._task("read", key), work)

    def _at(self, key: str) -> "_Place":
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _task(self, verb: str, key: str = "") -> Task:
        return Task(self.url, verb, key)


class _Place(TypedDict):
    Bucket: str
    Key: str


class _Start(TypedDict, total=False):
    StartAfter: str
    ContinuationToken: str


class _Page(msgspec.Struct, frozen=True):
    """A part of a listing; the token asks for the next part, where there is one."""

    objects: list[Listed]
    token: str | None


class _Seen(msgspec.Struct, frozen=True):
    """What there is under a key; the checksum where the server is AWS and took one."""

    size: int
    sha256: bytes | None


def _is_object(listed: Listed) -> bool:
    """Tell objects from the marks by which consoles show folders, and from our probe."""
    is_mark = not listed.key or (listed.key.endswith("/") and not listed.size)
    return not is_mark and not listed.key.startswith(PROBE_KEY)


def _digest(checksum: str) -> bytes | None:
    """Return a SHA-256 from its base64; None for none, and for one of the parts of an object."""
    try:
        digest = b64decode(checksum, validate=True)
    except ValueError:
        return None
    return digest if len(digest) == hashlib.sha256().digest_size else None
