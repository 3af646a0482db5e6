"""The AppView's client over real HTTP on loopback, against a server that does what it is told."""

import gzip
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import pytest
import trio

from turbod import __version__
from turbod.backoff import Backoff
from turbod.config import HydrationSettings
from turbod.hydration import filling, planner
from turbod.hydration.appview import AppView, Kind, Outcome, new_client
from turbod.hydration.budget import Budget
from turbod.hydration.call import Unanswered, get
from turbod.hydration.views import View

PLENTY = HydrationSettings(calls_per_second=1000, deadline_seconds=2)
FOUND, MISSING, UNRESOLVED = Outcome.FOUND, Outcome.MISSING, Outcome.UNRESOLVED


def did(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tail = "".join(letters[(number // 26**place) % 26] for place in range(5))
    return f"did:plc:{tail:a>24}"


def uri(number: int) -> str:
    return f"at://{did(number)}/app.bsky.feed.post/3kaaaaaaaaaaa"


DIDS = [did(number) for number in range(1000)]


@pytest.fixture(autouse=True)
def quick_filling(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Most calls here are not full: let them not wait, but where the wait is the test."""
    if "quarter" not in request.node.name:
        monkeypatch.setattr(filling, "FILL_SECONDS", 0.03)
        monkeypatch.setattr(planner, "FILL_SECONDS", 0.03)


class Asked(msgspec.Struct):
    """One request as the server read it."""

    path: str
    items: tuple[str, ...]
    parameters: tuple[str, ...]
    headers: dict[str, str]
    target: str
    at: float


Handler = Callable[[Asked, trio.SocketStream], Awaitable[bool | None]]


def view_of(key: str) -> dict[str, Any]:
    if key.startswith("did:"):
        return {"did": key, "handle": "a.test"}
    author = {"did": key[5:37], "handle": "a.test"}
    return {"uri": key, "cid": "bafy", "author": author, "record": {}}


def body_of(asked: Asked, views: Iterable[object] | None = None) -> bytes:
    array = "profiles" if "getProfiles" in asked.path else "posts"
    return json.dumps(
        {array: [view_of(key) for key in asked.items] if views is None else views}
    ).encode()


def response(body: bytes, *, status: int = 200, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """Answers each request with what the next handler says, then with what there is."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: list[Handler] = []
        self.always: Handler = self.good
        self.connections = 0
        self.url = ""

    async def good(self, asked: Asked, stream: trio.SocketStream) -> None:
        """Answer with a view of everything asked for."""
        await stream.send_all(response(body_of(asked)))

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while (asked := await read_request(stream)) is not None:
                self.asked.append(asked)
                handler = self.script.pop(0) if self.script else self.always
                if await handler(asked, stream):
                    return
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)


async def read_request(stream: trio.SocketStream) -> Asked | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await stream.receive_some()
        if not data:
            return None
        head += data
    first, *rest = head.decode().split("\r\n")
    target = first.split(" ")[1]
    pairs = parse_qsl(urlsplit(target).query)
    return Asked(
        path=urlsplit(target).path,
        items=tuple(value for _, value in pairs),
        parameters=tuple(name for name, _ in pairs),
        headers={
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in rest if line)
        },
        target=target,
        at=trio.current_time(),
    )


def answers(data: bytes | Callable[[Asked], bytes], *, close: bool = False) -> Handler:
    async def handler(asked: Asked, stream: trio.SocketStream) -> bool:
        await stream.send_all(data if isinstance(data, bytes) else data(asked))
        return close

    return handler


async def never(_asked: Asked, _stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def reset(_asked: Asked, stream: trio.SocketStream) -> bool:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


async def drip(_asked: Asked, stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.05)


class World:
    """A server, its client, and what came back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: list[tuple[str, View | None, Outcome, int]] = []
        self.generation = 0
        self.appview: AppView
        self.scope: trio.CancelScope

    def answered(self, key: str, view: View | None, outcome: Outcome, stamp: int) -> None:
        """Take an answer, once for each key."""
        assert key not in {answer[0] for answer in self.answers}, "answered twice"
        assert (view is not None) == (outcome is FOUND)
        assert view is None or view.key == key
        self.answers.append((key, view, outcome, stamp))

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What became of each key."""
        return {key: outcome for key, _, outcome, _ in self.answers}

    def want(self, *keys: str) -> None:
        """Want keys of either kind."""
        for key in keys:
            self.appview.want(Kind.PROFILE if key.startswith("did:") else Kind.POST, key)

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10) -> None:
        """Wait for a condition."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - real sockets: there is no event for it
                await trio.sleep(0.005)

    async def all_answered(self, *, seconds: float = 10) -> dict[str, Outcome]:
        """Wait until nothing is pending."""
        await self.until(lambda: not self.appview.pending(), seconds=seconds)
        return self.outcomes

    async def ask(self, *keys: str, seconds: float = 10) -> dict[str, Outcome]:
        """Want keys and wait for their answers."""
        self.want(*keys)
        return await self.all_answered(seconds=seconds)

    def calls(self, result: str) -> int:
        """Count the calls that ended so."""
        counted = self.appview.statistics().calls
        return sum(count for (_, name), count in counted.items() if name == result)


def budget_of(settings: HydrationSettings) -> Budget:
    backoff = Backoff(first_seconds=0.1, longest_seconds=0.4)
    return Budget(settings.calls_per_second, now=trio.current_time(), backoff=backoff)


@asynccontextmanager
async def world(
    settings: HydrationSettings = PLENTY, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[World]:
    server = Server()
    it = World(server)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        port = listeners[0].socket.getsockname()[1]
        it.appview = AppView(
            f"http://127.0.0.1:{port}/",
            settings,
            answered=it.answered,
            stamp=lambda: it.generation,
            transport=transport,
            budget=budget_of(settings),
            now=trio.current_time,
        )
        async with trio.open_nursery() as running:
            it.scope = running.cancel_scope
            await running.start(it.appview.run)
            yield it
            running.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


# Calls --------------------------------------------------------------------------------------


async def test_a_call_is_what_the_appview_documents() -> None:
    """The lexicons' paths and repeated keys; no login, no proxy, our own name."""
    async with world() as it:
        web = "did:web:localhost%3A8080"
        it.want(web, did(1), f"at://{web}/app.bsky.feed.post/a:b~c")
        await it.all_answered()
        profiles, posts = sorted(it.server.asked, key=lambda asked: asked.path, reverse=False)
        assert profiles.path == "/xrpc/app.bsky.actor.getProfiles"
        assert profiles.parameters == ("actors", "actors")
        assert profiles.items == (web, did(1))
        assert posts.path == "/xrpc/app.bsky.feed.getPosts"
        assert posts.parameters == ("uris",)
        assert posts.items == (f"at://{web}/app.bsky.feed.post/a:b~c",)
        assert posts.headers["user-agent"] == f"turbod/{__version__}"
        assert posts.headers["accept-encoding"] == "gzip"
        assert not {"authorization", "cookie"} & posts.headers.keys()
        assert set(it.outcomes.values()) == {FOUND}


async def test_calls_are_full_and_each_item_is_asked_once() -> None:
    async with world() as it:
        it.want(*DIDS[:100])
        it.want(*DIDS[:100])
        await it.all_answered()
        assert sorted(len(asked.items) for asked in it.server.asked) == [25] * 4
        assert it.outcomes == dict.fromkeys(DIDS[:100], FOUND)


async def test_an_item_can_be_wanted_again_once_answered() -> None:
    async with world() as it:
        await it.ask(did(1))
        it.answers.clear()
        assert await it.ask(did(1)) == {did(1): FOUND}
        assert len(it.server.asked) == 2


async def test_a_call_that_is_not_full_waits_at_most_a_quarter_second() -> None:
    async with world() as it:
        await it.ask(did(0))
        it.want(did(1))
        wanted_at = trio.current_time()
        await trio.sleep(0.1)
        it.want(did(2))
        await it.all_answered()
        assert it.server.asked[-1].items == (did(1), did(2))
        assert 0.2 < it.server.asked[-1].at - wanted_at < 1


async def test_long_uris_share_a_url_of_bounded_length() -> None:
    async with world() as it:
        keys = [f"at://{did(n)}/app.bsky.feed.post/{'x' * 500}" for n in range(25)]
        assert set((await it.ask(*keys)).values()) == {FOUND}
        assert max(len(asked.target) for asked in it.server.asked) < 6700
        assert len(it.server.asked) == 3


async def test_an_item_wanted_later_is_asked_later() -> None:
    async with world() as it:
        wanted_at = trio.current_time()
        it.appview.want(Kind.PROFILE, did(1), delay_seconds=0.4)
        it.appview.want(Kind.PROFILE, did(1))
        await it.all_answered()
        assert it.server.asked[0].at - wanted_at >= 0.4


async def test_the_stamp_is_read_as_the_request_goes_out() -> None:
    """Not when wanted, and not when answered: both would let an invalidated view in."""
    async with world() as it:

        async def moves_on(asked: Asked, stream: trio.SocketStream) -> None:
            it.generation = 9
            await it.server.good(asked, stream)

        it.server.script = [moves_on]
        it.want(did(1))
        it.generation = 5
        await it.all_answered()
        assert it.answers[0][3] == 5


async def test_no_more_calls_at_once_than_set() -> None:
    settings = HydrationSettings(calls_per_second=1000, concurrent_calls=3)
    async with world(settings) as it:
        at_once, most = 0, 0

        async def counts(asked: Asked, stream: trio.SocketStream) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await trio.sleep(0.02)
            at_once -= 1
            await it.server.good(asked, stream)

        it.server.always = counts
        await it.ask(*DIDS[:500])
        assert most == 3
        assert it.server.connections == 3


async def test_the_caller_may_want_more_from_within_the_answer() -> None:
    async with world() as it:
        again: list[Outcome] = []

        def answered(key: str, _view: View | None, outcome: Outcome, _stamp: int) -> None:
            again.append(outcome)
            if len(again) < 3:
                it.appview.want(Kind.PROFILE, key)

        it.appview._answered = answered
        await it.ask(did(1))
        assert again == [FOUND] * 3


# Answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [(0,), (3,), (0, 1, 6), range(7)])
async def test_what_an_answer_leaves_out_is_missing_and_shifts_nothing(
    absent: Iterable[int],
) -> None:
    async with world() as it:
        gone = {did(number) for number in absent}

        def without(asked: Asked) -> bytes:
            views = [view_of(key) for key in asked.items if key not in gone]
            return response(body_of(asked, views))

        it.server.always = answers(without)
        outcomes = await it.ask(*DIDS[:7])
        assert outcomes == {key: MISSING if key in gone else FOUND for key in DIDS[:7]}


async def test_reordered_doubled_and_foreign_views_go_where_they_belong() -> None:
    async with world() as it:

        def odd(asked: Asked) -> bytes:
            views = [view_of(key) for key in reversed(asked.items)]
            views.append(view_of(asked.items[0]) | {"handle": "second.test"})
            views.append(view_of(did(99)))
            return response(body_of(asked, views))

        it.server.always = answers(odd)
        await it.ask(*DIDS[:5])
        assert it.outcomes == dict.fromkeys(DIDS[:5], FOUND)
        assert all(b"a.test" in view.data for _, view, _, _ in it.answers if view)
        assert it.appview.statistics().foreign_views == 1


POISON = {
    "invalid UTF-8": b'{"did":"%s","handle":"\xff"}',
    "deep nesting": b'{"did":"%s","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "3 MB": b'{"did":"%s","x":"' + b"x" * 3_000_000 + b'"}',
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_a_poisonous_view_is_missing_and_the_others_found(poison: bytes) -> None:
    async with world() as it:

        def spoilt(asked: Asked) -> bytes:
            views = [json.dumps(view_of(key)).encode() for key in asked.items]
            views[1] = poison.replace(b"%s", asked.items[1].encode())
            return response(b'{"profiles":[' + b",".join(views) + b"]}")

        it.server.always = answers(spoilt)
        outcomes = await it.ask(*DIDS[:4])
        assert list(outcomes.values()) == [FOUND, MISSING, FOUND, FOUND]
        assert len(it.server.asked) == 1
        assert it.appview.statistics().malformed_views == 1


async def test_gzip_is_unpacked() -> None:
    async with world() as it:
        it.server.always = answers(
            lambda asked: response(gzip.compress(body_of(asked)), content_encoding="gzip")
        )
        assert await it.ask(did(1)) == {did(1): FOUND}


async def test_cookies_are_not_kept() -> None:
    async with world() as it:
        it.server.always = answers(lambda asked: response(body_of(asked), set_cookie="a=b"))
        await it.ask(did(1))
        await it.ask(did(2))
        assert "cookie" not in it.server.asked[1].headers


# Troubles -----------------------------------------------------------------------------------

HTML = b"<html><body><h1>Bad Gateway</h1></body></html>"
TROUBLES: dict[str, Handler] = {
    "500 with HTML": answers(response(HTML, status=500)),
    "502 with HTML": answers(response(HTML, status=502)),
    "503 empty": answers(response(b"", status=503)),
    "408": answers(response(b"", status=408)),
    "425": answers(response(b"", status=425)),
    "404": answers(response(b'{"error":"XRPCNotSupported"}', status=404)),
    "redirect": answers(response(b"", status=302, location="http://127.0.0.1:1/")),
    "200 with HTML": answers(response(HTML)),
    "200 empty": answers(response(b"")),
    "JSON cut short": answers(lambda asked: response(body_of(asked)[:-3])),
    "body cut short": answers(lambda asked: response(body_of(asked))[:-3], close=True),
    "body cut short, no length": answers(
        lambda asked: b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n" + body_of(asked)[:-3],
        close=True,
    ),
    "no HTTP": answers(b"hello\r\n\r\n", close=True),
    "closed": answers(b"", close=True),
    "reset": reset,
    "gzip that is none": answers(response(b"{}", content_encoding="gzip")),
    "gzip cut short": answers(
        lambda asked: response(gzip.compress(body_of(asked))[:-9], content_encoding="gzip")
    ),
    "gzip bomb": answers(response(gzip.compress(bytes(50_000_000)), content_encoding="gzip")),
    "another coding": answers(response(b"x", content_encoding="br")),
    "too large": answers(response(b" " * 9_000_000)),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_a_call_that_brings_no_answer_is_made_again(trouble: Handler) -> None:
    async with world() as it:
        it.server.script = [trouble]
        outcomes = await it.ask(*DIDS[:3])
        assert outcomes == dict.fromkeys(DIDS[:3], FOUND)
        assert [len(asked.items) for asked in it.server.asked] == [3, 3]
        assert it.appview.statistics().retries == 1


@pytest.mark.parametrize("trouble", [never, drip], ids=["never answers", "drips"])
async def test_a_call_that_hangs_is_bounded_and_made_again(trouble: Handler) -> None:
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=1)
    async with world(settings) as it:
        it.server.script = [trouble]
        began_at = trio.current_time()
        outcomes = await it.ask(*DIDS[:3])
        assert outcomes == dict.fromkeys(DIDS[:3], FOUND)
        assert trio.current_time() - began_at < 3
        assert it.calls("timeout") == 1


@pytest.mark.parametrize("name", ["a..b", "x" * 70, "xn--", "[z]"])
async def test_a_name_that_no_host_can_have_is_an_appview_that_is_away(name: str) -> None:
    async with new_client() as client:
        with pytest.raises(Unanswered):
            await get(client, f"http://{name}/", seconds=5)


async def test_a_connection_closed_after_each_answer_is_no_trouble() -> None:
    async with world() as it:
        it.server.always = answers(
            lambda asked: response(body_of(asked), connection="close"), close=True
        )
        for number in range(5):
            await it.ask(did(number))
        assert len(it.server.asked) == 5
        assert it.server.connections == 5


async def test_a_kept_connection_gone_stale_costs_one_more_call_and_no_time() -> None:
    async with world() as it:
        await it.ask(did(0))
        it.server.script = [answers(b"", close=True)]
        began_at = trio.current_time()
        assert (await it.ask(did(1)))[did(1)] is FOUND
        assert trio.current_time() - began_at < 0.5


async def test_one_failing_call_of_several_harms_only_itself() -> None:
    async with world() as it:

        async def partly(asked: Asked, stream: trio.SocketStream) -> None:
            if did(30) in asked.items:
                await stream.send_all(response(HTML, status=500))
            else:
                await it.server.good(asked, stream)

        it.server.always = partly
        outcomes = await it.ask(*DIDS[:100])
        assert [key for key in DIDS[:100] if outcomes[key] is not FOUND] == [did(30)]
        assert outcomes[did(30)] is UNRESOLVED


async def test_others_get_their_answers_long_before_a_poisonous_item_is_given_up() -> None:
    async with world(HydrationSettings(calls_per_second=1000, deadline_seconds=5)) as it:

        async def poisoned(asked: Asked, stream: trio.SocketStream) -> None:
            if did(7) in asked.items:
                await stream.send_all(response(HTML, status=502))
            else:
                await it.server.good(asked, stream)

        it.server.always = poisoned
        it.want(*DIDS[:25])
        await it.until(lambda: it.appview.pending() == 1, seconds=3)
        assert set(it.outcomes.values()) == {FOUND}
        assert did(7) not in it.outcomes


async def test_a_refused_reference_is_found_by_halving_and_missing() -> None:
    async with world() as it:
        bad = {did(3), did(24)}

        async def strict(asked: Asked, stream: trio.SocketStream) -> None:
            if bad & set(asked.items):
                body = b'{"error":"InvalidRequest","message":"Error: actors/1 must be a valid did"}'
                await stream.send_all(response(body, status=400))
            else:
                await it.server.good(asked, stream)

        it.server.always = strict
        outcomes = await it.ask(*DIDS[:25])
        assert outcomes == {key: MISSING if key in bad else FOUND for key in DIDS[:25]}
        assert len(it.server.asked) < 21
        assert it.calls("bad_request") == it.appview.statistics().bisections + 2


# The deadline -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble", [never, answers(response(HTML, status=502)), reset], ids=["hangs", "502", "resets"]
)
async def test_an_appview_that_does_not_answer_leaves_all_unresolved_in_time(
    trouble: Handler,
) -> None:
    """Both what was asked and what never had its turn."""
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=1, concurrent_calls=4)
    async with world(settings) as it:
        it.server.always = trouble
        began_at = trio.current_time()
        outcomes = await it.ask(*DIDS[:1000])
        assert outcomes == dict.fromkeys(DIDS[:1000], UNRESOLVED)
        assert 0.9 < trio.current_time() - began_at < 4


async def test_while_down_it_is_probed_and_seen_within_a_second_of_being_back() -> None:
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=1)
    async with world(settings) as it:
        it.server.always = answers(response(HTML, status=503))
        for number in range(40):
            it.want(did(number))
            await trio.sleep(0.05)
        assert it.appview.statistics().down
        assert len(it.server.asked) < 15
        it.server.always = it.server.good
        back_at = trio.current_time()
        it.want(did(999))
        await it.until(lambda: FOUND in it.outcomes.values(), seconds=1)
        await it.all_answered()
        assert trio.current_time() - back_at < 1.5
        assert it.outcomes[did(999)] is FOUND
        assert not it.appview.statistics().down


async def test_while_only_the_budget_is_short_items_wait_past_the_deadline() -> None:
    settings = HydrationSettings(calls_per_second=10, deadline_seconds=0.3)
    async with world(settings) as it:
        outcomes = await it.ask(*DIDS[:300])
        assert outcomes == dict.fromkeys(DIDS[:300], FOUND)
        assert len(it.server.asked) == 12


async def test_shed_gives_up_what_waits_for_budget_at_once() -> None:
    async with world(HydrationSettings(calls_per_second=0.5)) as it:
        it.want(*DIDS[:100])
        await trio.sleep(0.1)
        assert it.appview.shed(older_than_seconds=60) == 0
        assert it.appview.shed() == 75
        await it.all_answered()
        assert list(it.outcomes.values()).count(UNRESOLVED) == 75


# The budget ---------------------------------------------------------------------------------


async def test_a_429_with_retry_after_pauses_and_loses_nothing() -> None:
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=0.5)
    async with world(settings) as it:
        it.server.script = [answers(response(HTML, status=429, retry_after=1))]
        outcomes = await it.ask(*DIDS[:3])
        assert outcomes == dict.fromkeys(DIDS[:3], FOUND)
        first, second = it.server.asked
        assert 1 <= second.at - first.at < 1.3
        assert it.calls("refused") == 1


