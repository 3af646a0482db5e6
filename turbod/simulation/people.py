"""The accounts of a simulated network: who they are and how unequally they act. Pure."""

from bisect import bisect_left
from itertools import accumulate
from random import Random
from typing import Any, Final

from turbod.simulation.identifiers import blob_cid, plc_did, record_cid, tid, time_text
from turbod.simulation.writing import EMOJI, invented, language, words

_DAY_US: Final = 86_400_000_000
_OLDEST_ACCOUNT_US: Final = 3 * 365 * _DAY_US
_WEB_SHARE: Final = 0.02  # of accounts under did:web
_PINNED_SHARE: Final = 0.4
_NO_PROFILE_SHARE: Final = 0.03
_BANNER_SHARE: Final = 0.7
_LABELS: Final = ("!no-unauthenticated", "porn", "bot")


class Account:
    """One account as its owner sees it."""

    __slots__ = ("active", "did", "handle", "language", "name", "number", "profile", "status")

    def __init__(self, number: int, did: str, *, handle: str, language: str) -> None:
        self.number = number
        self.did = did
        self.handle = handle
        self.language = language
        self.name = handle.partition(".")[0]
        self.profile: dict[str, Any] | None = None
        self.active = True
        self.status = ""


class Population:
    """All accounts: a few act and are known very much more than the others (Zipf, exponent 1)."""

    def __init__(self, random: Random, *, count: int, seed: int, now_us: int) -> None:
        self._random = random
        self._seed = seed
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(count)))
        self.accounts = [self._account(number, now_us) for number in range(count)]
        self._known = random.sample(range(count), count)  # the busy are not the famous
        self._created = count

    def actor(self) -> Account:
        """Draw who acts next: the busy far more often; never one that is not active."""
        for _ in range(50):
            account = self.accounts[self._rank()]
            if account.active:
                return account
        return next(account for account in self.accounts if account.active)

    def known(self) -> Account:
        """Draw who is spoken to or followed: the famous far more often."""
        return self.accounts[self._known[self._rank()]]

    def anyone(self) -> Account:
        """Draw any account, all alike."""
        return self._random.choice(self.accounts)

    def chance(self) -> float:
        """Draw a number from 0 up to 1."""
        return self._random.random()

    def replace(self, gone: Account, now_us: int) -> Account:
        """Put a new account in the place of one that was deleted."""
        place = self.accounts.index(gone)
        account = self.accounts[place] = self._account(self._created, now_us)
        self._created += 1
        return account

    def new_handle(self, account: Account) -> str:
        """Think of another handle for this account."""
        return f"{account.name}-{self._random.getrandbits(32):x}.bsky.social"

    def profile(self, account: Account, *, created_us: int) -> dict[str, Any]:
        """Write the record `app.bsky.actor.profile` of this account, anew at each call."""
        random = self._random
        profile: dict[str, Any] = {"$type": "app.bsky.actor.profile"}
        profile["avatar"] = blob(random, most_bytes=90_000)
        if random.random() < _BANNER_SHARE:
            profile["banner"] = blob(random, most_bytes=400_000)
        profile["createdAt"] = time_text(created_us)
        description = words(random, account.language, mean=36 if account.language != "ja" else 18)
        profile["description"] = f"{account.name} {random.choice(EMOJI)} {description}"[:256]
        extra = words(random, account.language, mean=2)
        profile["displayName"] = f"{account.name.title()} {extra} {random.choice(EMOJI)}"[:64]
        if random.random() < _PINNED_SHARE:
            rkey = tid(created_us)
            uri = f"at://{account.did}/app.bsky.feed.post/{rkey}"
            profile["pinnedPost"] = {"cid": record_cid(uri.encode()), "uri": uri}
        if random.random() < 1 / 50:
            label = {"val": random.choice(_LABELS)}
            profile["labels"] = {
                "$type": "com.atproto.label.defs#selfLabels",
                "values": [label],
            }
            profile = dict(sorted(profile.items()))
        return profile

    def _rank(self) -> int:
        return bisect_left(self._weights, self._random.random() * self._weights[-1])

    def _account(self, number: int, now_us: int) -> Account:
        name = f"{invented(number * 7919 + 70**2)}{number}"
        did = plc_did(f"{self._seed} {number}")
        handle = f"{name}.bsky.social"
        if self._random.random() < _WEB_SHARE:
            handle = f"{name}.example.com"
            did = f"did:web:{handle}"
        account = Account(number, did, handle=handle, language=language(self._random))
        if self._random.random() >= _NO_PROFILE_SHARE:
            created_us = now_us - self._random.randrange(_DAY_US, _OLDEST_ACCOUNT_US)
            account.profile = self.profile(account, created_us=created_us)
        return account


def blob(random: Random, *, most_bytes: int) -> dict[str, Any]:
    """Return a reference to an image that does not exist, in the blobs' own key order."""
    return {
        "$type": "blob",
        "ref": {"$link": blob_cid(random.randbytes(16))},
        "mimeType": "image/jpeg",
        "size": random.randrange(2_000, most_bytes),
    }
