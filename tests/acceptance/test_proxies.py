"""The examples of docs/proxy do what they say: real nginx and Caddy before a real turbod."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket

from tests.acceptance.process import Turbod, serving
from tests.acceptance.proxies import KINDS, NAME, Proxy, proxied
from tests.acceptance.settling import settled, until
from tests.archive.sealed import make_archive
from tests.server.served_archive import LONG_AGO
from turbod.simulation.world import Simulation, simulated

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
TRUSTED = {"server-trusted-proxies": "127.0.0.1"}
each_proxy = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def behind(
    kind: str, folder: Path, **options: object
) -> AsyncIterator[tuple[Simulation, Turbod, Proxy]]:
    """Run a small network, a turbod that reads it, and a proxy before it."""
    given = TRUSTED | {name.replace("_", "-"): value for name, value in options.items()}
    async with (
        simulated(seed=9) as simulation,
        serving(simulation, folder / "data", options=given) as turbod,
        proxied(kind, folder / "proxy", turbod.port) as proxy,
    ):
        yield simulation, turbod, proxy


async def message(connection: trio_websocket.WebSocketConnection, *, seconds: float = 10) -> Any:
    """Return the next message, decoded."""
    with trio.fail_after(seconds):
        return json.loads(await connection.get_message())


async def upgrade(proxy: Proxy, *words: str, address: str) -> int:
    """Return the status that a request for a stream gets, where it is refused."""
    asked = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)
    headers = [word for header in asked for word in ("-H", header)]
    return (await proxy.curl("/turbostream", *headers, *words, address=address)).status


@each_proxy
async def test_streams_and_pages_pass_as_they_are(kind: str, tmp_path: Path) -> None:
    """The stream over wss, /records, the page, long heads and refusals, as without the proxy."""
    async with behind(kind, tmp_path) as (simulation, turbod, proxy):
        simulation.emit(300)
        log = await settled(simulation, turbod.data)
        async with proxy.subscribe("/turbostream?cursor=0") as stream:
            assert (await message(stream))["$type"] == "#cursor"
            lines: list[Any] = []
            while len(lines) < len(log):
                news = await message(stream)
                lines += news if isinstance(news, list) else []
        assert lines == [json.loads(line) for line in log]
        page = "/records?cursor=0&limit=1000"
        assert (await proxy.curl(page)).body == (await turbod.get(page))[1]
        assert f"ws://{NAME}:{proxy.port}<" in (await proxy.curl("/")).body.decode()
        assert (await proxy.curl("/nothing")).status == 404
        assert (await proxy.curl("/records?token=x")).status == 400
        many = "&".join(f"wantedDids=did:plc:{number:024}" for number in range(1400))
        assert 60_000 < len(many) < 64 * 1024
        assert (await proxy.curl(f"/records?cursor=0&{many}")).status == 200
        async with proxy.subscribe(f"/turbostream?{many}") as stream:
            assert (await message(stream))["reason"] == "connect"
        assert (await proxy.curl(f"/records?{many}&{many}")).status in {414, 431}
        if kind == "caddy":
            answer = await proxy.curl(page, http="--http2")
            assert answer == (200, "2", (await turbod.get(page))[1])
        assert (await proxy.curl(f"{proxy.plain_url}/records")).status in {301, 308}


def forged(address: str) -> tuple[dict[str, str], list[str]]:
    """Return headers that claim to be from an address, and curl's words for them."""
    claims = {"X-Forwarded-For": address, "Forwarded": f"for={address}", "X-Real-IP": address}
    return claims, [word for item in claims.items() for word in ("-H", ": ".join(item))]


@each_proxy
async def test_each_client_has_its_own_bound_whatever_it_claims(kind: str, tmp_path: Path) -> None:
    """Connections of one are bounded, another's are not, and forged headers change nothing."""
    claims, words = forged("198.51.100.7")
    options = {"server_max_connections_per_address": 3}
    async with behind(kind, tmp_path, **options) as (_, turbod, proxy):
        before = (await turbod.status())["server"]["untold"]
        async with AsyncExitStack() as stack:
            for headers in ({}, claims, {}):
                stream = proxy.subscribe(address="127.0.0.2", headers=headers)
                await message(await stack.enter_async_context(stream))
            assert await upgrade(proxy, address="127.0.0.2") == 429
            assert await upgrade(proxy, *words, address="127.0.0.2") == 429
            assert (await proxy.curl("/records", *words, address="127.0.0.2")).status == 429
            for address in ("127.0.0.3", "127.0.0.4"):
                assert (await proxy.curl("/records", *words, address=address)).status == 200
                async with proxy.subscribe(address=address, headers=claims) as other:
                    await message(other)
        await until(
            lambda: is_served(proxy, "127.0.0.2"), seconds=5, what="what left makes room again"
        )
        server = (await turbod.status())["server"]
        assert server["refused"]["TooManyConnections"] >= 3
        assert server["untold"] == before + 1  # ours, which came from the proxy's address by itself


async def test_where_nginx_adds_to_a_claim_it_is_not_believed_either(tmp_path: Path) -> None:
    """As behind another proxy: with $proxy_add_x_forwarded_for."""
    changes = {"X-Forwarded-For $remote_addr": "X-Forwarded-For $proxy_add_x_forwarded_for"}
    options = TRUSTED | {"server-max-connections-per-address": 1}
    claims, words = forged("127.0.0.3, 127.0.0.1")
    async with (
        simulated(seed=9) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        proxied("nginx", tmp_path / "proxy", turbod.port, changes=changes) as proxy,
        proxy.subscribe(address="127.0.0.2", headers=claims) as stream,
    ):
        await message(stream)
        assert await upgrade(proxy, *words, address="127.0.0.2") == 429
        assert (await proxy.curl("/records", address="127.0.0.3")).status == 200


