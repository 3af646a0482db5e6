"""What can be wrong with a simulated Jetstream host; each may be changed at any moment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_DEEP: Final = b"[" * 100_000 + b"]" * 100_000
_START: Final = (
    b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":1790000000000000,"kind":"commit",'
)


@dataclass(slots=True, kw_only=True)
class Faults:
    """Switches of one host, all off.

    Attributes:
        silent: sends nothing more, though it answers pings; goes on where it was when cleared.
        dead: sends nothing at all, no pongs either.
        blind_fraction: share of the accounts whose events it never has, others than another host's.
        misses: the same by a predicate of a DID; both may be given.
        lag_seconds: sends each event this much later.
        alone_fraction: share of new events that no other host gets.
        repeat_seconds: begins this much before the position asked for.
        hang_up: takes a connection and closes it at once.
        mute_handshake: takes a connection and never answers.
        refuse_status: answers each handshake with this status; 0 for none.
        poison_every: after this many messages comes one of POISON; 0 for never.
        break_every: after this many messages comes one of BROKEN; 0 for never.
        messages_per_second: sends no faster; 0 for no bound.
        outbox_events: cuts a live client that falls this far behind, as v1 hosts do at 10,000; 0
            for never.
        hold: sends only what `JetstreamHost.release` allowed.
    """

    silent: bool = False
    dead: bool = False
    blind_fraction: float = 0.0
    misses: Callable[[str], bool] | None = None
    lag_seconds: float = 0.0
    alone_fraction: float = 0.0
    repeat_seconds: float = 0.0
    hang_up: bool = False
    mute_handshake: bool = False
    refuse_status: int = 0
    poison_every: int = 0
    break_every: int = 0
    messages_per_second: float = 0.0
    outbox_events: int = 0
    hold: bool = False


POISON: Final[tuple[bytes, ...]] = (
    # Whole WebSocket text messages in valid UTF-8, none of them an event: all are to be dropped.
    b"",
    b"null",
    b"[]",
    b'{"did":',
    b'{"kind":"heartbeat","payload":"x"}',
    _DEEP,
    _START + b'"commit":{"rev":"3mvzvh4fszd2a","operation":"create","collection":"a.b.c",'
    b'"rkey":"1","record":{"x":%b},"cid":"b"}}' % (b'{"x":' * 80 + b"1" + b"}" * 80),
    _START + b'"commit":{"rev":"3mvzvh4fszd2a","operation":"create","collection":"a.b.c",'
    b'"rkey":"1","record":{"x":"%b"},"cid":"b"}}' % (b"x" * 2_000_000),
    _START + b'"commit":{"rev":"3mvzvh4fszd2a","operation":"create","collection":"a.b.c",'
    b'"rkey":"a/b","record":{},"cid":"b"}}',
    _START
    + b'"commit":{"rev":"3mvzvh4fszd2a","operation":"rename","collection":"a.b.c","rkey":"1"}}',
    _START
    + b'"commit":{"rev":"3mvzvh4fszd2a","operation":"delete","collection":"a b","rkey":"1"}}',
    _START + b'"commit":null}',
    b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","kind":"identity","identity":{}}',
    b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":"1","kind":"identity","identity":{}}',
    b'{"did":"not a did","time_us":1790000000000000,"kind":"identity","identity":{"time":"x"}}',
    b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":1790000000000000,"kind":"sync","sync":{}}',
)
BROKEN: Final[tuple[bytes, ...]] = (
    # Raw bytes behind which no WebSocket client can go on (RFC 6455).
    b"\x81\x04\xff\xfe\xfd\xfc",  # a text message that is not UTF-8
    b"\x83\x00",  # a reserved opcode
    b"\xf1\x00",  # reserved bits without an extension
    b"\x81\x82\x00\x00\x00\x00{}",  # masked, which a server must not
    b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",  # a length above 2^63
    b"\x00\x02{}",  # a continuation of nothing
)
