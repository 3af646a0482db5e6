"""The sockets that turbod opens itself: what they are refused for, and whether that may pass."""

import errno
import os

import pytest
import trio

from turbod.listeners import open_listeners
from turbod.start import FAILED, WRONG_PLACE, CannotStart


async def refused(address: str) -> CannotStart:
    with pytest.raises(CannotStart) as caught:
        await open_listeners(address, {})
    return caught.value


async def test_an_address_that_may_come_up_is_tried_again() -> None:
    """As a VPN's may after the boot: 192.0.2.1 (RFC 5737) is on no machine."""
    refusal = await refused("192.0.2.1:0")
    assert refusal.code == FAILED
    assert "--listen 192.0.2.1:0: " in str(refusal)


async def test_a_port_that_is_not_for_us_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def forbid(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(trio, "open_tcp_listeners", forbid)
    refusal = await refused("127.0.0.1:80")
    assert refusal.code == WRONG_PLACE
    assert str(refusal).startswith("--listen 127.0.0.1:80: Permission denied; choose another")


async def test_a_name_that_cannot_be_is_not_tried_again() -> None:
    refusal = await refused("a..b:0")
    assert refusal.code == WRONG_PLACE
    assert "--listen a..b:0: " in str(refusal)
