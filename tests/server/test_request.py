import json
import time
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod.server.request import MAX_HEAD_BYTES, HeadReader, Refusal, Request, upgrade_answer

# The example of RFC 6455, section 1.2.
HEAD = (
    b"GET /turbostream?a=1&b=%2F HTTP/1.1\r\nHost: server.example.com:8080\r\n"
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: third\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def read(head: bytes) -> Request:
    request = HeadReader().feed(head)
    assert request is not None
    return request


@given(cuts=st.sets(st.integers(1, len(HEAD) - 1)))
def test_a_head_is_the_same_in_whatever_pieces_it_comes(cuts: set[int]) -> None:
    reader, edges = HeadReader(), [0, *sorted(cuts), len(HEAD)]
    pieces = [HEAD[start:end] for start, end in pairwise(edges)]
    *none, request = [reader.feed(piece) for piece in pieces]
    assert none == [None] * len(none)
    assert request == read(HEAD)
    assert request.path == "/turbostream"
    assert request.query == "a=1&b=%2F"
    assert request.host == "server.example.com:8080"
    assert request.tokens("sec-websocket-protocol") == ["chat", "superchat", "third"]


def test_what_comes_behind_the_head_is_kept() -> None:
    assert read(HEAD + b"\x81\x80rest").rest == b"\x81\x80rest"


def test_the_handshake_is_completed_as_in_the_rfc() -> None:
    answer = upgrade_answer(read(HEAD), "chat")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n" in answer
    assert b"Protocol:" not in upgrade_answer(read(HEAD), None)


def test_a_head_of_64_kib_passes_and_a_byte_more_is_431() -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    longest = start + b"x" * (MAX_HEAD_BYTES - len(start) - 4) + b"\r\n\r\n"
    assert len(longest) == 64 * 1024
    assert read(longest + b"and what follows").path == "/"
    with pytest.raises(Refusal) as refused:
        read(longest[:-4] + b"x\r\n\r\n")
    assert refused.value.status == 431


def test_a_thousand_lines_pass_and_one_more_is_431() -> None:
    start, line = b"GET / HTTP/1.1\r\nHost: a\r\n", b"a:b\r\n"
    assert read(start + line * 997 + b"\r\n").path == "/"
    with pytest.raises(Refusal) as refused:
        read(start + line * 998 + b"\r\n")
    assert (refused.value.status, refused.value.name) == (431, "RequestHeaderFieldsTooLarge")


@pytest.mark.parametrize(
    "head",
    [
        b"a:\r\n" * 16_000,
        b"".join(b"%x:\r\n" % number for number in range(9000)),
        b"a:b\r\n" + b" c\r\n" * 16_000,
        b"Host: xn--" + b"abcdefgh" * 7900 + b"\r\n",
    ],
    ids=["one header again and again", "many headers", "one folded", "a long IDNA label"],
)
def test_no_head_takes_more_than_10_ms(head: bytes) -> None:
    """As processor time, the best of three: everybody else waits meanwhile."""
    host = b"" if head.startswith(b"Host") else b"Host: a\r\n"

    def seconds() -> float:
        started = time.thread_time()
        with suppress(Refusal):
            read(b"GET / HTTP/1.1\r\n" + host + head + b"\r\n")
        return time.thread_time() - started

    assert min(seconds() for _ in range(3)) < 0.01


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"//a", "//a", ""),
        (b"http://host/a?b", "/a", "b"),
        (b"ws://host", "/", ""),
    ],
)
def test_targets_are_paths_or_whole_addresses(target: bytes, path: str, query: str) -> None:
    request = read(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize("host", ["a", "a:80", "127.0.0.1:8080", "[::1]:8080", "a_b.example", ""])
def test_hosts_that_are_hosts_pass(host: str) -> None:
    assert read(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).host == host


@pytest.mark.parametrize("host", ["xn--a", "a b", "a/b", "<a>", "a:b", "a:1:2", "[::1", '"', "a@b"])
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (refused.value.status, refused.value.name) == (400, "InvalidRequest")


def test_bare_line_feeds_end_a_head_too() -> None:
    assert read(b"GET /a HTTP/1.1\nHost: b\n\n").path == "/a"


@given(junk=st.binary(max_size=300))
def test_any_bytes_give_a_request_a_refusal_or_a_wait(junk: bytes) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET /"):
        try:
            HeadReader().feed(start + junk + b"\r\n\r\n")
        except Refusal as refusal:
            head, _, body = refusal.answer().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 4")
            assert set(json.loads(body)) == {"error", "message"}
