"""What `turbod check` says of Jetstream hosts, real ones of the simulation and broken ones."""

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.acceptance.process import free_port
from tests.archive.scripted_s3 import answer, scripted_s3
from turbod.check import upstream
from turbod.check.finding import Finding
from turbod.check.network_verdicts import HostSeen, judge_hosts
from turbod.config import Settings
from turbod.simulation.world import Simulation, simulated


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "EVENT_SECONDS", 0.5)


async def found(*urls: str) -> list[Finding]:
    return await upstream.look(Settings(upstream=urls))


async def found_in(simulation: Simulation) -> list[Finding]:
    return await found(*(host.url for host in simulation.jetstreams))


async def test_hosts_that_send_are_ok_and_told_in_the_order_of_the_settings() -> None:
    async with simulated(hosts=3, rate=200) as simulation:
        findings = await found_in(simulation)
        assert [finding.mark for finding in findings] == ["ok"] * 3
        for host, finding in zip(simulation.jetstreams, findings, strict=True):
            assert finding.found.startswith(host.url)


async def test_it_asks_for_what_turbod_asks_for_once_and_without_a_cursor() -> None:
    async with simulated(hosts=1, rate=200) as simulation:
        await found_in(simulation)
        [query] = simulation.jetstreams[0].connects
        assert query.cursor is None
        assert query.wants("did:plc:" + "a" * 24, "app.bsky.feed.post")
        assert not query.wants("did:plc:" + "a" * 24, "app.bsky.feed.like")


async def test_a_silent_host_is_a_warning() -> None:
    async with simulated(hosts=1, rate=200) as simulation:
        simulation.jetstreams[0].faults.silent = True
        [finding] = await found_in(simulation)
        assert finding.mark == "warning"
        assert "no event within" in finding.found


async def test_a_host_that_is_behind_is_a_warning_with_its_lag() -> None:
    async with simulated(hosts=1, rate=50) as simulation:
        simulation.jetstreams[0].stamp(-7200)
        [finding] = await found_in(simulation)
        assert finding.mark == "warning"
        assert "2 h behind" in finding.found


async def test_a_host_ahead_of_us_is_a_warning_that_speaks_of_the_clock() -> None:
    async with simulated(hosts=1, rate=50) as simulation:
        simulation.jetstreams[0].stamp(60)
        [finding] = await found_in(simulation)
        assert finding.mark == "warning"
        assert "ahead of this machine's clock" in finding.found


async def test_messages_that_are_no_events_are_a_warning() -> None:
    async with simulated(hosts=1) as simulation:

        async def feed() -> None:
            while True:
                simulation.feed([b"[]", b"{}"])
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            [finding] = await found_in(simulation)
            nursery.cancel_scope.cancel()
        assert finding.mark == "warning"
        assert "none an event" in finding.found


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"refuse_status": 429}, "refused: 429"),
        ({"hang_up": True}, ""),
        ({"refuse_status": 503}, "refused: 503"),
    ],
)
async def test_a_host_that_refuses_is_a_fault_in_its_words(
    faults: dict[str, int], words: str
) -> None:
    async with simulated(hosts=1) as simulation:
        for name, value in faults.items():
            setattr(simulation.jetstreams[0].faults, name, value)
        [finding] = await found_in(simulation)
        assert finding.mark == "fault"
        assert words in finding.found


async def test_a_host_that_never_answers_is_a_fault_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "HANDSHAKE_SECONDS", 0.3)
    async with simulated(hosts=1) as simulation:
        simulation.jetstreams[0].faults.mute_handshake = True
        [finding] = await found_in(simulation)
        assert finding.mark == "fault"
        assert "no answer to upgrade within 0.3 s" in finding.found


async def test_a_web_server_in_place_of_a_host_is_a_fault_of_the_path() -> None:
    async with scripted_s3(lambda _: answer("200 OK", b"hello")) as server:
        [finding] = await found(f"{server.endpoint.replace('http', 'ws')}/subscribe")
        assert finding.mark == "fault"
        assert "refused: 200" in finding.found
        assert "/subscribe" in finding.todo


async def test_nobody_there_is_a_fault_that_is_told_from_a_wrong_name() -> None:
    nobody, nowhere = await found(
        f"ws://127.0.0.1:{free_port()}/subscribe", "ws://jetstream.invalid/subscribe"
    )
    assert nobody.mark == nowhere.mark == "fault"
    assert "firewall" in nobody.todo
    assert "DNS" in nowhere.todo


async def test_a_certificate_that_nobody_vouches_for_is_a_fault_of_tls(tmp_path: Path) -> None:
    async with _tls_server(tmp_path) as port:
        [finding] = await found(f"wss://127.0.0.1:{port}/subscribe")
        assert finding.mark == "fault"
        assert "TLS" in finding.found
        assert "certificate" in finding.found
        assert "ca-certificates" in finding.todo


async def test_one_of_two_that_is_away_is_a_warning_for_the_other_has_all_events() -> None:
    async with simulated(hosts=1, rate=200) as simulation:
        here = simulation.jetstreams[0].url
        away, fine = await found(f"ws://127.0.0.1:{free_port()}/subscribe", here)
        assert (away.mark, fine.mark) == ("warning", "ok")


def test_a_host_that_hangs_up_behind_the_upgrade_is_away() -> None:
    [finding] = judge_hosts([HostSeen("ws://a/subscribe", "after", "the host hung up")])
    assert finding.mark == "fault"


@asynccontextmanager
async def _tls_server(folder: Path) -> AsyncIterator[int]:
    """Run a TLS server whose certificate it signed itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(folder))
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")

    async def handshake(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handshake, listeners))
        plain = listeners[0].transport_listener
        assert isinstance(plain, trio.SocketListener)
        yield plain.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def _self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "self-signed.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