async def test_the_time_of_a_pause_does_not_count_against_the_deadline() -> None:
    """What fails once after a long pause is asked again, not given up."""
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=0.5)
    async with world(settings) as it:
        it.server.script = [
            answers(response(HTML, status=429, retry_after=1)),
            answers(response(HTML, status=500)),
        ]
        assert await it.ask(*DIDS[:3]) == dict.fromkeys(DIDS[:3], FOUND)


async def test_a_429_without_retry_after_pauses_longer_each_time() -> None:
    settings = HydrationSettings(calls_per_second=1000, deadline_seconds=0.1)
    async with world(settings) as it:
        it.server.script = [answers(response(b"", status=429)) for _ in range(4)]
        outcomes = await it.ask(*DIDS[:3])
        assert outcomes == dict.fromkeys(DIDS[:3], FOUND)
        at = [asked.at for asked in it.server.asked]
        waits = [after - before for before, after in pairwise(at)]
        assert waits[0] < waits[2]
        assert it.appview.statistics().rate < 1000 / 8


async def test_headers_that_say_nothing_is_left_pause_until_the_window_ends() -> None:
    async with world() as it:

        def spent(asked: Asked) -> bytes:
            wall = math.floor(it.appview._wall()) + 2
            return response(
                body_of(asked),
                ratelimit_limit=100,
                ratelimit_remaining=0,
                ratelimit_reset=wall,
                ratelimit_policy="100;w=300",
            )

        it.server.script = [answers(spent)]
        await it.ask(did(1))
        statistics = it.appview.statistics()
        assert statistics.remaining == 0
        assert 0.9 < statistics.paused_seconds <= 2
        await it.ask(did(2))
        assert it.server.asked[1].at - it.server.asked[0].at > 0.9


