"""Hydrated records that compress as real ones would: the same seed gives the same records.

An hour of posts: unequal accounts (Zipf, exponent 0.85), 45 % replies with the views of parent and
root, quotes, images, link cards, mentions; random CIDs, TIDs and avatars; words by Zipf's law out
of 25,000. A view is the same bytes wherever it is shown, as turbod's cache keeps it for an hour.
Messages and views have the keys, order and sizes of captured ones; the record is spliced by
turbod's own code. About 3.1 KB each.
"""

from bisect import bisect
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import Any, Final

import msgspec

from turbod.cursor import HOUR_US
from turbod.event import POST, parse
from turbod.hydration.assembly import assemble, wanted
from turbod.hydration.cache import Entry
from turbod.record import Record
from turbod.simulation.identifiers import blob_cid, plc_did, record_cid, tid, time_text

ACCOUNTS: Final = 170_000  # 30,000 of them write the first 60,000 posts
EXPONENT: Final = 0.85
VOCABULARY: Final = 25_000
REPLIES: Final = 0.45
QUOTES: Final = 0.09
POSTS_KEPT: Final = 20_000
STEP_US: Final = 60_000  # 60,000 posts an hour, about what the network writes
FIRST_US: Final = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z

_DAY_US: Final = 86_400_000_000
_YEAR_US: Final = 365 * _DAY_US
_COUNTS: Final = ("bookmarkCount", "replyCount", "repostCount", "likeCount", "quoteCount")
_LANGUAGES: Final = ("ja", "pt", "de", "es", "ko")
_QUOTE: Final = "app.bsky.embed.record"
_LETTERS: Final = "etaoinshrdlucmfwypvbgkjqxz"
_EMOJI: Final = ("😂", "😭", "❤️", "🔥", "✨", "🥹", "👀", "💀", "🙏", "😍", "🤣", "🫠")
_SITES: Final = [
    f"https://www.{name}.com" for name in ("youtube", "theguardian", "nytimes", "bbc", "cnn")
]
_encode = msgspec.json.Encoder().encode


class Author(msgspec.Struct):
    """An account: as posts show it, and its own view."""

    did: str
    handle: str
    basic: dict[str, Any]
    profile: Entry


class Post(msgspec.Struct):
    """A post that may be answered or quoted."""

    author: Author
    uri: str
    cid: str
    record: dict[str, Any]
    time_us: int
    root: "Post | None" = None
    quoted: "Post | None" = None

    @property
    def strong(self) -> dict[str, str]:
        """What a record that refers to it has."""
        return {"cid": self.cid, "uri": self.uri}


