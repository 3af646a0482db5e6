"""What went wrong with a bucket, in one line: which, why, what to do; never a secret. Pure."""

import re
import socket
from http import HTTPStatus
from typing import Any, Final

import msgspec
from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from turbod import causes
from turbod.archive.stores.store import AlreadyThere, NeedsMending, NotThere, StoreFault

# Whatever a call of boto3 may raise, where what was asked for is right: its own faults, those of
# the network, and what its parsers raise at an answer that is none of S3's.
FOREIGN: Final = (boto.BotoCoreError, boto.ClientError, HTTPError, OSError, ValueError, LookupError)

_NO_KEYS: Final = "no access keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
_WRONG_KEYS: Final = "check the access keys"
_ABSENT: Final = frozenset({"NoSuchKey", "NotFound", "404"})
_FORBIDDEN: Final = frozenset({"AccessDenied", "Forbidden", "AllAccessDisabled", "403"})
_BUSY: Final = frozenset(
    {"SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
    | {"TooManyRequests", "503", "429"}
)
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"}
    | {"IllegalLocationConstraintException", "301", "302", "307", "308"}
)
_DAMAGED: Final = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}
    | {"XAmzContentChecksumMismatch"}
)
# An expired token and a wrong clock are left out: they are renewed and set without anybody's help.
_TO_BE_MENDED: Final = (
    {"NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "401"}
    | _FORBIDDEN
    | _ELSEWHERE
)
_NOT_CONFIGURED: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
)
_WHY: Final = {
    "NoSuchBucket": "there is no such bucket: make it, or correct --archive",
    "InvalidAccessKeyId": f"the access key is not known: {_WRONG_KEYS}",
    "SignatureDoesNotMatch": f"the secret key is wrong: {_WRONG_KEYS}",
    "401": f"not logged in: {_WRONG_KEYS}",
    "ExpiredToken": f"the session token has expired: {_WRONG_KEYS}",
    "InvalidToken": f"the session token is wrong: {_WRONG_KEYS}",
    "TokenRefreshRequired": f"the session token has expired: {_WRONG_KEYS}",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "RequestExpired": "this machine's clock is wrong: set it",
    "InvalidRange": "the object is shorter than that",
    "416": "the object is shorter than that",
    "ConditionalRequestConflict": "somebody else is writing it: to be tried again",
    "OperationAborted": "somebody else is writing it: to be tried again",
    "409": "somebody else is writing it: to be tried again",
    "EntityTooLarge": "the object is larger than the server takes in one piece",
    "QuotaExceeded": "the bucket is full",
    "XMinioStorageFull": "the server's disk is full",
    "InsufficientStorage": "the server's disk is full",
    "507": "the server's disk is full",
}
_PERMISSION: Final = {
    "list": "s3:ListBucket on the bucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}", re.ASCII)
_EXPECTED_REGION = re.compile(r"expecting '([a-z0-9-]{1,32})'")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+/=_%]{16,}")


class Task(msgspec.Struct, frozen=True):
    """What was being done.

    Attributes:
        url: which archive.
        verb: list, read, write or delete.
        key: of which object; "" for all.
    """

    url: str
    verb: str
    key: str = ""

    def because(self, why: str) -> str:
        """Return the line that says that it failed."""
        return f"{self.url}: cannot {self.verb}{' ' * bool(self.key)}{self.key}: {why}"


def fault_of(error: Exception, task: Task) -> StoreFault:
    """Return what is to be raised in place of one of FOREIGN."""
    if not isinstance(error, boto.ClientError):
        kind = NeedsMending if _is_to_be_mended(error) else StoreFault
        return kind(task.because(_why_not_asked(error)))
    code = code_of(error)
    if code in _ABSENT:
        return NotThere(task.because("it is not there"))
    if code in {"PreconditionFailed", "412"}:
        return AlreadyThere(task.because("it is already there"))
    kind = NeedsMending if code in _TO_BE_MENDED else StoreFault
    return kind(task.because(f"{_why_refused(code, error, task.verb)} ({code})"))


