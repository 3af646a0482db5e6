"""CIDs, TIDs and DIDs that look real, each its own; times as records write them. Pure."""

from base64 import b32encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

_TID_DIGITS: Final = "234567abcdefghijklmnopqrstuvwxyz"
_TID_PAIRS: Final = [first + second for first in _TID_DIGITS for second in _TID_DIGITS]
_RECORD: Final = b"\x01\x71\x12\x20"  # CIDv1, dag-cbor, sha2-256, 32 bytes
_BLOB: Final = b"\x01\x55\x12\x20"  # CIDv1, raw
_DID_LENGTH: Final = 24


def record_cid(content: bytes) -> str:
    """Return a CIDv1 with codec dag-cbor for these bytes, in base32: `bafyrei...`.

    It is well-formed but hashes no CBOR: whoever checks it against the record finds it wrong.
    """
    return _base32(_RECORD + sha256(content).digest())


def blob_cid(content: bytes) -> str:
    """Return a CIDv1 with codec raw for these bytes, in base32: `bafkrei...`."""
    return _base32(_BLOB + sha256(content).digest())


def plc_did(seed: str) -> str:
    """Return a did:plc that hangs on `seed` alone."""
    digest = b32encode(sha256(seed.encode()).digest()).lower().decode()
    return "did:plc:" + digest[:_DID_LENGTH]


def tid(time_us: int, *, clock: int = 0) -> str:
    """Return the TID of a microsecond and a clock number below 1024 (atproto specs/tid)."""
    value = time_us << 10 | clock
    pairs = [_TID_PAIRS[value >> shift & 1023] for shift in range(50, -1, -10)]
    return _TID_DIGITS[value >> 60] + "".join(pairs)


def time_text(time_us: int) -> str:
    """Return a time as the official clients write it: UTC, three decimals, `Z`."""
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _base32(content: bytes) -> str:
    return "b" + b32encode(content).decode().rstrip("=").lower()
