"""Whose request a proxy passes on, by the one header in which it tells it. Pure.

Each proxy adds, on the right, whom it was asked by. So the list is read from the right, and only as
far as the addresses in it are trusted themselves: what stands further left may be anybody's words.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import msgspec

from turbod.config import ServerSettings

MAX_HOPS: Final = 16  # trusted proxies in a row; what stands further left is not looked at
MAX_ELEMENT_BYTES: Final = 1024  # what one proxy tells

_MAPPED_BITS = 96  # of an IPv6 address, before the IPv4 address that is mapped to it
# An address as proxies write it: IPv6 in brackets or bare, a port behind it (RFC 7239, section 6).
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
    r"|([0-9A-Fa-f:.]{2,45})"
)
_PAIR = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^ \t";,\\]*))[ \t]*(?:;|$)"""
)
_ESCAPED = re.compile(r"\\(.)")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Client(msgspec.Struct, frozen=True):
    """Whose request it is.

    Attributes:
        address: the client's; where nobody tells it, of the last proxy that is known.
        is_told: whether it is the client's.
    """

    address: Address
    is_told: bool


def client(headers: Mapping[str, str], proxy: Address, settings: ServerSettings) -> Client:
    """Return whose request a trusted proxy passes on.

    Where all addresses are trusted it is the leftmost's. What is missing, is `unknown` or hidden
    (RFC 7239, section 6.3), or cannot be read, is no client's mistake.

    Args:
        headers: the request's, names in lower case; several of one name joined by commas.
        proxy: who sent it; it is trusted.
        settings: which header is believed, and who is trusted.
    """
    name = settings.forwarded_header.lower()
    told = _forwarded if name == "forwarded" else _x_forwarded_for
    last = proxy
    for _, address in zip(range(MAX_HOPS), told(headers.get(name, "")), strict=False):
        if address is None:
            return Client(last, is_told=False)
        last = address
        if not is_trusted(address, settings):
            break
    return Client(last, is_told=True)


def parse(text: str) -> Address | None:
    """Return an address, None where it is none; an IPv4 address mapped to IPv6 is one of IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_trusted(address: Address, settings: ServerSettings) -> bool:
    """Tell whether what somebody tells about others is believed."""
    return any(address in network for network in _networks(settings.trusted_proxies))


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(_network(text) for text in texts)


def _network(text: str) -> Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((int(mapped), network.prefixlen - _MAPPED_BITS))
    return network


def _x_forwarded_for(text: str) -> Iterator[Address | None]:
    """Yield who is told, from the right; None for what is no address."""
    end = len(text)
    while end >= 0:
        comma = text.rfind(",", 0, end)
        yield _node(text[comma + 1 : end].strip(" \t"))
        end = comma


def _forwarded(text: str) -> Iterator[Address | None]:
    """Yield who is told, from the right; None, and no more, where that cannot be read."""
    end = len(text)
    while end >= 0:
        comma = _comma_before(text, end)
        yield None if comma is None else _for(text[comma + 1 : end])
        end = -1 if comma is None else comma


def _comma_before(text: str, end: int) -> int | None:
    """Return the index of the comma before the element that ends at `end`, -1 for the first one.

    Looked for from the right, because a quote that was left open further left is not that proxy's.
    None where the element is too long.
    """
    is_quoted = False
    for index in range(end - 1, max(end - MAX_ELEMENT_BYTES, 0) - 1, -1):
        character = text[index]
        if character == '"' and not _is_escaped(text, index):
            is_quoted = not is_quoted
        elif character == "," and not is_quoted:
            return index
    return -1 if end <= MAX_ELEMENT_BYTES else None


def _is_escaped(text: str, index: int) -> bool:
    before = text[max(index - MAX_ELEMENT_BYTES, 0) : index]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _for(element: str) -> Address | None:
    """Return whom one element of Forwarded names, as RFC 7239, section 4, has it."""
    named, position = None, 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None:
            return None
        name, quoted, plain = pair.groups()
        if name.lower() == "for":
            if named is not None:
                return None
            named = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = pair.end()
    return _node(named) if named is not None else None


def _node(text: str) -> Address | None:
    found = _NODE.fullmatch(text)
    return parse(next(filter(None, found.groups()))) if found else None