def code_of(error: boto.ClientError) -> str:
    """Return S3's word for what was wrong, or the HTTP status where there was none."""
    code = str(_dict(error.response.get("Error")).get("Code", ""))
    return code if _CODE.fullmatch(code) else str(_status(error) or "no code")


def _why_refused(code: str, error: boto.ClientError, verb: str) -> str:
    if code in _WHY:
        return _WHY[code]
    if code in _FORBIDDEN:
        return f"no permission: the access keys need {_PERMISSION[verb]}"
    if code in _BUSY:
        return "the server is busy"
    if code in _ELSEWHERE:
        return f"the bucket lies {_region(error)}"
    if code in _DAMAGED:
        return "the bytes were damaged on their way"
    if _status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server failed"
    return f"refused: {plain(str(_dict(error.response.get('Error')).get('Message', '')))}"


def _region(error: boto.ClientError) -> str:
    said = _dict(error.response.get("Error"))
    headers = _dict(_dict(error.response.get("ResponseMetadata")).get("HTTPHeaders"))
    expected = _EXPECTED_REGION.search(str(said.get("Message", "")))
    named = (headers.get("x-amz-bucket-region"), said.get("Region"), expected and expected[1])
    region = next((str(name) for name in named if name and _REGION.fullmatch(str(name))), None)
    return (
        f"in {region}: set --s3-region"
        if region
        else "elsewhere: correct --s3-endpoint or --s3-region"
    )


def _is_to_be_mended(error: Exception) -> bool:
    """Tell whether a question cannot be asked until somebody has changed something.

    A resolver that says that there is no such name is believed; one that does not know is not.
    """
    inner = _innermost(error)
    no_such_name = isinstance(inner, socket.gaierror) and inner.errno == socket.EAI_NONAME
    return no_such_name or isinstance(error, _NOT_CONFIGURED)


def _why_not_asked(error: Exception) -> str:
    """Say what kept the question from being asked, or its answer from being understood."""
    match error:
        case boto.NoCredentialsError():
            return _NO_KEYS
        case boto.PartialCredentialsError():
            return f"only a part of the access keys is there: {_WRONG_KEYS}"
        case boto.CredentialRetrievalError() | boto.MetadataRetrievalError() | boto.SSOError():
            return f"the access keys could not be had ({type(error).__name__}): {_WRONG_KEYS}"
        case boto.SSLError():
            return f"TLS failed: {_words(_innermost(error))}"
        case boto.ProxyConnectionError():
            return "the proxy that HTTP_PROXY or HTTPS_PROXY names does not answer"
        case boto.EndpointConnectionError() | boto.ConnectTimeoutError():
            return f"no connection: {_words(_innermost(error))}"
        case boto.ReadTimeoutError():
            return "no answer in time"
        case boto.HTTPClientError() | boto.IncompleteReadError() | HTTPError() | OSError():
            return f"the connection broke: {_words(_innermost(error))}"
        case boto.BotoCoreError() if "ResponseParserError" not in type(error).__name__:
            return plain(str(error))
    return "the answer is not S3's: is the endpoint one?"


def _innermost(error: BaseException) -> BaseException:
    """Return the fault behind all the others that it was wrapped in."""
    for _ in range(10):
        inside = getattr(error, "kwargs", {}).get("error") or error.__cause__ or error.__context__
        inside = inside or next((a for a in error.args if isinstance(a, BaseException)), None)
        inside = inside or getattr(error, "reason", None)
        if not isinstance(inside, BaseException):
            break
        error = inside
    return error


def _words(error: BaseException) -> str:
    return plain(causes.words(error) if isinstance(error, OSError) else type(error).__name__)


def plain(words: str) -> str:
    """Return words from outside as one short line, without anything that looks like a key."""
    printable = "".join(each if each.isprintable() else " " for each in words[:2000])
    return _LIKE_A_KEY.sub("…", " ".join(printable.split()))[:200] or "no reason given"


def _status(error: boto.ClientError) -> int:
    status = _dict(error.response.get("ResponseMetadata")).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
