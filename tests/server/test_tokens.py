"""Who has a token is let in, within its limits, and nobody else; who loses it has to go."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
from structlog.testing import capture_logs

from tests.server.harness import (
    UPGRADE,
    Answer,
    Harness,
    Subscription,
    did,
    open_stream,
    post,
    serving,
)
from tests.server.people import ALICE, BOB, NAMES, STRANGER, by, tokens
from tests.server.served_archive import Archive, serving_archive
from turbod import bearer
from turbod.config import ConfigError, LogSettings, ServerSettings, Settings
from turbod.server import connection
from turbod.server.archive_listing import ArchiveListing
from turbod.server.guesses import MAX_ADDRESSES, WINDOW_SECONDS, Guesses
from turbod.server.tokens import MAX_FILE_BYTES, MAX_TOKENS, Token, parse, read

DIGEST = bearer.digest(ALICE).hex()
EVERYWHERE = (
    "/records",
    "/status",
    "/metrics",
    "/status/samples",
    "/archive",
    "/archive/turbod.json",
    "/nothing",
)


# The file ---------------------------------------------------------------------------------------


def test_a_token_is_found_with_its_limits_and_nothing_else_is() -> None:
    found = tokens("alice", "bob", alice="max_connections = 3\narchive = true")
    assert found.find(ALICE) == Token("alice", bearer.digest(ALICE), 3, None, archive=True)
    assert found.find(BOB) == Token("bob", bearer.digest(BOB))
    for text in ("", STRANGER, ALICE[:-1], ALICE + "a", ALICE.upper(), f" {ALICE}", f"{ALICE}\n"):
        assert found.find(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a\nb = 1", "tokens.toml, line 1: not TOML"),
        (b"\xff", "not TOML"),
        ("[a]\n[b]\n[a]", "tokens.toml, line 3: a name is there twice"),
        ("a = 1", "a in tokens.toml: expected a table [a]"),
        ("[a]", "[a] in tokens.toml: sha256 must be 64 hexadecimal digits"),
        ("[a]\nsha256 = 5", "sha256 must be 64"),
        (f"[a]\nsha256 = '{DIGEST}0'", "sha256 must be 64"),
        (f"[a]\nsha256 = '{ALICE}'", "sha256 must be 64"),
        (
            f"[a]\nsha256 = '{DIGEST}'\nmax_connections = 0",
            "max_connections must be a whole number",
        ),
        (f"[a]\nsha256 = '{DIGEST}'\nmax_connections = 1.5", "max_connections must be"),
        (f"[a]\nsha256 = '{DIGEST}'\nmax_filter_dids = -1", "max_filter_dids must be"),
        (f"[a]\nsha256 = '{DIGEST}'\narchive = 'yes'", "archive must be true or false"),
        (f"[a]\nsha256 = '{DIGEST}'\narchiv = true", "[a] in tokens.toml: archiv is not known"),
        (
            f"[a]\nsha256 = '{DIGEST}'\n[b]\nsha256 = '{DIGEST}'",
            "[b] in tokens.toml: the same token",
        ),
        (f"['a b']\nsha256 = '{DIGEST}'", "a name has 1 to 40 letters"),
        (f"['']\nsha256 = '{DIGEST}'", "a name has 1 to 40 letters"),
        (f"[{ALICE}]\nsha256 = '{DIGEST}'", "a name has 1 to 40 letters"),
        (f"[a]\n{ALICE} = true", "a key is not known"),
        (f"{ALICE} = 1", "a name has 1 to 40 letters"),
        ("[a.b]\nc = 1", "[a] in tokens.toml: b is not known"),
        ("".join(f"[a{n}]\n" for n in range(MAX_TOKENS + 1)), f"{MAX_TOKENS} are allowed"),
        ("#" * (MAX_FILE_BYTES + 1), f"more than {MAX_FILE_BYTES} bytes"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_says_what_is_allowed_and_shows_no_secret(
    text: str | bytes, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), "tokens.toml")
    said = str(caught.value)
    assert words in said
    assert "tokens.toml" in said
    assert "\n" not in said
    assert ALICE not in said
    assert DIGEST not in said


def settings(**given: Any) -> Settings:
    exclude = given.pop("exclude", "")
    return Settings(exclude=exclude, server=ServerSettings(**given))


def test_without_a_file_everybody_may_connect_and_with_an_empty_one_nobody(tmp_path: Path) -> None:
    assert read(settings(), {}) is None
    (tmp_path / "empty").write_text("")
    found = read(settings(tokens=str(tmp_path / "empty")), {})
    assert found is not None
    assert list(found) == []


def test_the_service_managers_credential_is_read_where_no_file_is_named(tmp_path: Path) -> None:
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read(settings(), environment) is None
    (tmp_path / "tokens").write_text(f"[alice]\nsha256 = '{DIGEST}'")
    (tmp_path / "mine").write_text(f"[me]\nsha256 = '{DIGEST}'")
    found = read(settings(), environment)
    assert [token.name for token in found or ()] == ["alice"]
    found = read(settings(tokens=str(tmp_path / "mine")), environment)
    assert [token.name for token in found or ()] == ["me"]


def test_a_file_that_is_not_there_is_refused_and_never_means_everybody(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.tokens .*/none: No such file"):
        read(settings(tokens=str(tmp_path / "none")), {})


def test_a_credential_that_may_be_there_is_refused_and_never_means_everybody() -> None:
    """As where its folder belongs to another user."""
    folder = "/" + "x" * 5000
    with pytest.raises(ConfigError, match=r"credential .*: File name too long"):
        read(settings(), {"CREDENTIALS_DIRECTORY": folder})


def test_whole_hours_are_for_no_token_where_some_records_are_not_to_be_passed_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "tokens").write_text(f"[alice]\nsha256 = '{DIGEST}'\narchive = true")
    with pytest.raises(ConfigError, match=r"\[alice\] in .*: archive was true and exclude was set"):
        read(settings(tokens=str(tmp_path / "tokens"), exclude="dids"), {})


# Who is let in ----------------------------------------------------------------------------------


async def test_with_tokens_everything_but_the_page_and_health_needs_one(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, tokens=tokens()) as (harness, _):
        for path in EVERYWHERE:
            for method in ("GET", "HEAD"):
                answer = await harness.get(path, method=method)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == 'Bearer realm="turbod"'
            wrong = await harness.get(path, more=by(STRANGER))
            assert wrong.error == (401, "AuthRequired")
            assert wrong.headers["www-authenticate"].endswith('error="invalid_token"')
            expected = 404 if path == "/nothing" else 200
            assert (await harness.get(path, more=by(ALICE))).status == expected, path
        for path in ("/turbostream", "/app/api/v1/turbostream/turbostream"):
            assert (await harness.upgrade(path)).error == (401, "AuthRequired")
            assert (await harness.upgrade(path, more=by(STRANGER))).error == (401, "AuthRequired")
        for path in ("/", "/healthz", "/readyz"):
            assert (await harness.get(path)).status == 200


async def test_readiness_is_told_to_everybody_and_its_reasons_to_who_has_a_token(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        assert (await harness.get("/readyz")).json == {"ready": True}
        assert (await harness.get("/readyz", more=by(ALICE))).json == {"ready": True, "disk": "ok"}
        assert (await harness.get("/readyz", more=by(STRANGER))).error == (401, "AuthRequired")
        harness.is_ready = False
        answer = await harness.get("/readyz")
        assert (answer.status, answer.json) == (503, {"ready": False})


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {}", "Bearer {}  "])
async def test_a_token_comes_in_authorization_whatever_the_case_of_the_scheme(
    tmp_path: Path, header: str
) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        more = f"AUTHORIZATION: {header.format(ALICE)}\r\n"
        assert (await harness.get("/status", more=more)).status == 200


async def protocol(harness: Harness, *offered: str) -> str | None:
    """Return the subprotocol that a stream's handshake chose."""
    more = f"Sec-WebSocket-Protocol: {', '.join(offered)}\r\n" if offered else ""
    async with await harness.connect() as stream:
        await stream.send_all(f"GET /turbostream HTTP/1.1\r\n{UPGRADE}{more}\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(1)
    answer = Answer(received)
    assert answer.status == 101
    return answer.headers.get("sec-websocket-protocol")


async def test_a_token_comes_as_a_subprotocol_and_goes_back_only_where_it_came_alone(
    tmp_path: Path,
) -> None:
    framing, token = "turbostream.v1.json", f"bearer.{ALICE}"
    async with serving(tmp_path, tokens=tokens()) as harness:
        assert await protocol(harness, framing, token) == framing
        assert await protocol(harness, token, framing) == framing
        assert await protocol(harness, token, "other") is None
        assert await protocol(harness, token) == token
        harness.server.set_tokens(None)  # a page need not know whether a server asks for one
        assert await protocol(harness, token) == token


async def test_two_different_tokens_are_one_too_many(tmp_path: Path) -> None:
    alice, bob = f"Sec-WebSocket-Protocol: bearer.{ALICE}\r\n", f"Authorization: Bearer {BOB}\r\n"
    two = f"Sec-WebSocket-Protocol: bearer.{ALICE}, bearer.{BOB}\r\n"
    async with serving(tmp_path, tokens=tokens()) as harness:
        for more in (alice + bob, by(ALICE) + by(BOB), by(ALICE) + by(ALICE), two):
            assert (await harness.upgrade(more=more)).error == (400, "InvalidRequest")
        assert (await harness.get("/status", more=alice + by(ALICE))).status == 200


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_in_the_query_is_refused_even_a_right_one(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        for path in (f"/turbostream?{name}={ALICE}", f"/turbostream?cursor=0&{name}={ALICE}"):
            for more in ("", by(ALICE)):
                answer = await harness.upgrade(path, more=more)
                assert answer.error == (400, "InvalidRequest")
                assert ALICE.encode() not in answer.body
        for path in ("/records", "/status", "/archive", "/readyz"):
            for more in ("", by(ALICE)):
                refused = await harness.get(f"{path}?{name}={ALICE}", more=more)
                assert refused.error == (400, "InvalidRequest")


async def test_without_tokens_on_the_server_one_that_is_sent_does_no_harm(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        for more in (by(ALICE), by(STRANGER), "Authorization: Basic YTpi\r\n", by(ALICE) + by(BOB)):
            assert (await harness.get("/status", more=more)).status == 200
        async with harness.subscribe(token=STRANGER) as client:
            assert (await client.news())["reason"] == "connect"
        assert harness.server.statistics().wrong_tokens == 0


# Limits of each ---------------------------------------------------------------------------------


async def test_a_token_has_so_many_connections_and_room_again_when_one_leaves(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, tokens=tokens(alice="max_connections = 2")) as harness:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                client = await stack.enter_async_context(harness.subscribe(token=ALICE))
                await client.news()
            assert harness.server.statistics().tokens == {"alice": 2, "bob": 0}
            for answer in (
                await harness.upgrade(more=by(ALICE)),
                await harness.get("/status", more=by(ALICE)),
            ):
                assert answer.error == (429, "TooManyConnections")
                assert int(answer.headers["retry-after"]) > 0
                assert "token alice" in answer.json["message"]
                assert ALICE.encode() not in answer.body
            assert (await harness.get("/status", more=by(BOB))).status == 200
            assert (await harness.get("/readyz", more=by(ALICE))).status == 200
        await harness.settled(lambda: harness.server.statistics().tokens["alice"] == 0)
        assert (await harness.get("/status", more=by(ALICE))).status == 200


def wanted(start: int, count: int) -> str:
    return "&".join(f"wantedDids={did(number)}" for number in range(start, start + count))


async def test_a_token_has_so_many_dids_in_all_its_filters(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=tokens(alice="max_filter_dids = 10")) as harness:
        async with harness.subscribe(wanted(0, 6), token=ALICE) as client:
            await client.news()
            refused = await harness.upgrade(f"/turbostream?{wanted(0, 5)}", more=by(ALICE))
            assert refused.error == (429, "TooManyFilters")
            assert "token alice" in refused.json["message"]
            async with harness.subscribe(wanted(0, 5), token=BOB) as other:
                await other.news()
            async with harness.subscribe(wanted(0, 4), token=ALICE) as other:
                await other.news()
                await other.update(wantedDids=[did(n) for n in range(20, 24)])  # instead
                assert (await other.news())["reason"] == "options"
                await other.update(wantedDids=[did(n) for n in range(5)])
                code, messages = await other.end()
                assert (code, messages[-1]["error"]) == (1008, "InvalidMessage")
                assert "token alice" in messages[-1]["message"]
            await client.update(wantedDids=[did(n) for n in range(10)])
            assert (await client.news())["reason"] == "options"
        await harness.settled(lambda: harness.server.statistics().filter_dids == 0)
        async with harness.subscribe(wanted(0, 10), token=ALICE) as client:
            await client.news()


async def test_whole_hours_are_for_any_token_where_they_are_public_else_for_some(
    tmp_path: Path,
) -> None:
    allowed = tokens(alice="archive = true")
    async with serving_archive(tmp_path, is_public=False, tokens=allowed) as (harness, archive):
        path = f"/archive/{archive.names[0].key}"
        assert (await harness.get("/archive", more=by(BOB))).error == (403, "NotPublic")
        assert (await harness.get(path, more=by(BOB))).error == (403, "NotPublic")
        assert (await harness.get("/archive", more=by(ALICE))).status == 200
        answer = await harness.get(path, more=by(ALICE))
        assert answer.body == archive.bytes_of(archive.names[0])
        # What was given for a token a cache must not give to others.
        assert answer.headers["cache-control"].startswith("private, ")
        harness.server.set_tokens(None)
        assert (await harness.get(path, more=by(ALICE))).error == (403, "NotPublic")


# Wrong ones -------------------------------------------------------------------------------------


async def test_beyond_some_wrong_tokens_a_minute_429_says_so_and_a_right_one_is_let_in(
    tmp_path: Path,
) -> None:
    settings = ServerSettings(max_wrong_tokens_per_minute=3)
    with capture_logs() as logs:
        async with serving(tmp_path, settings=settings, tokens=tokens()) as harness:
            for _ in range(3):
                refused = await harness.get("/status", more=by(STRANGER))
                assert refused.error == (401, "AuthRequired")
            for _ in range(20):
                refused = await harness.get("/status", more=by(STRANGER))
                assert refused.error == (429, "TooManyConnections")
                assert 1 <= int(refused.headers["retry-after"]) <= WINDOW_SECONDS
            assert (await harness.get("/status", more=by(ALICE))).status == 200
            assert (await harness.get("/status")).error == (401, "AuthRequired")  # no guess
            statistics = harness.server.statistics()
            assert statistics.wrong_tokens == 23
            assert statistics.refused == {"AuthRequired": 4, "TooManyConnections": 20}
    lines = [line for line in logs if line["event"] == "wrong_token"]
    assert [line["address"] for line in lines] == ["127.0.0.1"]
    assert STRANGER not in str(logs)
    assert STRANGER[:12] not in str(logs)


def test_wrong_tokens_are_counted_by_address_for_a_minute() -> None:
    guesses = Guesses()
    assert [guesses.add("a", now=10.0 + n) for n in range(5)] == [1, 2, 3, 4, 5]
    assert guesses.add("b", now=15) == 1
    assert guesses.seconds_left("a", now=15) == WINDOW_SECONDS - 5
    assert guesses.add("a", now=10 + WINDOW_SECONDS) == 1
    assert guesses.add("b", now=10 + WINDOW_SECONDS) == 2
    assert guesses.total == 8
    assert guesses.seconds_left("c", now=0) == 0


def test_addresses_that_sent_wrong_tokens_are_bounded_and_the_oldest_go() -> None:
    guesses = Guesses()
    for number in range(MAX_ADDRESSES + 5):
        guesses.add(str(number), now=1)
    assert len(guesses) == MAX_ADDRESSES
    assert guesses.add(str(MAX_ADDRESSES), now=1) == 2
    assert guesses.add("0", now=1) == 1
    guesses.add("z", now=1 + WINDOW_SECONDS)
    assert len(guesses) == 1


async def drained(receive: Callable[[], Awaitable[object]]) -> None:
    """Take what comes until that raises."""
    while True:
        await receive()


# Taken back -------------------------------------------------------------------------------------


@asynccontextmanager
async def subscribed(harness: Harness, *queries: str) -> AsyncIterator[Sequence[Subscription]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(harness.subscribe(query, token=ALICE))
            for query in queries
        ]


async def test_who_loses_its_token_is_told_so_at_once_whatever_it_does_and_others_stay(
    tmp_path: Path,
) -> None:
    small = LogSettings(memory_bytes=1024 * 1024)
    async with serving(tmp_path, log_settings=small, tokens=tokens()) as harness:
        await harness.fill(300, padding=20_000)
        async with (
            subscribed(harness, "", "cursor=0", "requireHello=true", "compress=zstd") as alices,
            subscribed(harness, "metadata=false") as [silent],
            harness.subscribe(token=BOB) as bob,
        ):
            await alices[0].news()
            await alices[1].news()
            await bob.news()
            harness.server.set_tokens(tokens("bob"))
            for client in (alices[0], alices[1], alices[2]):
                code, messages = await client.end()
                assert code == 1008
                assert messages[-1]["$type"] == "#error"
                assert messages[-1]["error"] == "AuthRevoked"
            with pytest.raises(trio_websocket.ConnectionClosed, match="1008"):
                await drained(alices[3].connection.get_message)
            assert await silent.end() == (1008, [])
            await harness.publish(post(1000, text="after"))
            assert (await bob.records(1))[0]["message"]["commit"]["record"]["text"] == "after"
        assert (await harness.get("/status", more=by(ALICE))).error == (401, "AuthRequired")
        await harness.settled(lambda: harness.server.statistics().tokens == {"bob": 0})


async def test_who_takes_nothing_and_loses_its_token_is_reset_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REVOKED_SECONDS", 0.3)
    async with serving(tmp_path, tokens=tokens()) as harness:
        await harness.fill(1000, padding=20_000)
        more = f"Sec-WebSocket-Protocol: bearer.{ALICE}\r\n"
        async with await harness.connect() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET /turbostream?cursor=0 HTTP/1.1\r\n{UPGRADE}{more}\r\n"
            await stream.send_all(head.encode())
            await harness.settled(lambda: harness.server.statistics().records > 0)
            await trio.sleep(0.3)
            harness.server.set_tokens(tokens("bob"))
            started = trio.current_time()
            await harness.settled(lambda: harness.server.statistics().connections == 0, seconds=2)
            assert trio.current_time() - started > 0.2
            with pytest.raises(trio.BrokenResourceError):
                await drained(stream.receive_some)
        statistics = harness.server.statistics()
        assert (statistics.resets, statistics.errors, statistics.filter_dids) == (1, 0, 0)


async def test_a_reload_again_and_again_gives_no_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REVOKED_SECONDS", 0.4)
    async with serving(tmp_path, tokens=tokens()) as harness:
        await harness.fill(1000, padding=20_000)
        async with await harness.connect() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET /turbostream?cursor=0 HTTP/1.1\r\n{UPGRADE}{by(ALICE)}\r\n"
            await stream.send_all(head.encode())
            await harness.settled(lambda: harness.server.statistics().records > 0)
            with trio.fail_after(10):
                while harness.server.statistics().connections:
                    harness.server.set_tokens(tokens("bob"))
                    await trio.sleep(0.1)


async def test_a_download_ends_with_its_token(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, tokens=tokens()) as (harness, archive):
        name = archive.names[0]
        reading = trio.Event()

        async def slowly(*_: object, **__: object) -> bytes:
            reading.set()
            await trio.sleep_forever()
            raise AssertionError

        archive.store.read = slowly  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            received: list[bytes] = []

            async def download() -> None:
                head = f"GET /archive/{name.key} HTTP/1.1\r\nHost: a\r\n{by(ALICE)}\r\n"
                received.append(await harness.exchange(head))

            nursery.start_soon(download)
            await reading.wait()
            harness.server.set_tokens(tokens("bob"))
        assert received == [b""]
        assert harness.server.statistics().errors == 0


@asynccontextmanager
async def downloading(
    harness: Harness, archive: Archive
) -> AsyncIterator[tuple[dict[str, bytes], ArchiveListing]]:
    """Let Alice and Bob download an hour that comes when the block ends; yield what they got."""
    go, reads = trio.Event(), 0
    plain_read = archive.store.read
    received: dict[str, bytes] = {}

    async def wait_and_read(key: str, *, offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        await go.wait()
        return await plain_read(key, offset=offset, size=size)

    async def download(token: str) -> None:
        head = f"GET /archive/{archive.names[0].key} HTTP/1.1\r\nHost: a\r\n{by(token)}\r\n"
        received[token] = await harness.exchange(head)

    archive.store.read = wait_and_read  # type: ignore[method-assign]
    listing = harness.server._archive
    assert listing is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(download, ALICE)
        nursery.start_soon(download, BOB)
        await harness.settled(lambda: reads == len(NAMES))
        yield received, listing
        go.set()


async def test_a_download_ends_with_the_right_to_it_and_with_no_other_reload(
    tmp_path: Path,
) -> None:
    right = "archive = true"
    both = tokens(alice=right, bob=right)
    async with serving_archive(tmp_path, is_public=False, tokens=both) as (harness, archive):
        async with downloading(harness, archive) as (received, listing):
            listing.publish(is_public=False)
            harness.server.set_tokens(tokens(alice=right, bob=right))
            await trio.sleep(0.05)
            assert received == {}
            harness.server.set_tokens(tokens(alice=right))
            await harness.settled(lambda: BOB in received)
        assert received[BOB] == b""
        assert Answer(received[ALICE]).body == archive.bytes_of(archive.names[0])
        assert harness.server.statistics().errors == 0


async def test_what_is_no_longer_public_ends_for_those_without_a_right_to_it(
    tmp_path: Path,
) -> None:
    right = tokens(alice="archive = true")
    async with serving_archive(tmp_path, tokens=right) as (harness, archive):
        async with downloading(harness, archive) as (received, listing):
            listing.publish(is_public=False)
            await harness.settled(lambda: BOB in received)
        assert received[BOB] == b""
        assert Answer(received[ALICE]).body == archive.bytes_of(archive.names[0])


async def test_with_the_first_token_whoever_has_none_has_to_go_and_without_any_all_may_stay(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as harness:
        async with harness.subscribe() as anybody:
            await anybody.news()
            harness.server.set_tokens(tokens())
            code, messages = await anybody.end()
            assert (code, messages[-1]["error"]) == (1008, "AuthRevoked")
        harness.server.set_tokens(None)
        async with (
            harness.subscribe(token=ALICE) as alice,  # who sends it before it is asked for
            harness.subscribe(token=STRANGER) as stranger,
        ):
            await alice.news()
            await stranger.news()
            harness.server.set_tokens(tokens())
            code, messages = await stranger.end()
            assert (code, messages[-1]["error"]) == (1008, "AuthRevoked")
            harness.server.set_tokens(None)
            async with harness.subscribe() as anybody:
                await anybody.news()
                await harness.publish(post(1))
                await anybody.records(1)
                await alice.records(1)
        await harness.settled(lambda: harness.server.statistics().connections == 0)


async def test_a_smaller_limit_is_for_those_who_come_later_and_another_name_is_no_other_token(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, tokens=tokens()) as harness,
        subscribed(harness, "", "") as clients,
    ):
        for client in clients:
            await client.news()
        text = f"[alicia]\nsha256 = '{DIGEST}'\nmax_connections = 1"
        harness.server.set_tokens(parse(text.encode(), "tokens.toml"))
        await harness.publish(post(1))
        for client in clients:
            await client.records(1)
        assert harness.server.statistics().tokens == {"alicia": 2}
        refused = await harness.upgrade(more=by(ALICE))
        assert refused.error == (429, "TooManyConnections")


async def test_a_token_that_was_changed_is_another_one(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=tokens("alice")) as harness:
        async with harness.subscribe(token=ALICE) as client:
            await client.news()
            changed = f"[alice]\nsha256 = '{bearer.digest(STRANGER).hex()}'"
            harness.server.set_tokens(parse(changed.encode(), "tokens.toml"))
            code, messages = await client.end()
            assert (code, messages[-1]["error"]) == (1008, "AuthRevoked")
        async with harness.subscribe(token=STRANGER) as client:
            await client.news()


# Whoever means harm -----------------------------------------------------------------------------

SHAPES = {
    "empty": "Authorization: Bearer\r\n",
    "spaces": "Authorization: Bearer      \r\n",
    "a long one": f"Authorization: Bearer {'a' * 60_000}\r\n",
    "a long one of ours": f"Authorization: Bearer turbod_{'a' * 60_000}\r\n",
    "two words": f"Authorization: Bearer {ALICE} {ALICE}\r\n",
    "quoted": f'Authorization: Bearer "{ALICE}"\r\n',
    "characters of token68": "Authorization: Bearer a-._~+/==\r\n",
    "a byte less": f"Authorization: Bearer {ALICE[:-1]}\r\n",
    "a byte more": f"Authorization: Bearer {ALICE}a\r\n",
    "another case": f"Authorization: Bearer {ALICE.upper()}\r\n",
    "the hash": f"Authorization: Bearer {DIGEST}\r\n",
    "the name": "Authorization: Bearer alice\r\n",
    "an empty subprotocol": "Sec-WebSocket-Protocol: bearer.\r\n",
    "another separator": f"Authorization: Bearer\t{ALICE}\r\n",
    "Basic": "Authorization: Basic YWxpY2U6YWxpY2U=\r\n",
    "a token alone": f"Authorization: {ALICE}\r\n",
    "another header": f"X-Authorization: Bearer {ALICE}\r\n",
    "another case of the subprotocol": f"Sec-WebSocket-Protocol: Bearer.{ALICE}\r\n",
    "a cookie": f"Cookie: token={ALICE}\r\n",
}


@pytest.mark.parametrize("name", SHAPES)
async def test_what_is_no_token_is_401_and_said_nowhere(tmp_path: Path, name: str) -> None:
    with capture_logs() as logs:
        async with serving(tmp_path, tokens=tokens()) as harness:
            for answer in (
                await harness.upgrade(more=SHAPES[name]),
                await harness.get("/status", more=SHAPES[name]),
            ):
                assert answer.error == (401, "AuthRequired")
                assert ALICE.encode() not in answer.body
            assert harness.server.statistics().errors == 0
    assert "aaaa" not in str(logs)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Authorization: Bearer \xc3\xa4\r\n", (400, "InvalidRequest")),
        (b"Authorization: Bearer a\x00b\r\n", (400, "InvalidRequest")),
        (b"Authorization : Bearer a\r\n", (400, "InvalidRequest")),
        (b"Authorization: Bearer %b\r\n" % (b"a" * 66_000), (431, "RequestHeaderFieldsTooLarge")),
        (b"Authorization: Bearer a\r\n" * 2000, (431, "RequestHeaderFieldsTooLarge")),
        (b"Authorization: Bearer a\r\n" * 900, (400, "InvalidRequest")),
        (
            b"Sec-WebSocket-Protocol: %b\r\n" % b",".join(b"bearer.%d" % n for n in range(5000)),
            (400, "InvalidRequest"),
        ),
    ],
)
async def test_a_head_that_is_none_is_refused_before_any_token_is_looked_at(
    tmp_path: Path, head: bytes, expected: tuple[int, str]
) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        raw = await harness.exchange(b"GET /status HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        assert Answer(raw).error == expected
        assert harness.server.statistics().wrong_tokens == 0


@pytest.mark.parametrize(
    "head",
    [
        f"Authorization : Bearer {ALICE}\r\n",
        f"X: a\rAuthorization: Bearer {ALICE}\r\n",
        f"Bearer {ALICE}\r\n",
        f"Host: {ALICE}\r\n",
        f"{UPGRADE}Sec-WebSocket-Version: {ALICE}\r\n",
        f"Content-Length: {ALICE}\r\n",
    ],
)
async def test_a_head_that_is_refused_is_not_repeated_to_its_sender(
    tmp_path: Path, head: str
) -> None:
    host = "" if "Host" in head else "Host: a\r\n"
    async with serving(tmp_path, tokens=tokens()) as harness:
        answer = await harness.exchange(f"GET /turbostream HTTP/1.1\r\n{host}{head}\r\n")
        assert Answer(answer).status in {400, 401, 426}
        assert ALICE.encode() not in answer


async def test_a_token_that_stands_elsewhere_is_not_repeated_to_its_sender(tmp_path: Path) -> None:
    wrong = (f"{ALICE}=1", *(f"{name}={ALICE}" for name in ("wantedDids", "kinds", "shard", "x")))
    async with serving(tmp_path, tokens=tokens()) as harness:
        for query in wrong:
            answer = await harness.get(f"/records?{query}", more=by(ALICE))
            assert answer.error == (400, "InvalidRequest")
            assert ALICE.encode() not in answer.body
        for payload in ({ALICE: 1}, {"wantedDids": [ALICE]}):
            async with harness.subscribe(token=ALICE) as client:
                await client.update(**payload)
                code, messages = await client.end()
                assert (code, messages[-1]["error"]) == (1008, "InvalidMessage")
                assert ALICE not in str(messages)


async def test_guessing_at_speed_disturbs_nobody_and_costs_no_memory(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with serving(tmp_path, tokens=tokens()) as harness:
            async with harness.subscribe(token=ALICE) as client, trio.open_nursery() as nursery:
                await client.news()

                async def guess(guesser: int) -> None:
                    for number in range(100):
                        token = f"turbod_{guesser:021}_{number:021}"
                        answer = await harness.get("/status", more=by(token))
                        assert answer.status in {401, 429}

                for guesser in range(10):
                    nursery.start_soon(guess, guesser)
                for number in range(20):
                    await harness.publish(post(number))
                    await client.records(1)
                    assert (await harness.get("/records", more=by(ALICE))).status == 200
            assert harness.server.statistics().wrong_tokens == 1000
            assert len(harness.server._guard._guesses) == 1
            assert harness.server._guard._guests == set()
            assert harness.server._guard._accounts == {}
    assert [line["event"] for line in logs].count("wrong_token") == 1


async def test_no_answer_line_or_figure_ever_holds_a_token(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with serving_archive(tmp_path, tokens=tokens()) as (harness, _):
            said = b""
            for path in ("/", "/healthz", "/readyz", *EVERYWHERE, "/turbostream"):
                for token in (ALICE, STRANGER):
                    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{by(token)}\r\n"
                    said += await harness.exchange(head)
            said += str(harness.server.statistics()).encode()
            async with await open_stream(harness, "/turbostream", more=by(ALICE)) as stream:
                said += await stream.receive_some()
            harness.server.set_tokens(tokens("bob"))
    for secret in (*NAMES.values(), STRANGER):
        for text in (secret, bearer.digest(secret).hex()):
            assert text.encode() not in said
            assert text not in str(logs)
