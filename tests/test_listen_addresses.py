import socket

import pytest
import trio

from tests.acceptance.process import free_port
from turbod.listeners import open_listeners


async def answers(host: str, port: int) -> bool:
    """Tell whether somebody listens there."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    await stream.aclose()
    return True


@pytest.mark.parametrize(
    ("host", "v4", "v6"),
    [
        ("127.0.0.1", True, False),
        ("0.0.0.0", True, False),
        ("[::1]", False, True),
        ("[::]", False, True),
        ("*", True, True),
    ],
)
async def test_an_address_is_listened_on_and_no_other(host: str, *, v4: bool, v6: bool) -> None:
    """IPv4, IPv6, or with a star both."""
    port = free_port()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    listeners = await open_listeners(f"{host}:{port}", {})
    assert await answers("127.0.0.1", port) is v4
    assert await answers("::1", port) is v6
    for listener in listeners:
        await listener.aclose()
