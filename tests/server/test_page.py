"""The page as it is sent, and as Chromium shows it."""

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.server.chromium import Tab, browsing
from tests.server.harness import DID, Harness, post, serving
from tests.server.page_figures import hours, samples
from tests.server.people import ALICE, tokens
from turbod.event import parse
from turbod.record import Record
from turbod.server.page import Page

STATUS: dict[str, Any] = {
    "turbod": "9.9.9",
    "now": 1_795_171_620_770_754,
    "uptime_seconds": 18,
    "upstream": "catching_up",
    "events_per_minute": 1030.0,
    "lag_seconds": 0.252,
    "hosts": [
        {
            "url": "ws://jetstream.example/subscribe",
            "state": "<b>live</b>",
            "lag_seconds": None,
            "received": 319,
            "accepted": 177,
            "duplicate": 140,
            "malformed": {"json": 2},
            "connects": 1,
            "last_error": "what was once",
        },
        {
            "url": "ws://jetstream2.example/subscribe",
            "state": "waiting",
            "lag_seconds": None,
            "received": 0,
            "accepted": 0,
            "duplicate": 0,
            "malformed": {},
            "connects": 0,
            "last_error": "cannot connect: <i>refused</i>",
        },
    ],
    "appview": {"down": True, "last_error": "HTTP 503", "calls": {"profiles 503": 3}},
    "log": {"fault": "disk full", "records": 12_345, "head": 1_795_171_620_770_754},
    "server": {"subscribers": 7, "refused": {"NotFound": 3}},
}


# As it is sent ----------------------------------------------------------------------------------


def test_the_host_cannot_bring_markup_in() -> None:
    page = Page(["app.bsky.feed.post", "<i>"]).render('"><script>alert(1)</script>').decode()
    assert "<script>alert" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;" in page
    assert "{{" not in page


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    page = Page(["app.bsky.feed.post"])
    text, policy = page.render("a.example").decode(), page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (inline,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_asks_nothing_of_other_hosts() -> None:
    text = Page(["app.bsky.feed.post"]).render("a.example").decode()
    found = {link for link in re.findall(r'(?:src|href)="([^"]*)"', text) if link[0] != "#"}
    assert found - {
        "/status",
        "/metrics",
        "/readyz",
        "/records?cursor=-5m&amp;limit=3",
    } == set(re.findall(r'href="(data:[^"]*)"', text))
    assert "@import" not in text
    assert "url(" not in text


def test_no_script_makes_markup_of_text() -> None:
    script = Page(["app.bsky.feed.post"]).render("a.example").decode()
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "srcdoc",
    ):
        assert way not in script


async def test_the_page_tells_how_to_connect_to_the_host_it_was_asked_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        raw = await harness.exchange("GET / HTTP/1.1\r\nHost: turbod.example:81\r\n\r\n")
        assert b'ws://turbod.example:81</span>/turbostream"' in raw
        assert b"app.bsky.feed.like" in raw


# In Chromium ------------------------------------------------------------------------------------


@asynccontextmanager
async def shown(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Tab, Harness]]:
    """Serve, and open the page."""
    async with browsing(tmp_path) as tab, serving(tmp_path / "data", **more) as harness:
        await tab.open(f"http://127.0.0.1:{harness.port}/")
        yield tab, harness


