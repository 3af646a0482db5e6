"""How many connections there may be: in all, from one address, still in handshake. Pure."""

from collections import Counter
from ipaddress import IPv6Address, ip_address

from turbod.config import ServerSettings
from turbod.server.request import Refusal

RETRY_AFTER_SECONDS = 10


class Admission:
    """Counts connections against the bounds of the settings."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._by_address: Counter[str] = Counter()
        self.connections = 0
        self.handshakes = 0

    def admit(self, address: str) -> "Ticket":
        """Count one more connection, in handshake.

        Raises:
            Refusal: where a bound is reached.
        """
        settings, key = self._settings, group(address)
        if self.connections >= settings.max_connections:
            raise too_many_connections(f"{settings.max_connections} connections are open")
        if self._by_address[key] >= settings.max_connections_per_address:
            raise too_many_connections(
                f"{settings.max_connections_per_address} connections are open from your address"
            )
        if self.handshakes >= settings.max_handshakes:
            raise too_many_connections(
                f"{settings.max_handshakes} connections have not sent a whole request"
            )
        self.connections += 1
        self.handshakes += 1
        self._by_address[key] += 1
        return Ticket(self, key)

    def _leave(self, key: str) -> None:
        self.connections -= 1
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


class Ticket:
    """One connection's place: in handshake until `greeted`, open until `close`."""

    def __init__(self, admission: Admission, key: str) -> None:
        self._admission = admission
        self._key = key
        self._in_handshake = True

    def greeted(self) -> None:
        """Its request is whole."""
        if self._in_handshake:
            self._in_handshake = False
            self._admission.handshakes -= 1

    def close(self) -> None:
        """It is gone; to be called once."""
        self.greeted()
        self._admission._leave(self._key)  # noqa: SLF001 - the two are one mechanism


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
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return f"{int(ip) >> 64:x}/64"
    return address
