"""How many connections there may be: in all, from one address, still in handshake. Pure."""

import math
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv6Address

from turbod.config import ServerSettings
from turbod.server import forwarding
from turbod.server.request import Refusal

RETRY_AFTER_SECONDS = 10
HANDSHAKES_OF_ONE = 0.75  # of all that there may be: whoever says nothing keeps nobody else out


class Admission:
    """Counts connections against the bounds of the settings.

    Attributes:
        untold: requests of trusted proxies that did not tell the client's address.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._by_address: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()  # in handshake, by address
        self.connections = 0
        self.handshakes = 0
        self.untold = 0

    def admit(self, address: str) -> "Ticket":
        """Count one more connection, in handshake.

        Raises:
            Refusal: where a bound is reached.
        """
        settings, peer = self._settings, forwarding.parse(address)
        if self.connections >= settings.max_connections:
            raise too_many_connections(f"{settings.max_connections} connections are open")
        is_proxy = peer is not None and forwarding.is_trusted(peer, settings)
        key = None if is_proxy else self._room(address)
        if self.handshakes >= settings.max_handshakes:
            raise too_many_connections(
                f"{settings.max_handshakes} connections have not sent a whole request"
            )
        share = math.ceil(settings.max_handshakes * HANDSHAKES_OF_ONE)
        if key is not None and self._silent[key] >= share:
            raise too_many_connections(
                f"{share} connections from your address have not sent a whole request"
            )
        self.connections += 1
        self.handshakes += 1
        if key is not None:
            self._by_address[key] += 1
            self._silent[key] += 1
        return Ticket(self, address if peer is None else str(peer), key)

    def _attribute(self, proxy: str, headers: Mapping[str, str]) -> tuple[str, str]:
        """Count what a proxy passes on for its client; return the address and its key."""
        peer = forwarding.parse(proxy)
        assert peer is not None, "it is trusted"
        client = forwarding.client(headers, peer, self._settings)
        self.untold += not client.is_told
        address = str(client.address)
        key = self._room(address)
        self._by_address[key] += 1
        return address, key

    def _room(self, address: str) -> str:
        """Return the key of an address that may have one connection more."""
        key, most = group(address), self._settings.max_connections_per_address
        if self._by_address[key] >= most:
            raise too_many_connections(f"{most} connections are open from your address")
        return key

    def _greeted(self, key: str | None) -> None:
        self.handshakes -= 1
        if key is not None:
            _remove(self._silent, key)

    def _leave(self, key: str | None) -> None:
        self.connections -= 1
        if key is not None:
            _remove(self._by_address, key)


class Ticket:
    """One connection's place: in handshake until `greeted`, open until `close`.

    Attributes:
        address: the client's; of a trusted proxy's connection the proxy's, until it is attributed.
    """

    def __init__(self, admission: Admission, address: str, key: str | None) -> None:
        self._admission = admission
        self._key = key
        self._in_handshake = True
        self.address = address

    def greeted(self) -> None:
        """Its request is whole."""
        if self._in_handshake:
            self._in_handshake = False
            self._admission._greeted(self._key)  # noqa: SLF001 - the two are one mechanism

    def attribute(self, headers: Mapping[str, str]) -> None:
        """Count it for the client that a trusted proxy tells of in a request's headers.

        Nothing changes where the connection is not a proxy's: the peer is the client then.

        Raises:
            Refusal: where the client has all the connections that one address may have.
        """
        if self._key is None:
            self.address, self._key = self._admission._attribute(self.address, headers)  # noqa: SLF001 - the two are one mechanism

    def close(self) -> None:
        """It is gone; to be called once."""
        self.greeted()
        self._admission._leave(self._key)  # noqa: SLF001 - the two are one mechanism


def _remove(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def too_many_connections(reason: str) -> Refusal:
    """Return the refusal that asks a client to come again later."""
    return Refusal(
        429,
        "TooManyConnections",
        f"{reason}; try again later",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def group(address: str) -> str:
    """Return what counts as one address: an IPv6 network of 64 bits is one machine's."""
    ip = forwarding.parse(address)
    if isinstance(ip, IPv6Address):
        return f"{int(ip) >> 64:x}/64"
    return address if ip is None else str(ip)
