"""A Bloom filter of DIDs: whether a frame may hold events of somebody, or about them. Pure."""

from collections.abc import Collection

import msgspec


class DidFilter(msgspec.Struct, frozen=True):
    """Says no for sure, or maybe.

    A DID's first 16 bytes of SHA-256 are two big-endian numbers of 64 bits, `a` and `b`. Its bits
    are number `(a + i * b) mod 2^64 mod m` for i below `hashes`, m being the number of bits; bit n
    is `1 << (n % 8)` of byte n // 8. `bits` is base64 in the JSON.
    """

    hashes: int
    bits: bytes

    def may_hold(self, dids: Collection[str]) -> bool:
        """Tell whether any of these may be in it."""
        raise NotImplementedError