# Cancellation -------------------------------------------------------------------------------


@pytest.mark.parametrize("wait_seconds", [0, 0.01, 0.3])
async def test_run_can_be_cancelled_at_any_time(wait_seconds: float) -> None:
    """Nothing is left behind: an unclosed socket would be a warning, and so an error."""
    async with world() as it:
        it.server.always = drip
        it.want(*DIDS[:100])
        await trio.sleep(wait_seconds)
        it.scope.cancel()
    assert it.answers == []
    assert it.appview.statistics().flying == 0


async def test_a_storm_of_timeouts_does_not_spoil_the_connections() -> None:
    """The pool of httpcore is spoilt for ever by cancellation of a call that waits for a place."""
    settings = HydrationSettings(calls_per_second=10_000, deadline_seconds=0.1)
    async with world(settings) as it:
        storm = True

        async def slow(asked: Asked, stream: trio.SocketStream) -> None:
            await trio.sleep(0.1 * (len(it.server.asked) % 7) if storm else 0)
            await it.server.good(asked, stream)

        it.server.always = slow
        for start in range(0, 1000, 20):
            it.want(*DIDS[start : start + 20])
            await trio.sleep(0.02)
        await it.all_answered()
        assert it.calls("timeout") > 10
        storm = False
        it.answers.clear()
        assert await it.ask(*DIDS[:100]) == dict.fromkeys(DIDS[:100], FOUND)
        assert it.calls("pool") == 0


class Empty(httpx.AsyncByteStream):
    """An answer without profiles."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"profiles":[]}'


class StuckOnce(httpx.AsyncBaseTransport):
    """Never has a place, until it is closed and used anew."""

    def __init__(self) -> None:
        self.calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse the first."""
        self.calls += 1
        if self.calls == 1:
            raise httpx.PoolTimeout("no place", request=request)
        return httpx.Response(200, stream=Empty())


async def test_a_stuck_pool_is_replaced() -> None:
    async with world(transport=StuckOnce()) as it:
        assert await it.ask(did(1)) == {did(1): MISSING}
        assert it.appview.statistics().rebuilt_clients == 1
