"""Asking an S3 server: boto3's client, made at the first question, used by threads."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import boto3
import trio
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.session import get_session

from turbod.archive.stores.blocking import Call, Threads
from turbod.archive.stores.s3_faults import FOREIGN, Task, fault_of
from turbod.archive.stores.store import StoreFault
from turbod.config import S3Settings
from turbod.redaction import keep_secret

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

T = TypeVar("T")

CALLS_AT_ONCE: Final = 8
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0  # for the first byte of an answer, and then between two pieces of it
SLOWEST_BYTES_PER_SECOND: Final = 32 * 1024  # slower is as good as stuck
_AWS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu")


class Asker:
    """Asks one server.

    Keys, profile, proxy and certificates come from where AWS's own tools look for them. What is
    tried twice at once is what broke on its way, no more: whoever asks has his own way of waiting,
    and boto3's would run dry of attempts when the server is away for long.
    """

    def __init__(
        self, settings: S3Settings, *, connect_seconds: float, answer_seconds: float
    ) -> None:
        self._settings = settings
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._threads = Threads(CALLS_AT_ONCE)
        self._making = threading.Lock()
        self._client: S3Client | None = None
        self._renewals = self._made_at = 0  # which renewal the client came after

    def renew(self) -> None:
        """Make a new client for the next question, with keys that may be others."""
        self._renewals += 1

    async def ask(self, task: Task, work: "Callable[[Call, S3Client], T]", *, size: int = 0) -> T:
        """Return what the work returns, which runs in a thread and moves `size` bytes.

        Raises:
            StoreFault: in words.
        """
        seconds = self._connect_seconds + self._answer_seconds + size / SLOWEST_BYTES_PER_SECOND
        try:
            return await self._threads.run(lambda call: work(call, self._made()), seconds=seconds)
        except trio.TooSlowError:
            why = f"not done within {seconds:.0f} s"
            raise StoreFault(task.because(why)) from None
        except FOREIGN as error:
            if isinstance(error, NoCredentialsError):
                self._client = None  # it would not look for keys again
            raise fault_of(error, task) from error

    def _made(self) -> "S3Client":
        with self._making:
            if self._client is None or self._made_at != self._renewals:
                self._made_at = self._renewals  # noted first: what comes meanwhile is another
                self._client = self._make()
            return self._client

    def _make(self) -> "S3Client":
        core = get_session()
        # The times in answers are of no use here, and parsing them is half of what a listing costs.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        session = boto3.session.Session(
            region_name=self._settings.region or None, botocore_session=core
        )
        client: S3Client = session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            endpoint_url=self._settings.endpoint or None,
            config=self._config(),
        )
        client.meta.events.register("before-call.s3.HeadBucket", _answer_nothing)
        _keep_secrets(session)
        return client

    def _config(self) -> Config:
        settings = self._settings
        # For AWS boto3's own choice is the host of all regions, where a URL that we sign may be
        # redirected, and so no longer hold; `virtual` is the region's own.
        is_own_choice = settings.addressing == "auto" and not settings.endpoint
        addressing: Any = {"addressing_style": "virtual" if is_own_choice else settings.addressing}
        # boto3's own checksums go in a trailer that servers other than AWS refuse, and come back
        # for the whole object where a part was asked; we send and check our own.
        return Config(
            signature_version="s3v4",
            s3=addressing,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 2},
            connect_timeout=self._connect_seconds,
            read_timeout=self._answer_seconds,
            max_pool_connections=CALLS_AT_ONCE,
            tcp_keepalive=True,
        )


def _keep_secrets(session: boto3.session.Session) -> None:
    """Let no log line and no page show the keys, whoever's words they may stand in."""
    if (credentials := session.get_credentials()) is not None:
        _, secret_key, token, *_ = credentials.get_frozen_credentials()
        for secret in filter(None, (secret_key, token)):
            keep_secret(secret)


def _answer_nothing(**_: object) -> Any:
    """Answer a question that we never ask.

    boto3 asks it by itself to learn a bucket's region when it is sent elsewhere, and where that is
    answered in the same way, asks again, until the stack is full.
    """
    return AWSResponse("", HTTPStatus.NOT_FOUND, HTTPHeaders(), None), {
        "Error": {},
        "ResponseMetadata": {"HTTPHeaders": {}},
    }


def is_aws(client: "S3Client") -> bool:
    """Tell whether what the server says of its own checksums is to be trusted."""
    return (urlsplit(client.meta.endpoint_url).hostname or "").endswith(_AWS)
