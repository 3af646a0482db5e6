"""Who is let in, by token; what each may have; and who has to go when tokens change."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio

from turbod import bearer
from turbod.config import ServerSettings
from turbod.server.admission import group, too_many_connections
from turbod.server.endpoints import BEARER
from turbod.server.guesses import Guesses
from turbod.server.interests import Account, Interests, Share
from turbod.server.request import Refusal, Request
from turbod.server.tokens import Token, Tokens

OPEN: Final = frozenset({"/", "/healthz"})  # no token is looked at there
HALF_OPEN: Final = frozenset({"/readyz"})  # without one it answers less
REALM: Final = 'Bearer realm="turbod"'  # RFC 6750, section 3

_is_in_query = re.compile(r"(?:^|&)(?:access_)?token=").search

log = structlog.get_logger()


class Guest:
    """A connection that was let in.

    Attributes:
        token: as it was then: its limits hold to the connection's end. None where it showed none.
        digest: of the token that it sent, looked at or not: one may be asked for later.
        has_archive: whether its token, as it is now, allows whole hours that are not public.
        is_trusted: whether it showed one, or nobody has to.
        revoke: called when its token is one no longer.
    """

    def __init__(
        self,
        token: Token | None,
        account: Account,
        *,
        is_trusted: bool,
        digest: bytes | None = None,
    ) -> None:
        self.token = token
        self.digest = digest
        self.has_archive = token is not None and token.archive
        self.account = account
        self.is_trusted = is_trusted
        self.revoke: Callable[[], None] = lambda: None

    def share_of(self, interests: Interests) -> Share:
        """Return the filters of all as far as this guest may have some."""
        token = self.token
        if token is None:
            return Share(interests, self.account)
        return Share(interests, self.account, name=token.name, max_dids=token.max_filter_dids)


class Guard:
    """Lets connections in, by the tokens that there are now.

    Args:
        settings: how many wrong tokens an address may send.
        tokens: None where nobody needs one.
    """

    def __init__(self, settings: ServerSettings, tokens: Tokens | None) -> None:
        self._settings = settings
        self._tokens = tokens
        self._guesses = Guesses()
        self._accounts: dict[bytes, Account] = {}  # of tokens that are connected
        self._guests: set[Guest] = set()

    @property
    def wrong_tokens(self) -> int:
        """How many there were since the start."""
        return self._guesses.total

    @property
    def known_tokens(self) -> int | None:
        """How many there are; None where nobody needs one."""
        return None if self._tokens is None else len(self._tokens)

    def connections(self) -> dict[str, int]:
        """Return how many are open now, by the name of each token that there is."""
        return {
            token.name: self._accounts[token.digest].connections
            if token.digest in self._accounts
            else 0
            for token in self._tokens or ()
        }

    @contextmanager
    def admitted(self, request: Request, address: str) -> Iterator[Guest]:
        """Let a request in, for as long as its connection lasts.

        Raises:
            Refusal: AuthRequired, TooManyConnections; InvalidRequest for more than one token.
        """
        token = self._shown(request, address)
        is_trusted = self._tokens is None or token is not None
        if request.path in OPEN | HALF_OPEN:
            yield Guest(token, Account(), is_trusted=is_trusted)
            return
        if not is_trusted:
            raise _token_needed()
        guest = Guest(token, self._account(token), is_trusted=True, digest=_digest(request))
        guest.account.connections += 1
        self._guests.add(guest)
        try:
            yield guest
        finally:
            self._leave(guest)

    def set_tokens(self, tokens: Tokens | None) -> None:
        """Let these hold from now on; send away who has none of them."""
        self._tokens = tokens
        gone = []
        for guest in self._guests:
            found = None if tokens is None else tokens.of(guest.digest)
            guest.has_archive = found is not None and found.archive
            if tokens is not None and found is None:
                gone.append(guest)
        for guest in gone:
            guest.revoke()
        if gone:
            log.info("tokens_revoked", connections=len(gone))

    def _shown(self, request: Request, address: str) -> Token | None:
        """Return the token that a request shows."""
        if self._tokens is None or request.path in OPEN:
            return None
        if _is_in_query(request.query):
            raise _in_query()
        text = offered(request)
        if text is None:
            return None
        token = self._tokens.find(text)
        if token is None:
            raise self._wrong_token(address)
        return token

    def _account(self, token: Token | None) -> Account:
        if token is None:
            return Account()
        account = self._accounts.get(token.digest) or Account()
        most = token.max_connections
        if most is not None and account.connections >= most:
            raise too_many_connections(f"{most} connections are open with the token {token.name}")
        return self._accounts.setdefault(token.digest, account)

    def _leave(self, guest: Guest) -> None:
        self._guests.remove(guest)
        guest.account.connections -= 1
        if guest.token is not None and not guest.account.connections:
            del self._accounts[guest.token.digest]

    def _wrong_token(self, address: str) -> Refusal:
        """Count it and return what its sender is told: after some, to stop."""
        now, key = trio.current_time(), group(address)
        count = self._guesses.add(key, now=now)
        if count == 1:
            log.warning("wrong_token", address=address, since_start=self._guesses.total)
        if count <= self._settings.max_wrong_tokens_per_minute:
            return _auth_required("this token is not known here", 'error="invalid_token"')
        seconds = math.ceil(self._guesses.seconds_left(key, now=now))
        return Refusal(
            429,
            "TooManyConnections",
            "too many wrong tokens came from your address; try again later",
            headers={"Retry-After": str(max(seconds, 1))},
        )


def offered(request: Request) -> str | None:
    """Return the token that a request carries, of whatever form; None where there is none.

    Raises:
        Refusal: InvalidRequest for two, since nobody can tell which is meant.
    """
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    names = request.tokens("sec-websocket-protocol")
    found = {name.removeprefix(BEARER) for name in names if name.startswith(BEARER)}
    if scheme.lower() == "bearer":
        found.add(credentials.strip(" "))
    if len(found) > 1 or any("," in text for text in found):  # of two headers in one
        raise Refusal(400, "InvalidRequest", "a request has one token at most")
    return next(iter(found), None)


def _digest(request: Request) -> bytes | None:
    try:
        text = offered(request)
    except Refusal:
        return None
    return bearer.digest(text) if text is not None and bearer.is_ours(text) else None


def _in_query() -> Refusal:
    return Refusal(
        400,
        "InvalidRequest",
        "a token never goes into the query, which many programs write down: send it as "
        f"`Authorization: Bearer TOKEN` or as the WebSocket subprotocol `{BEARER}TOKEN`",
    )


def _token_needed() -> Refusal:
    return _auth_required(
        "a token is needed, of the operator: send it as `Authorization: Bearer TOKEN` or as the "
        f"WebSocket subprotocol `{BEARER}TOKEN`; turbod's commands take it from TURBOD_TOKEN"
    )


def _auth_required(message: str, *details: str) -> Refusal:
    challenge = ", ".join((REALM, *details))
    return Refusal(401, "AuthRequired", message, headers={"WWW-Authenticate": challenge})
