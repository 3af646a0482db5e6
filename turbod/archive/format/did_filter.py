"""A Bloom filter of DIDs: whether a frame may hold events of somebody, or about them. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import sha256
from typing import Final

import msgspec

BITS_PER_DID: Final = 10
HASHES: Final = 7  # 10 bits and 7 hashes: 0.8 % of the DIDs that are not in it seem to be
MAX_HASHES: Final = 32

_WORD = 2**64


class SoughtDids:
    """DIDs to look for in many filters: each is hashed once, when it is first needed.

    Of many DIDs few are: by chance alone one in a hundred seems to be in a filter.
    """

    def __init__(self, dids: Iterable[str]) -> None:
        self._dids = tuple(dids)
        self._numbers: list[tuple[int, int] | None] = [None] * len(self._dids)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._dids)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the two numbers of each."""
        for index, numbers in enumerate(self._numbers):
            if numbers is None:
                numbers = self._numbers[index] = _numbers(self._dids[index])  # noqa: PLW2901
            yield numbers


class DidFilter(msgspec.Struct, frozen=True):
    """Says no for sure, or maybe.

    A DID's first 16 bytes of SHA-256 are two big-endian numbers of 64 bits, `a` and `b`. Its bits
    are number `(a + i * b) mod 2^64 mod m` for i below `hashes`, m being the number of bits; bit n
    is `1 << (n % 8)` of byte n // 8. `bits` is base64 in the JSON.
    """

    hashes: int
    bits: bytes

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if not 1 <= self.hashes <= MAX_HASHES or not self.bits:
            raise ValueError(f"a DID filter has 1 to {MAX_HASHES} hashes and some bits")

    def may_hold(self, sought: SoughtDids) -> bool:
        """Tell whether any of these may be in it: 0.4 us for each that is looked at."""
        bits, hashes = self.bits, self.hashes
        count = len(bits) * 8
        for first, step in sought:
            number = first
            for _ in range(hashes):
                place = number % count
                if not bits[place >> 3] >> (place & 7) & 1:
                    break
                number = (number + step) % _WORD
            else:
                return True
        return False


def build(dids: Collection[str], *, pause: Callable[[], None] = lambda: None) -> DidFilter:
    """Return the filter of these DIDs, each given once; `pause` is called after every one."""
    bits = bytearray(max(1, -(-len(dids) * BITS_PER_DID // 8)))
    for did in dids:
        _add(bits, did)
        pause()
    return DidFilter(HASHES, bytes(bits))


def _add(bits: bytearray, did: str) -> None:
    """Set the bits of one DID: 2 us."""
    count = len(bits) * 8
    number, step = _numbers(did)
    for _ in range(HASHES):
        place = number % count
        bits[place >> 3] |= 1 << (place & 7)
        number = (number + step) % _WORD


def _numbers(did: str) -> tuple[int, int]:
    digest = sha256(did.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
