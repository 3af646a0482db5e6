"""A connection that failed is told in words, however deep the cause lies."""

import errno
import itertools
import socket
import ssl

import httpx
import pytest
import trio

from turbod.causes import words


def raised(*errors: BaseException) -> BaseException:
    """Return the first, which came of the second, and so on."""
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "there is no host of that name",
        ),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "its name could not be looked up"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "refused: does the server run?"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset"),
        (TimeoutError(), "no answer in time"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "no answer in time"),
        (TimeoutError("nothing heard for 45 s"), "nothing heard for 45 s"),
        (OSError(errno.ENETUNREACH, "x"), "network unreachable"),
        (OSError(errno.ENOSPC, "x"), "no space left on device"),
        (ssl.SSLError(1, "wrong version number"), "wrong version number (TLS)"),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
        (
            raised(httpx.ConnectError("x"), OSError("all"), ConnectionRefusedError(111, "x")),
            "refused: does the server run?",
        ),
        (
            raised(OSError("all"), ExceptionGroup("", [ConnectionRefusedError(111, "x")])),
            "refused: does the server run?",
        ),
    ],
)
def test_what_is_behind_an_error_is_said_in_words(error: BaseException, told: str) -> None:
    assert told in words(error)
    assert "Errno" not in words(error)


async def test_a_name_that_is_none_and_a_closed_port_are_told_by_the_real_network() -> None:
    told = await why_not("turbod.invalid", 443)
    assert told in {"there is no host of that name", "its name could not be looked up"}
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    assert await why_not("127.0.0.1", port) == "refused: does the server run?"


async def why_not(host: str, port: int) -> str:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        return words(error)
    await stream.aclose()
    return "connected"


def test_a_ring_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert words(one) == "one"