def full() -> dict[str, Any]:
    """Return what a server tells that has run for weeks."""
    now = datetime.now(UTC)
    told = samples(now), hours(now)
    lookback = {"/status/samples": lambda _: told[0], "/status/hours": lambda _: told[1]}
    quiet = {**STATUS, "events_per_minute": 200}  # so that the page takes all of it, no sample
    return {"lookback": lookback, "status": lambda: {**quiet, "now": time.time_ns() // 1000}}


async def publish(harness: Harness, message: dict[str, Any], **views: Any) -> None:
    """Publish a record with these views."""
    event = parse(json.dumps(message).encode())
    metadata: dict[str, Any] = {
        "user": None,
        "mentions": {},
        "parent_post": None,
        "reply_post": None,
    }
    parts = event.at_uri, event.did, event.time_us, event.message.decode()
    body = ',"at_uri":"{}","did":"{}","time_us":{},"message":{}'.format(*parts)
    body += ',"hydrated_metadata":' + json.dumps({**metadata, "quote_post": None, **views}) + "}"
    harness.log.append(Record(event, body.encode(), 1))
    await harness.log.flush()


def written(text: str, **more: Any) -> dict[str, Any]:
    """Return an upstream message of a post with this text."""
    message: dict[str, Any] = json.loads(post(time.time_ns()))
    message["commit"]["record"] = {"text": text, **more}
    return message


def view(name: str, text: str) -> dict[str, Any]:
    """Return a view of a post."""
    author = {"did": DID, "handle": "someone.example", "displayName": name}
    return {"uri": f"at://{DID}/app.bsky.feed.post/x", "author": author, "record": {"text": text}}


POSTS = "document.querySelector('#posts').innerText"


@pytest.mark.slow
async def test_a_browser_shows_the_live_state(tmp_path: Path) -> None:
    async with shown(tmp_path, status=lambda: STATUS) as (tab, _):
        await tab.until("document.querySelector('#state').textContent === 'catching up'")
        text = await tab.evaluate("document.body.innerText")
        assert "Nothing can be written: disk full" in text
        assert "The AppView does not answer" in text
        assert "cannot connect: <i>refused</i>" in text  # what a stranger wrote is text
        assert "<b>live</b>" in text
        assert "what was once" not in text
        assert "252 ms" in text
        assert "turbod 9.9.9" in text
        assert tab.messages == []


@pytest.mark.slow
async def test_posts_come_with_who_wrote_them_what_they_answer_and_what_they_quote(
    tmp_path: Path,
) -> None:
    async with shown(tmp_path) as (tab, harness):
        await tab.until("document.querySelector('.dot.on') !== null")
        message = written(
            "I think so, too",
            reply={"parent": {"uri": f"at://{DID}/app.bsky.feed.post/p"}},
            embed={"$type": "app.bsky.embed.record", "record": {"uri": "at://x/y/z"}},
        )
        await publish(
            harness,
            message,
            user={"did": DID, "handle": "ada.example", "displayName": "Ada", "followersCount": 7},
            parent_post=view("Grace", "Is it so?"),
            quote_post=view("Edith", "It is so."),
        )
        text = await tab.until(f"{POSTS}.includes('I think so, too') && {POSTS}")
        assert "Ada" in text
        assert "@ada.example" in text
        assert "7 followers" in text
        assert re.search(r"replying to\s*G?\s*Grace", text)
        assert "Is it so?" in text
        assert re.search(r"quoting\s*E?\s*Edith", text)
        assert "It is so." in text


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    "\u202e\u2066desrever\u0000\u200f" + "e" + "\u0301" * 200 + "A" * 10_000
)


@pytest.mark.slow
async def test_a_hostile_post_is_text_and_stays_in_its_place(tmp_path: Path) -> None:
    """Markup, overrides of direction, stacked marks, ten thousand letters, and what is no text."""
    async with shown(tmp_path) as (tab, harness):
        await tab.until("document.querySelector('.dot.on') !== null")
        facet = {"index": {"byteStart": 3, "byteEnd": 10**9}, "features": [{"$type": HOSTILE}]}
        image = {"$type": "app.bsky.embed.images", "images": [{"alt": HOSTILE}, 5]}
        person = {"did": DID, "handle": HOSTILE, "displayName": HOSTILE, "followersCount": "<b>"}
        await publish(
            harness,
            written(HOSTILE, facets=[facet, 7, {"index": None}], embed=image, reply="?"),
            user={**person, "avatar": "https://tracker.example/pixel.png"},
            parent_post=view(HOSTILE, HOSTILE),
            quote_post={"author": 5, "record": [HOSTILE]},
            mentions={DID: person},
        )
        await publish(harness, written("x", embed={"$type": 5, "external": {"uri": 9}}), user=[1])
        await publish(harness, written("the last", text2={}), user={"displayName": {}})
        await tab.until(f"{POSTS}.includes('the last')")
        assert await tab.evaluate("document.title") != "owned"
        assert not await tab.evaluate(
            "document.querySelector('#posts img, #posts script, #posts a')"
        )
        text = await tab.evaluate(POSTS)
        assert "<img src=x" in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
        assert "\u0301" * 5 not in text
        assert len(text) < 6000
        tallest = (
            "Math.max(...[...document.querySelectorAll('#posts > li')].map(e => e.offsetHeight))"
        )
        assert await tab.evaluate(tallest) < 900
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert {re.split("[/?]", each)[2] for each in tab.requests} == {f"127.0.0.1:{harness.port}"}
        assert tab.messages == []


# A whole event, in which each value in turn is replaced by each of what nobody expects there.
ANYTHING_ANYWHERE = """
(() => {
  const whole = () => JSON.parse(WHOLE), replaced = [0, true, -1, 1e308, "", "__proto__",
    "javascript:alert(1)", "x".repeat(1e6), "\\ud800".repeat(1e5), "\\u202e".repeat(1e5) + "a",
    "e" + "\\u0301".repeat(1e6), "\\u200d".repeat(1e6), "a\\n".repeat(1e5), [], {}, [[]],
    Array(1e5).fill({}), {valueOf: 1, toString: 1}, JSON.parse("[".repeat(5e4) + "]".repeat(5e4)),
    JSON.parse('{"__proto__": {"text": "owned"}, "length": 1e9}')];
  const paths = (value, path) => value && typeof value === "object" ?
    Object.entries(value).flatMap(([key, each]) => {
      const at = [...path, key];
      return [at, ...paths(each, at)];
    }) : [];
  const wrong = new Set();
  let cards = 0;
  for (const path of paths(whole(), [])) for (const value of replaced) {
    const event = whole(), began = performance.now();
    path.slice(0, -1).reduce((inside, key) => inside[key], event)[path[path.length - 1]] = value;
    const made = card(event);
    document.body.append(made);
    if (made.offsetHeight > 1500 || made.textContent.length > 8000) wrong.add(path + ": long");
    for (const {tagName} of made.querySelectorAll("*"))
      if (!/^(SPAN|DIV|P|B|BDI|BUTTON|TIME)$/.test(tagName)) wrong.add(path + ": " + tagName);
    made.remove();
    if (performance.now() - began > 2000) wrong.add(path + ": slow");
    cards++;
  }
  return [cards, [...wrong]];
})()
"""


@pytest.mark.slow
@pytest.mark.parametrize("collection", ["feed.post", "graph.follow", "feed.generator"])
async def test_whatever_stands_anywhere_in_an_event_becomes_a_small_card_at_once(
    tmp_path: Path, collection: str
) -> None:
    embed = {
        "$type": "app.bsky.embed.record",
        "images": [{"alt": "a"}],
        "record": {"uri": "at://x/app.bsky.feed.post/y", "record": {"uri": "at://x/y/z"}},
        "external": {"uri": "https://a.example", "title": "a"},
        "media": {"video": {}, "alt": "a"},
    }
    facet = {"index": {"byteStart": 0, "byteEnd": 3}, "features": [{"$type": "a#tag"}]}
    record = {"text": "some text", "facets": [facet], "embed": embed}
    record |= {"reply": {"parent": {"uri": "at://x/y/z"}}, "subject": {"uri": "at://x/y/z"}}
    commit = {"operation": "create", "collection": f"app.bsky.{collection}", "record": record}
    person = {"did": DID, "handle": "a.example", "displayName": "A", "followersCount": 3}
    post_view = {"author": person, "record": record}
    views = {"user": person, "mentions": {DID: person}, "unresolved": [DID]}
    views |= dict.fromkeys(("parent_post", "quote_post", "subject_post"), post_view)
    views |= {"subject_user": person} if collection == "graph.follow" else {}
    message = {"kind": "commit", "commit": commit, "identity": {}, "account": {}}
    whole = {"did": DID, "message": message, "hydrated_metadata": views}
    script = ANYTHING_ANYWHERE.replace("WHOLE", json.dumps(json.dumps(whole)))
    async with shown(tmp_path) as (tab, _):
        cards, wrong = await tab.evaluate(script)
        assert cards > 1000
        assert wrong == []
        assert tab.messages == []


@pytest.mark.slow
async def test_a_name_that_cannot_be_seen_is_none_and_a_liked_feed_is_no_lost_post(
    tmp_path: Path,
) -> None:
    invisible = "\u200b\u2800\u3164\u2060\ue000\u0301\U000e0041"
    author = {"did": DID, "handle": "ada.example", "displayName": invisible}
    views: dict[str, Any] = {"user": {**author, "followersCount": {"valueOf": 1, "toString": 1}}}
    feed = {"subject": {"uri": f"at://{DID}/app.bsky.feed.generator/cats"}}
    like = {"operation": "create", "collection": "app.bsky.feed.like", "record": feed}
    message = {"kind": "commit", "commit": like}
    received = {
        "did": DID,
        "message": message,
        "hydrated_metadata": {**views, "subject_post": None},
    }
    async with shown(tmp_path) as (tab, _):
        text = await tab.evaluate(f"card({json.dumps(received)}).textContent")
        assert text.startswith("Aada.example@ada.example")
        assert text.endswith("likes a feed")


@pytest.mark.slow
async def test_words_of_faults_turn_nothing_around_them(tmp_path: Path) -> None:
    turning = "refused \u202edesufer\u2066 " + "x" * 10_000
    incident = {"what": "host", "words": turning, "began": 1, "ended": 5_000_000, "times": 1}
    told = {"step_seconds": 10, "seconds": [], "figures": {}, "hosts": {}, "incidents": [incident]}
    hour = {"hour": f"{datetime.now(UTC):%Y-%m-%dT%H}", "state": "plain"}
    gap = {"after": 1, "before": 2, "message": turning}
    calendar = {"now": 0, "is_whole": True, "hours": [{**hour, "gaps": [gap]}]}
    lookback = {
        "/status/samples": lambda _: json.dumps(told).encode(),
        "/status/hours": lambda _: json.dumps(calendar).encode(),
    }
    hosts = [{**host, "state": "waiting", "last_error": turning} for host in STATUS["hosts"]]
    appview = {"down": True, "last_error": turning}
    status = {**STATUS, "hosts": hosts, "appview": appview, "log": {"fault": turning}}
    async with shown(tmp_path, status=lambda: status, lookback=lookback) as (tab, _):
        for place in ("#faults li", "#hosts .reason", "#incidents .entry", "#gaps li"):
            shows = f"document.querySelector('{place}')?.textContent.includes('refused desufer')"
            await tab.until(shows)
        text = await tab.evaluate("document.querySelector('main').textContent")
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
        assert "x" * 600 not in text


@pytest.mark.slow
async def test_a_visitor_whose_clock_is_wrong_sees_the_same_plots(tmp_path: Path) -> None:
    """And two looks at the same time bring each sample once."""
    all_of_it = json.loads(samples(datetime.now(UTC)))
    nothing = {**all_of_it, "seconds": [], "figures": {}, "hosts": {}}
    kept = len(all_of_it["seconds"])
    lookback = {
        "/status/samples": lambda query: json.dumps(nothing if query else all_of_it).encode(),
        "/status/hours": lambda _: b"{}",
    }
    lengths = (
        "[past.seconds, ...Object.values(past.figures), ...Object.values(past.hosts)"
        ".flatMap(Object.values)].map(column => column.length)"
    )
    async with shown(tmp_path, lookback=lookback) as (tab, _):
        await tab.until("past.seconds.length")
        await tab.evaluate("Date.now = () => performance.timeOrigin + performance.now() + 3600e3")
        await tab.evaluate("lookBack().then(lookBack)")
        assert set(await tab.evaluate(lengths)) == {kept}
        await tab.evaluate("past = nothing(); Promise.all([lookBack(), lookBack()])")
        assert set(await tab.evaluate(lengths)) == {kept}


@pytest.mark.slow
async def test_what_is_chosen_is_what_is_asked_for_and_what_is_told_to_others(
    tmp_path: Path,
) -> None:
    choose = """
        for (const box of document.querySelectorAll('#filter input[type=checkbox]'))
          box.checked = ['app.bsky.feed.like', 'update'].includes(box.value);
        document.querySelector('#filter').elements.aboutDids.value = 'did:plc:a, did:plc:b';
        document.querySelector('#filter').requestSubmit();
    """
    asked = "wantedCollections=app.bsky.feed.like&operations=update"
    asked += "&aboutDids=did%3Aplc%3Aa&aboutDids=did%3Aplc%3Ab"
    async with shown(tmp_path) as (tab, harness):
        await tab.until("document.querySelector('.dot.on') !== null")
        await tab.evaluate(choose)
        await tab.until("document.querySelector('.dot.on') !== null")
        url = f"ws://127.0.0.1:{harness.port}/turbostream?{asked}"
        await harness.settled(lambda: any(each.startswith(url) for each in tab.requests))
        command = await tab.evaluate("document.querySelector('#command').textContent")
        assert command == f'turbod tail "{url}"'


@pytest.mark.slow
async def test_of_a_busy_stream_the_page_takes_a_sample_by_the_protocols_own_shard(
    tmp_path: Path,
) -> None:
    busy = {**STATUS, "events_per_minute": 48_000}
    async with shown(tmp_path, status=lambda: busy) as (tab, _):
        await tab.until("document.querySelector('.dot.on') !== null")
        (asked,) = (each for each in tab.requests if "/turbostream?" in each)
        assert re.search(r"shard=[0-9]+%2F200$", asked)
        assert "a sample" in await tab.evaluate("document.querySelector('#sample').textContent")


@pytest.mark.slow
async def test_a_choice_that_is_refused_is_answered_in_the_servers_words(tmp_path: Path) -> None:
    async with shown(tmp_path) as (tab, _):
        await tab.until("document.querySelector('.dot.on') !== null")
        await tab.evaluate(
            "document.querySelector('#filter').elements.cursor.value = 'yesterday';"
            "document.querySelector('#filter').requestSubmit()"
        )
        words = await tab.until("document.querySelector('#wrong').textContent")
        assert "cursor" in words


@pytest.mark.slow
async def test_with_a_token_all_of_it_works_and_none_of_it_shows_the_token(tmp_path: Path) -> None:
    async with shown(tmp_path, tokens=tokens(), **full()) as (tab, harness):
        await tab.until("!document.querySelector('#ask').hidden")
        assert "needed" in await tab.evaluate("document.querySelector('#state').textContent")
        await tab.evaluate(
            f"document.querySelector('#token').value = '{ALICE}';"
            "document.querySelector('#token').dispatchEvent(new Event('change'))"
        )
        await tab.until("document.querySelector('#ask').hidden")
        await tab.until("document.querySelector('.dot.on') !== null")
        await tab.until("document.querySelectorAll('#calendar td.verified').length")
        await harness.publish(post(1, text="for those who may"))
        await tab.until(f"{POSTS}.includes('for those who may')")
        assert ALICE not in await tab.evaluate("document.documentElement.outerHTML")
        assert "TURBOD_TOKEN" in await tab.evaluate(
            "document.querySelector('#command').textContent"
        )
        assert not any(ALICE in url for url in tab.requests)


@pytest.mark.slow
async def test_with_six_hours_of_samples_it_is_drawn_in_a_moment(tmp_path: Path) -> None:
    async with shown(tmp_path, **full()) as (tab, _):
        await tab.until("document.querySelectorAll('#plots path').length >= 8")
        await tab.until("document.querySelectorAll('#calendar td').length === 14 * 24")
        took = await tab.evaluate(
            "spanSeconds = 21600; const began = performance.now(); paintAll(); showCalendar();"
            " performance.now() - began"
        )
        assert took < 200  # some 25 ms on one core
        assert "AppView" in await tab.evaluate("document.querySelector('#incidents').innerText")
        assert "archive failing" not in await tab.evaluate("document.body.innerText")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_is_wider_than_the_screen(tmp_path: Path, width: int, scheme: str) -> None:
    async with shown(tmp_path, **full()) as (tab, harness):
        await tab.look(width=width, scheme=scheme, is_phone=width < 600)
        await harness.publish(post(1, text="A" * 300))
        await tab.until("document.querySelectorAll('#calendar td').length === 14 * 24")
        assert await tab.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_to_complain_of(tmp_path: Path, scheme: str) -> None:
    axe = os.environ.get("TURBOD_AXE")
    if axe is None:
        pytest.skip("TURBOD_AXE names no axe.min.js (npm pack axe-core)")
    async with shown(tmp_path, **full()) as (tab, harness):
        await tab.look(scheme=scheme)
        await harness.fill(5)
        await tab.until("document.querySelectorAll('#calendar td').length === 14 * 24")
        await tab.until(f"{POSTS}.includes('post')")
        await tab.evaluate("document.querySelector('details').open = true")
        await tab.evaluate(await trio.Path(axe).read_text() + ";0")
        found = await tab.evaluate(
            "axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes.length + ' '"
            " + v.nodes[0].html.slice(0, 200) + ' ' + v.nodes[0].failureSummary.slice(0, 300)))"
        )
        assert found == []