@each_proxy
async def test_ranges_of_the_archive_pass(kind: str, tmp_path: Path) -> None:
    """An object comes whole, in parts, and by its tag, to the byte."""
    folder = tmp_path / "data" / "archive"
    folder.mkdir(parents=True)
    make_archive(folder, [LONG_AGO, LONG_AGO + 1])
    async with behind(kind, tmp_path, archive_public="true") as (_, _, proxy):
        [hour, _] = json.loads((await proxy.curl("/archive")).body)["hours"]
        whole = (folder / hour["name"]).read_bytes()
        assert (await proxy.curl(hour["url"])) == (200, "1.1", whole)
        for words, part in (
            (["-r", "100-299"], whole[100:300]),
            (["-r", "-50"], whole[-50:]),
            (["-r", "10-"], whole[10:]),
        ):
            assert (await proxy.curl(hour["url"], *words)) == (206, "1.1", part)
        assert (await proxy.curl(hour["url"], "-r", f"{len(whole)}-")).status == 416


@each_proxy
async def test_a_restart_of_turbod_is_a_goodbye_and_then_all_is_as_before(
    kind: str, tmp_path: Path
) -> None:
    """Streams get bye and 1001; the proxy has another try at once; Caddy lets requests wait."""
    async with behind(kind, tmp_path) as (simulation, turbod, proxy):
        simulation.emit(20)
        await settled(simulation, turbod.data)
        async with proxy.subscribe() as stream:
            await message(stream)
            assert await turbod.stop() == 0
            assert (await message(stream))["reason"] == "bye"
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await message(stream)
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1001
        if kind == "nginx":
            assert (await proxy.curl("/records")).status == 502
            await turbod.start()
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(turbod.start)
                assert (await proxy.curl("/healthz")).status == 200
        for _ in range(5):
            assert (await proxy.curl("/records?cursor=0")).status == 200
            async with proxy.subscribe("/turbostream?cursor=0") as stream:
                await message(stream)
                assert len(await message(stream)) == 20


async def test_a_reload_of_nginx_ends_no_stream(tmp_path: Path) -> None:
    """Whoever is connected goes on; whoever comes is served by the new workers."""
    async with behind("nginx", tmp_path) as (simulation, _, proxy), proxy.subscribe() as stream:
        await message(stream)
        await proxy.reload()
        await trio.sleep(0.5)  # for new workers
        assert (await proxy.curl("/records")).status == 200
        simulation.emit(20)
        await records(stream, 20)


async def test_a_reload_of_caddy_serves_whoever_comes_again(tmp_path: Path) -> None:
    """Before 2.7 it ends the streams: clients resume from their cursor and miss nothing."""
    async with behind("caddy", tmp_path) as (simulation, _, proxy):
        async with proxy.subscribe() as stream:
            cursor = (await message(stream))["cursor"]
            await proxy.reload()
        simulation.emit(20)
        async with proxy.subscribe(f"/turbostream?cursor={cursor}") as stream:
            await records(stream, 20)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_stream_without_events_outlives_the_proxys_patience(tmp_path: Path) -> None:
    """What turbod says every 15 s is enough, as messages or as pings; less patience is not.

    nginx has 20 s here in place of its 90, and in a second one 5.
    """
    async with (
        behind("caddy", tmp_path) as (simulation, turbod, caddy),
        proxied("nginx", tmp_path / "n", turbod.port, changes=timeouts(20)) as nginx,
        proxied("nginx", tmp_path / "i", turbod.port, changes=timeouts(5)) as impatient,
        AsyncExitStack() as stack,
    ):
        cut = await stack.enter_async_context(impatient.subscribe())
        streams = [
            await stack.enter_async_context(proxy.subscribe(f"/turbostream?metadata={metadata}"))
            for proxy in (caddy, nginx)
            for metadata in ("true", "false")
        ]
        await trio.sleep(45)
        assert cut.closed is not None
        simulation.emit(20)
        for stream in streams:
            await records(stream, 20)


@pytest.mark.slow
@each_proxy
async def test_a_client_that_takes_nothing_is_reset_through_the_proxy(
    kind: str, tmp_path: Path
) -> None:
    """What a proxy takes for its client is bounded; then turbod notices, and the client learns."""
    async with behind(kind, tmp_path, server_stuck_seconds=2) as (simulation, turbod, proxy):
        simulation.emit(6000)
        size = sum(map(len, await settled(simulation, turbod.data)))
        async with proxy.subscribe("/turbostream?cursor=0") as stream:
            await until(lambda: was_reset(turbod), seconds=20, what="turbod reset it")
            assert (await turbod.status())["server"]["bytes"] < size
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await records(stream, 6000)
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1006


async def was_reset(turbod: Turbod) -> bool:
    """Tell whether turbod reset a client."""
    return bool((await turbod.status())["server"]["resets"])


def timeouts(seconds: int) -> dict[str, str]:
    """Return what makes nginx as patient as that."""
    return {
        "proxy_read_timeout 90s": f"proxy_read_timeout {seconds}s",
        "send_timeout 60s": f"send_timeout {seconds}s",
    }


async def is_served(proxy: Proxy, address: str) -> bool:
    """Tell whether a client at an address is let in."""
    return (await proxy.curl("/records", address=address)).status == 200


async def records(stream: trio_websocket.WebSocketConnection, count: int) -> None:
    """Read until so many records came."""
    while count > 0:
        news = await message(stream)
        count -= len(news) if isinstance(news, list) else 0