class Believable:
    """A network whose accounts only write posts."""

    def __init__(
        self,
        *,
        seed: int = 1,
        first_us: int = FIRST_US,
        step_us: int = STEP_US,
        accounts: int = ACCOUNTS,
    ) -> None:
        self._random = Random(seed)  # noqa: S311 - repeatable on purpose
        self._seed = seed
        self._now_us = first_us
        self._step_us = step_us
        self._ranks = list(accumulate((rank + 1) ** -EXPONENT for rank in range(accounts)))
        self._words = Words(self._random)
        self._authors: dict[int, Author] = {}
        self._profiles: dict[str, Entry] = {}
        self._posts: dict[str, Entry] = {}
        self._recent: deque[Post] = deque(maxlen=POSTS_KEPT)
        self._answered: deque[Post] = deque(maxlen=2000)

    def move_to(self, now_us: int) -> None:
        """Let it be as late as this, if it is not later."""
        self._now_us = max(self._now_us, now_us)

    def records(self, count: int) -> Iterator[tuple[int, Record]]:
        """Yield the next records with their cursors."""
        for number in range(count):
            self._now_us += 1 + int(self._random.expovariate(1 / self._step_us))
            yield self._now_us, self._record(number)

    def lines(self, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield the next records' cursors and lines, without their breaks."""
        for cursor, record in self.records(count):
            yield cursor, record.line(cursor)

    def _record(self, number: int) -> Record:
        post = self._written()
        commit = {
            "rev": tid(self._now_us, clock=self._random.randrange(1024)),
            "operation": "create",
            "collection": POST,
            "rkey": post.uri.rpartition("/")[2],
            "record": post.record,
            "cid": post.cid,
        }
        message = {"did": post.author.did, "time_us": self._now_us, "kind": "commit"}
        event = parse(_encode(message | {"commit": commit}))
        views: dict[str, Entry | None] = {
            key: self._posts[key] if key.startswith("at:") else self._profiles[key]
            for key in wanted(event)
        }
        return Record(event, assemble(event, views, self._profiles.get)[0], number)

    def _written(self) -> Post:
        """Write a post, and keep it to be answered."""
        random, author = self._random, self._author()
        post = self._post(author, self._now_us - random.randrange(500_000))
        if random.random() < REPLIES:
            parent = self._spoken_of()
            post.root = parent.root or parent
            self._show(post.root)
            post.record["reply"] = {"parent": parent.strong, "root": post.root.strong}
        if random.random() < QUOTES:
            post.quoted = self._spoken_of()
            post.record["embed"] = {"$type": _QUOTE, "record": post.quoted.strong}
        post.record = dict(sorted(post.record.items()))
        self._recent.append(post)
        return post

    def _spoken_of(self) -> Post:
        """Draw what is answered or quoted: often what others answer too, or something new."""
        draw, recent = self._random.random(), self._recent
        if draw < 0.4 and self._answered:  # noqa: PLR2004
            post = self._random.choice(self._answered)
        elif draw < 0.75 and recent:  # noqa: PLR2004 - of the last minutes
            back = 1 + int(self._random.expovariate(1 / 1500))
            post = recent[-min(back, len(recent))]
        else:
            age_us = HOUR_US + int(self._random.expovariate(1 / _DAY_US))
            post = self._post(self._author(), self._now_us - age_us)
        self._answered.append(post)
        self._show(post)
        return post

    def _post(self, author: Author, time_us: int) -> Post:
        random = self._random
        rkey = tid(time_us, clock=random.randrange(1024))
        record: dict[str, Any] = {"$type": POST, "createdAt": time_text(time_us)}
        text = self._words.text(17)
        draw = random.random()
        if draw < 0.2:  # noqa: PLR2004
            record["embed"] = self._images()
        elif draw < 0.32:  # noqa: PLR2004
            record["embed"] = self._card()
        if random.random() < 0.06:  # noqa: PLR2004
            text = self._mention(record, text)
        record |= {"langs": ["en" if random.random() < 0.6 else random.choice(_LANGUAGES)]}  # noqa: PLR2004
        record["text"] = text
        cid = record_cid(random.randbytes(16))
        return Post(author, f"at://{author.did}/{POST}/{rkey}", cid, record, time_us)

    def _mention(self, record: dict[str, Any], text: str) -> str:
        other = self._author()
        feature = {"$type": "app.bsky.richtext.facet#mention", "did": other.did}
        index = {"byteEnd": len(other.handle) + 1, "byteStart": 0}
        record["facets"] = [{"features": [feature], "index": index}]
        return f"@{other.handle} {text}"

    def _images(self) -> dict[str, Any]:
        random = self._random
        images = []
        for _ in range(random.choice((1, 1, 1, 1, 2, 3, 4))):
            alt = self._words.text(14) if random.random() < 0.4 else ""  # noqa: PLR2004
            ratio = {"height": random.randrange(500, 4000), "width": random.randrange(500, 4000)}
            images.append({"alt": alt, "aspectRatio": ratio, "image": self._blob()})
        return {"$type": "app.bsky.embed.images", "images": images}

    def _card(self) -> dict[str, Any]:
        random = self._random
        path = "-".join(self._words.text(6).split())
        external = {"description": self._words.text(22), "thumb": self._blob()}
        external |= {"title": self._words.text(9), "uri": f"{random.choice(_SITES)}/{path}"}
        return {"$type": "app.bsky.embed.external", "external": external}

    def _blob(self) -> dict[str, Any]:
        link, size = blob_cid(self._random.randbytes(16)), self._random.randrange(9_000, 900_000)
        return {"$type": "blob", "ref": {"$link": link}, "mimeType": "image/jpeg", "size": size}

    def _show(self, post: Post) -> None:
        """Make the postView, once."""
        if post.uri in self._posts:
            return
        random = self._random
        view: dict[str, Any] = {"uri": post.uri, "cid": post.cid, "author": post.author.basic}
        view["record"] = post.record
        if "embed" in post.record:
            view["embed"] = _shown(post)
        view |= {name: int(random.paretovariate(0.7)) - 1 for name in _COUNTS}
        view |= {"indexedAt": time_text(post.time_us + random.randrange(900_000)), "labels": []}
        self._posts[post.uri] = self._entry(post.uri, view)
        if len(self._posts) > 10 * POSTS_KEPT:
            del self._posts[next(iter(self._posts))]

    def _entry(self, key: str, view: dict[str, Any]) -> Entry:
        fetched_us = self._now_us + self._random.randrange(300_000)
        return Entry(key, _encode(view), (), 0, fetched_us, 0)

    def _author(self) -> Author:
        rank = bisect(self._ranks, self._random.random() * self._ranks[-1])
        author = self._authors.get(rank)
        if author is None:
            author = self._authors[rank] = self._account(rank)
        return author

    def _account(self, rank: int) -> Author:
        random, words = self._random, self._words
        did = plc_did(f"{self._seed} {rank}")
        handle = f"{words.word()}{words.word()}{random.randrange(100)}.bsky.social"
        created = time_text(FIRST_US - random.randrange(3 * _YEAR_US))
        basic: dict[str, Any] = {"did": did, "handle": handle, "displayName": words.text(2)}
        basic["avatar"] = _image("avatar", did, blob_cid(random.randbytes(16)))
        incoming = random.choice(("all", "none", "following"))
        own = {"chat": {"allowIncoming": incoming}}
        own |= {"activitySubscription": {"allowSubscriptions": "followers"}}
        counts: dict[str, Any] = {"lists": 0, "feedgens": 0, "starterPacks": 0, "labeler": False}
        labels = [self._label(did, created)] if random.random() < 0.12 else []  # noqa: PLR2004
        tail = {"labels": labels, "createdAt": created}
        detailed = basic | {"associated": counts | own} | tail
        detailed |= {"description": words.text(25), "indexedAt": created}
        if random.random() < 0.7:  # noqa: PLR2004
            detailed["banner"] = _image("banner", did, blob_cid(random.randbytes(16)))
        for name in ("followersCount", "followsCount", "postsCount"):
            detailed[name] = int(40 * random.paretovariate(0.7))
        if random.random() < 0.4:  # noqa: PLR2004
            uri = f"at://{did}/{POST}/{tid(FIRST_US - random.randrange(_YEAR_US))}"
            detailed["pinnedPost"] = {"cid": record_cid(random.randbytes(16)), "uri": uri}
        self._profiles[did] = entry = self._entry(did, detailed)
        return Author(did, handle, basic | {"associated": own} | tail, entry)

    def _label(self, did: str, created: str) -> dict[str, str]:
        uri = f"at://{did}/app.bsky.actor.profile/self"
        cid = record_cid(self._random.randbytes(16))
        label = {"src": did, "uri": uri, "cid": cid, "val": "!no-unauthenticated"}
        return label | {"cts": created}


class Words:
    """A vocabulary: frequent words are short."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._weights = list(accumulate(1 / (rank + 2) for rank in range(VOCABULARY)))
        letters = list(accumulate(1 / (rank + 2) for rank in range(len(_LETTERS))))
        self._words = [
            "".join(random.choices(_LETTERS, cum_weights=letters, k=_length(random, rank)))
            for rank in range(VOCABULARY)
        ]

    def word(self) -> str:
        """Draw one."""
        return self._words[bisect(self._weights, self._random.random() * self._weights[-1])]

    def text(self, mean: int) -> str:
        """Draw about `mean` words, now and then with an emoji."""
        random = self._random
        count = min(1 + int(random.expovariate(1 / mean)), 3 * mean)
        words = random.choices(self._words, cum_weights=self._weights, k=count)
        if random.random() < 0.25:  # noqa: PLR2004
            words.append(random.choice(_EMOJI))
        return " ".join(words)


def _length(random: Random, rank: int) -> int:
    return 2 + rank.bit_length() // 3 + random.randrange(4)


def _image(kind: str, did: str, cid: str) -> str:
    return f"https://cdn.bsky.app/img/{kind}/plain/{did}/{cid}"


def _shown(post: Post) -> dict[str, Any]:
    """Return the view of a post's embed."""
    embed, did = post.record["embed"], post.author.did
    kind = embed["$type"]
    if kind == "app.bsky.embed.images":
        return {"$type": f"{kind}#view", "images": [_shown_image(i, did) for i in embed["images"]]}
    if post.quoted is None:
        card = embed["external"]
        thumb = _image("feed_thumbnail", did, card["thumb"]["ref"]["$link"])
        external = {key: card[key] for key in ("uri", "title", "description")}
        return {"$type": f"{kind}#view", "external": external | {"thumb": thumb}}
    quoted = post.quoted
    view: dict[str, Any] = {"$type": f"{kind}#viewRecord", "uri": quoted.uri, "cid": quoted.cid}
    view |= {"author": quoted.author.basic, "value": quoted.record, "labels": []}
    view |= {"indexedAt": time_text(quoted.time_us), "embeds": []}
    return {"$type": f"{kind}#view", "record": view}


def _shown_image(image: dict[str, Any], did: str) -> dict[str, Any]:
    cid = image["image"]["ref"]["$link"]
    links = [_image(f"feed_{name}", did, cid) for name in ("thumbnail", "fullsize")]
    view = {"thumb": links[0], "fullsize": links[1], "alt": image["alt"]}
    return view | {"aspectRatio": image["aspectRatio"]}
