"""The simulated AppView over HTTP: its answers, refusals, budget and failures."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trio

from turbod.simulation.questions import POSTS, PROFILES, valid_actor, valid_at_uri
from turbod.simulation.world import Simulation, simulated

NOBODY = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
NOTHING = f"at://{NOBODY}/app.bsky.feed.post/3mvzvh4fszd2a"


@asynccontextmanager
async def asking(
    **options: Any,
) -> AsyncIterator[tuple[Simulation, Callable[..., Any]]]:
    async with (
        simulated(hosts=1, accounts=50, **options) as simulation,
        httpx.AsyncClient(base_url=simulation.appview.url, trust_env=False, timeout=2) as client,
    ):

        async def ask(path: str, *items: str) -> httpx.Response:
            name = "actors" if path == PROFILES else "uris"
            return await client.get(path + "?" + urlencode([(name, item) for item in items]))

        yield simulation, ask


def dids(simulation: Simulation) -> list[str]:
    return [account.did for account in simulation.network.people.accounts]


async def test_the_answer_keeps_the_order_repeats_what_was_repeated_and_leaves_out_the_rest() -> (
    None
):
    async with asking() as (simulation, ask):
        one, other, *_ = dids(simulation)
        answer = await ask(PROFILES, other, NOBODY, one, other)
        assert [view["did"] for view in answer.json()["profiles"]] == [other, one, other]
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        simulation.act("post", 3)
        uris = list(simulation.index.posts)
        answer = await ask(POSTS, uris[2], NOTHING, uris[0], uris[2])
        assert [view["uri"] for view in answer.json()["posts"]] == [uris[2], uris[0], uris[2]]
        simulation.appview.deduplicate_posts = True
        answer = await ask(POSTS, uris[2], NOTHING, uris[0], uris[2])
        assert [view["uri"] for view in answer.json()["posts"]] == [uris[2], uris[0]]


async def test_a_handle_is_resolved_and_an_unknown_one_left_out() -> None:
    async with asking() as (simulation, ask):
        account = simulation.network.people.accounts[3]
        answer = await ask(PROFILES, account.handle, "nobody.example.com")
        assert [view["did"] for view in answer.json()["profiles"]] == [account.did]


@pytest.mark.parametrize(
    ("path", "items", "message"),
    [
        (PROFILES, [NOBODY, "x y"], "Error: actors/1 must be a valid did or a handle"),
        (PROFILES, ["did:plc:"], "Error: actors/0 must be a valid did or a handle"),
        (PROFILES, [NOBODY] * 26, "Error: actors must not have more than 25 elements"),
        (PROFILES, [], 'Error: Params must have the property "actors"'),
        (PROFILES, [""], 'Error: Params must have the property "actors"'),
        (POSTS, [NOTHING, "at://x/y/z"], "Error: uris/1 must be a valid at-uri"),
        (POSTS, [NOTHING] * 26, "Error: uris must not have more than 25 elements"),
    ],
)
async def test_one_bad_item_fails_the_whole_call_with_the_official_words(
    path: str, items: list[str], message: str
) -> None:
    async with asking() as (_, ask):
        answer = await ask(path, *items)
        assert answer.status_code == 400
        assert answer.json() == {"error": "InvalidRequest", "message": message}


async def test_another_method_is_not_found() -> None:
    async with asking() as (simulation, _), httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(simulation.appview.url + "/xrpc/app.bsky.feed.getTimeline")
        assert (answer.status_code, answer.json()["error"]) == (404, "XRPCNotSupported")


@pytest.mark.parametrize(
    ("uri", "verdict"),
    [
        (NOTHING, "valid"),
        (f"at://{NOBODY}", "valid"),
        (f"at://{NOBODY}/app.bsky.feed.post", "valid"),
        (f"at://{NOBODY}/app.bsky.feed.post/1#/x", "valid"),
        ("at://alice.test/app.bsky.feed.post/1", "valid"),
        (f"at://{NOBODY}/", "malformed"),
        (f"at://{NOBODY}/app.bsky.feed.post/", "malformed"),
        (f"at://{NOBODY}/app.bsky.feed.post/1/2", "malformed"),
        (f"at://{NOBODY}/post/1", "malformed"),
        (f"at://{NOBODY}/app.bsky.feed.post/{'x' * 8192}", "malformed"),
        ("at:///app.bsky.feed.post/1", "malformed"),
        ("https://example.com", "malformed"),
    ],
)
def test_at_uris_are_judged_as_the_official_server_does(uri: str, verdict: str) -> None:
    assert valid_at_uri(uri) is (verdict == "valid")


def test_actors_are_dids_and_handles() -> None:
    assert valid_actor(NOBODY)
    assert valid_actor("did:web:example.com")
    assert valid_actor("alice.bsky.social")
    assert not valid_actor("alice")
    assert not valid_actor("-a.example.com")


async def test_the_budget_is_a_fixed_window_told_in_headers() -> None:
    now = 1_790_000_003
    async with asking(now_us=lambda: now * 1_000_000) as (simulation, ask):
        simulation.appview.budget = (2, 10)
        answers = [await ask(PROFILES, NOBODY) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        fields = {key: [a.headers.get(key) for a in answers] for key in answers[2].headers}
        assert fields["ratelimit-remaining"] == ["1", "0", "0"]
        assert fields["ratelimit-limit"] == ["2"] * 3
        assert fields["ratelimit-policy"] == ["2;w=10"] * 3
        assert fields["ratelimit-reset"] == ["1790000010"] * 3
        assert fields["retry-after"] == [None, None, "7"]
        assert answers[2].json()["error"] == "RateLimitExceeded"
        now += 7
        assert (await ask(PROFILES, NOBODY)).status_code == 200
        simulation.appview.budget_headers = False
        assert "ratelimit-limit" not in (await ask(PROFILES, NOBODY)).headers
        assert "retry-after" not in (await ask(PROFILES, NOBODY)).headers


@pytest.mark.parametrize(
    ("failure", "status", "kind", "begin"),
    [
        ("500", 500, "application/json", b'{"error":"InternalServerError"'),
        ("503", 503, "application/json", b'{"error":"NotEnoughResources"'),
        ("400", 400, "application/json", b'{"error":"InvalidRequest"'),
        ("429", 429, "application/json", b'{"error":"RateLimitExceeded"'),
        ("502", 502, "text/html", b"<html>"),
        ("empty", 200, "application/json", b""),
        ("not_json", 200, "application/json", b'{"profiles":['),
        ("wrong_shape", 200, "application/json", b'{"profiles":null'),
    ],
)
async def test_a_call_may_fail_with_an_answer_and_the_connection_goes_on(
    failure: str, status: int, kind: str, begin: bytes
) -> None:
    async with asking() as (simulation, ask):
        simulation.appview.fail_next += [failure, ""]
        did = dids(simulation)[0]
        answer = await ask(PROFILES, did)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith(kind)
        assert answer.content.startswith(begin)
        assert (await ask(PROFILES, did)).json()["profiles"][0]["did"] == did
        assert simulation.appview.statistics.open_connections == 1


@pytest.mark.parametrize("failure", ["drop", "truncated", "silent", "drip"])
async def test_a_call_may_fail_without_a_whole_answer(failure: str) -> None:
    async with asking() as (simulation, ask):
        simulation.appview.fail_next.append(failure)
        errors: tuple[type[Exception], ...] = (httpx.TransportError,)
        seconds = 10.0
        if failure in {"silent", "drip"}:
            errors, seconds = (trio.TooSlowError,), 0.3
        with pytest.raises(errors), trio.fail_after(seconds):
            await ask(PROFILES, dids(simulation)[0])


async def test_an_app_view_that_is_down_refuses_and_comes_up_on_the_same_port() -> None:
    async with asking() as (simulation, ask):
        simulation.appview.go_down()
        with pytest.raises(httpx.TransportError):
            await ask(PROFILES, NOBODY)
        simulation.appview.come_up()
        await trio.sleep(0.01)
        assert (await ask(PROFILES, NOBODY)).status_code == 200


async def test_the_share_of_failures_is_kept() -> None:
    async with asking() as (simulation, _):
        simulation.appview.fail(0.3)
        outcomes = [simulation.appview.outcome() for _ in range(3000)]
        assert 0.65 < outcomes.count("200") / 3000 < 0.75
        assert set(outcomes) == {"200", "500", "502", "503", "drop", "truncated"}


async def test_calls_take_about_the_latency_and_do_not_wait_for_one_another() -> None:
    async with asking() as (simulation, ask):
        simulation.appview.latency_seconds = 0.5
        started = time.monotonic()
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, PROFILES, NOBODY)
        assert 0.3 < time.monotonic() - started < 3


async def test_what_is_answered_is_as_of_the_question_not_of_the_answer() -> None:
    """So a slow answer can be stale, as a real one can."""
    async with asking() as (simulation, ask):
        simulation.act("post")
        uri = next(iter(simulation.index.posts))
        simulation.appview.latency_seconds = 0.3
        answers: list[httpx.Response] = []

        async def keep() -> None:
            answers.append(await ask(POSTS, uri))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            await trio.sleep(0.05)
            simulation.index.posts.clear()
        assert len(answers[0].json()["posts"]) == 1


async def test_what_just_happened_is_not_known_until_it_is_indexed() -> None:
    now = 1_790_000_000_000_000
    async with asking(indexing_delay_seconds=2, now_us=lambda: now) as (simulation, ask):
        event = json.loads(simulation.act("post")[0])
        uri = f"at://{event['did']}/app.bsky.feed.post/{event['commit']['rkey']}"
        assert (await ask(POSTS, uri)).json() == {"posts": []}
        now += 60_000_000
        assert len((await ask(POSTS, uri)).json()["posts"]) == 1


async def test_captured_answers_come_byte_for_byte_and_nothing_else_is_known(
    captures: Path,
) -> None:
    lines = (captures / "network-1/profiles.jsonl").read_bytes().splitlines()
    answers = {json.loads(line)["did"]: line for line in lines}
    async with asking(answers=answers) as (simulation, ask):
        wanted = list(answers)[:5]
        answer = await ask(PROFILES, dids(simulation)[0], *wanted)
        assert answer.content == b'{"profiles":[' + b",".join(lines[:5]) + b"]}"


async def test_every_call_is_counted_with_what_it_asked() -> None:
    async with asking() as (simulation, ask):
        simulation.appview.fail_next += ["", "500"]
        one, other, *_ = dids(simulation)
        await ask(PROFILES, one, other)
        await ask(PROFILES, one)
        await ask(POSTS, NOTHING)
        statistics = simulation.appview.statistics
        assert statistics.items == {PROFILES: 3, POSTS: 1}
        assert statistics.distinct[PROFILES] == {one, other}
        assert statistics.outcomes == {
            (PROFILES, "200"): 1,
            (PROFILES, "500"): 1,
            (POSTS, "200"): 1,
        }
        assert [call.items for call in statistics.calls] == [(one, other), (one,), (NOTHING,)]


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n", b""]
)
async def test_garbage_ends_one_connection_and_no_other(garbage: bytes) -> None:
    async with asking() as (simulation, ask):
        await ask(PROFILES, NOBODY)
        stream = await trio.open_tcp_stream("127.0.0.1", simulation.appview.port)
        async with stream:
            await stream.send_all(garbage or b"x")
        assert (await ask(PROFILES, NOBODY)).status_code == 200
