"""A request's head as bytes into a Request, or the refusal it gets. Pure."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import h11
import msgspec

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEAD_LINES: Final = 1000  # the 16,000 that fit into 64 KiB would take 20 ms
WEBSOCKET_VERSION: Final = "13"
METHODS: Final = ("GET", "HEAD", "OPTIONS")

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_KEY_BYTES = 16
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# Control characters and what is not ASCII have no place in a head: a TLS hello is known by them.
_FOREIGN = re.compile(rb"[^\t\r\n -~]")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")

_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    304: "Not Modified",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refusal(Exception):
    """A request that is answered with a status, a name and a text, and then closed."""

    def __init__(
        self, status: int, name: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message
        self.headers = headers or {}

    def answer(self) -> bytes:
        """Return the whole HTTP answer."""
        body = msgspec.json.encode({"error": self.name, "message": self.message})
        return answer(self.status, body, headers=self.headers)


class Request(msgspec.Struct, frozen=True):
    """A request for GET, HEAD or OPTIONS without a body, every byte of its head ASCII.

    Attributes:
        headers: names in lower case; several of one name are joined by commas.
        rest: what the client sent behind the head without waiting.
    """

    method: str
    path: str
    query: str
    host: str
    headers: dict[str, str]
    rest: bytes = b""

    @property
    def is_head(self) -> bool:
        """Whether the answer goes without its body."""
        return self.method == "HEAD"

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated values of a header, in order."""
        return [token.strip() for token in self.headers.get(name, "").split(",") if token.strip()]


class HeadReader:
    """Collects bytes until a head is whole."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Request | None:
        """Take what was received; return the request once its head is whole.

        Raises:
            Refusal: for a head that cannot become a request that this server answers.
        """
        # The blank line may begin in what came before.
        searched = max(len(self._received) - 3, 0)
        self._received += data
        end = _BLANK_LINE.search(self._received, searched)
        size = end.end() if end else len(self._received)
        if size > MAX_HEAD_BYTES:
            raise _too_long(
                f"the request head may have {MAX_HEAD_BYTES} bytes; a longer filter goes into an "
                "options_update, with requireHello=true"
            )
        if _FOREIGN.search(self._received, searched, size):
            raise _invalid("the request head holds bytes that are not printable ASCII")
        if end is None:
            return None
        if self._received.count(b"\n", 0, size) > MAX_HEAD_LINES:
            raise _too_long(f"the request head may have {MAX_HEAD_LINES} lines")
        return _parse(bytes(self._received[:size]), bytes(self._received[size:]))


def upgrade_answer(request: Request, subprotocol: str | None) -> bytes:
    """Check that a request opens a WebSocket and return the answer that completes the handshake.

    Raises:
        Refusal: where it does not.
    """
    if request.method != "GET":
        raise _not_allowed("GET")
    if "websocket" not in (token.lower() for token in request.tokens("upgrade")) or (
        "upgrade" not in (token.lower() for token in request.tokens("connection"))
    ):
        raise Refusal(
            426,
            "UpgradeRequired",
            "this is a WebSocket: connect with ws:// or wss://, or ask /records for a page of it",
            headers={"Upgrade": "websocket", "Sec-WebSocket-Version": WEBSOCKET_VERSION},
        )
    if request.headers.get("sec-websocket-version") != WEBSOCKET_VERSION:
        raise Refusal(
            426,
            "UpgradeRequired",
            f"Sec-WebSocket-Version must be {WEBSOCKET_VERSION}",
            headers={"Upgrade": "websocket", "Sec-WebSocket-Version": WEBSOCKET_VERSION},
        )
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {_accept(request.headers.get('sec-websocket-key', ''))}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def answer(
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    head_only: bool = False,
) -> bytes:
    """Return a whole HTTP answer, after which the connection is closed."""
    described = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
    }
    head = answer_head(status, {**described, **(headers or {})})
    return head if head_only else head + body


def answer_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def with_headers(answer: bytes, headers: Mapping[str, str]) -> bytes:
    """Return an answer, or its beginning, with more headers; nothing stays nothing."""
    if not answer:
        return answer
    status, line_break, rest = answer.partition(b"\r\n")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return status + line_break + lines.encode("ascii") + rest


def _parse(head: bytes, rest: bytes) -> Request:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        # h11 quotes the line after a colon; there may be a token in it.
        words = str(error).partition(": bytearray(")[0]
        raise _invalid(f"not HTTP/1.1: {words}") from None
    if not isinstance(event, h11.Request):
        raise _invalid("not an HTTP/1.1 request")
    return _request(event, rest)


def _request(event: h11.Request, rest: bytes) -> Request:
    if event.http_version not in {b"1.0", b"1.1"}:
        raise _invalid("HTTP/1.1 is needed")
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("ascii")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    method = event.method.decode("ascii")
    if method not in METHODS:
        raise _not_allowed(", ".join(METHODS))
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _invalid("a request has no body here")
    if event.http_version != b"1.1" and "upgrade" in headers:
        raise _invalid("a WebSocket needs HTTP/1.1 (RFC 6455, section 4.1)")
    path, query = _target(event.target.decode("ascii"))
    # Proxies and health checks speak HTTP/1.0, where a Host may be absent; h11 asks 1.1 for it.
    host = _host(headers.get("host", "localhost"))
    return Request(method, path, query, host, headers, rest)


def _target(target: str) -> tuple[str, str]:
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query
    # RFC 9112, section 3.2.2: a server must accept the absolute form too.
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.netloc:
        raise _invalid("the request target must be a path")
    return parts.path or "/", parts.query


def _host(host: str) -> str:
    # The length first: to decode one of 64 KB takes 130 ms.
    if host and not _HOST.fullmatch(host):
        raise _invalid("Host is not a host name or address, with or without a port")
    try:
        host.encode("ascii").decode("idna")
    except UnicodeError:
        raise _invalid("Host is not a host name") from None
    return host


def _accept(key: str) -> str:
    try:
        size = len(base64.b64decode(key, validate=True))
    except ValueError:
        size = 0
    if size != _KEY_BYTES:
        raise _invalid("Sec-WebSocket-Key must be 16 bytes in base64")
    digest = hashlib.sha1(key.encode("ascii") + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidRequest", message)


def _too_long(message: str) -> Refusal:
    return Refusal(431, "RequestHeaderFieldsTooLarge", message)


def _not_allowed(allowed: str) -> Refusal:
    return Refusal(
        405, "MethodNotAllowed", f"{allowed} is allowed here", headers={"Allow": allowed}
    )
