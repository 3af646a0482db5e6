"""Reading again what a source did not give, for a while."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from turbod.archive.format.hour_object import Damaged
from turbod.archive.stores.store import NotThere, StoreFault
from turbod.backoff import Backoff

T = TypeVar("T")

TRIES: Final = 6  # with waits between them of 8 to 16 s in all
TRIES_IF_DAMAGED: Final = 2  # bytes may be damaged on their way
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 10


async def again(read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` returns, called up to TRIES times.

    Raises:
        NotThere: at once.
        Damaged: the second time.
        StoreFault: the last time.
    """
    backoff = Backoff(first_seconds=_FIRST_WAIT_SECONDS, longest_seconds=_LONGEST_WAIT_SECONDS)
    for attempt in range(1, TRIES):
        try:
            return await read()
        except NotThere:
            raise
        except Damaged:
            if attempt >= TRIES_IF_DAMAGED:
                raise
        except StoreFault:
            await trio.sleep(backoff.next_seconds())
    return await read()
