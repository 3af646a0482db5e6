"""Whose request it is: whatever a client claims, its proxy's word counts."""

import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.server.harness import UPGRADE, Answer, serving
from turbod.config import ServerSettings
from turbod.server.admission import Admission
from turbod.server.forwarding import MAX_HOPS, client, is_trusted, parse
from turbod.server.request import MAX_HEAD_BYTES, Refusal

PROXY = "10.0.0.1"
TRUSTED = ("10.0.0.0/8", "2001:db8:cd::/48", "192.0.2.7")
FOR = ServerSettings(trusted_proxies=TRUSTED)
FORWARDED = ServerSettings(trusted_proxies=TRUSTED, forwarded_header="Forwarded")
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
ADDRESSES = st.ip_addresses().filter(
    lambda address: "%" not in str(address) and not is_trusted(parse(str(address)) or address, FOR)
)


def whose(
    value: str | None, settings: ServerSettings = FOR, proxy: str = PROXY
) -> tuple[str, bool]:
    """Return whose a request with this header is, and whether that was told."""
    headers = {} if value is None else {settings.forwarded_header.lower(): value}
    found = client(headers, ip_address(proxy), settings)
    return str(found.address), found.is_told


def element(address: str) -> str:
    """Return what a proxy adds to Forwarded for an address."""
    return f'for="[{address}]"' if ":" in address else f"for={address}"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        (" 198.51.100.1\t", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("[::ffff:198.51.100.1]:443", "198.51.100.1"),
        # Claims stand to the left of what a trusted proxy saw.
        ("203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1,198.51.100.1", "198.51.100.1"),
        ("198.51.100.2 198.51.100.3, 198.51.100.1", "198.51.100.1"),
        ("unknown, 198.51.100.1", "198.51.100.1"),
        (", , 198.51.100.1", "198.51.100.1"),
        # Trusted ones on the way are passed over.
        ("203.0.113.9, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1, 192.0.2.7, 2001:db8:cd::5, ::ffff:10.9.9.9", "198.51.100.1"),
        # All are trusted: the leftmost.
        ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
        ("10.3.3.3", "10.3.3.3"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(
    value: str, address: str
) -> None:
    assert whose(value) == (address, True)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, PROXY),
        ("", PROXY),
        ("  ", PROXY),
        ("unknown", PROXY),
        ("_hidden", PROXY),
        ("198.51.100.1, ", PROXY),
        ("198.51.100.1, unknown", PROXY),
        ("198.51.100.1, unix:", PROXY),
        ("198.51.100.1, 1.2.3", PROXY),
        ("198.51.100.1, 1.2.3.256", PROXY),
        ("198.51.100.1, 01.2.3.4", PROXY),
        ("198.51.100.1, 1.2.3.4.5", PROXY),
        ("198.51.100.1, 1.2.3.4:123456", PROXY),
        ("198.51.100.1, 1.2.3.4:", PROXY),
        ("198.51.100.1, [1.2.3.4", PROXY),
        ("198.51.100.1, [2001:db8::1", PROXY),
        ("198.51.100.1, 2001:db8::1]", PROXY),
        ("198.51.100.1, [2001:db8::1]x", PROXY),
        ("198.51.100.1, fe80::1%eth0", PROXY),
        ("198.51.100.1, :::", PROXY),
        ("198.51.100.1, 3232235777", PROXY),
        ("198.51.100.1, localhost", PROXY),
        ('198.51.100.1, "2.2.2.2', PROXY),
        ("198.51.100.1 2.2.2.2", PROXY),
        ("for=198.51.100.1", PROXY),
        # Whoever did not tell is the last that is known.
        ("198.51.100.1, unknown, 10.4.4.4", "10.4.4.4"),
        (", 10.5.5.5, 10.4.4.4", "10.5.5.5"),
    ],
)
def test_where_a_trusted_proxy_does_not_tell_its_own_address_counts(
    value: str | None, address: str
) -> None:
    assert whose(value) == (address, False)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        # The examples of RFC 7239, sections 4, 6 and 7.1.
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ('for=192.0.2.43, for="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
        ('for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown', None),
        ("for=_hidden, for=_SEVKISEK", None),
        ('for="_gazonk"', None),
        ('for="192.0.2.43:47011"', "192.0.2.43"),
        ('for="192.0.2.43:_port"', "192.0.2.43"),
        # As some proxies write it.
        ("for=192.0.2.43:47011", "192.0.2.43"),
        ("for=2001:db8::1", "2001:db8::1"),
        ("proto=https ; for=192.0.2.43 ; host=a.example", "192.0.2.43"),
        ('for="192.0.2.4\\3"', "192.0.2.43"),
        ("for=198.51.100.1, for=10.1.1.1;by=10.2.2.2", "198.51.100.1"),
        ("for=10.1.1.1", "10.1.1.1"),
        # A client's open quote does not swallow what the proxy added.
        ('for="evil, for=198.51.100.1', "198.51.100.1"),
        ('for="198.51.100.9", host="x, for=198.51.100.1', "198.51.100.1"),
        ('for=198.51.100.9;host="a\\", for=198.51.100.1', "198.51.100.1"),
        # Nor does what it claims as a host name, which the proxy quotes.
        ('for=198.51.100.1;host="a\\", for=198.51.100.9;host=\\"b"', "198.51.100.1"),
        ('host="a\\\\";for=198.51.100.1', "198.51.100.1"),
        ('for=198.51.100.1;host="a,b;for=198.51.100.9"', "198.51.100.1"),
        # Not to be read.
        ("for=198.51.100.9, 198.51.100.1", None),
        ("for=198.51.100.9, proto=https", None),
        ("for=198.51.100.9, for=198.51.100.1;for=198.51.100.2", None),
        ("for=198.51.100.9, for=198.51.100.1 x", None),
        ("for=198.51.100.9, for =198.51.100.1", None),
        ('for=198.51.100.9, for="198.51.100.1', None),
        ("for=198.51.100.9, for=198.51.100.1;host=" + "a" * 1100, None),
        ('for=198.51.100.9, host="' + "a" * 1100 + ';for=198.51.100.1"', None),
        ("for=198.51.100.1;" + "a=b;" * 300 + "by=198.51.100.9;for=198.51.100.9", None),
        ("for=198.51.100.9, for=", None),
        ("for=198.51.100.9,", None),
        ("", None),
        (None, None),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(value: str | None, address: str | None) -> None:
    assert whose(value, FORWARDED) == (address or PROXY, address is not None)


@given(claim=PRINTABLE, address=ADDRESSES, hops=st.lists(st.just("10.8.8.8"), max_size=3))
@example(claim='for="', address=ip_address("198.51.100.1"), hops=[])
@example(claim="\\", address=ip_address("198.51.100.1"), hops=[])
@example(claim='"\\', address=ip_address("198.51.100.1"), hops=["10.8.8.8"])
def test_no_claim_of_a_client_hides_it(claim: str, address: object, hops: list[str]) -> None:
    """Whatever stood in the header before the trusted proxies added what they saw."""
    seen = [str(address), *hops]
    true = (str(parse(str(address))), True)
    assert whose(", ".join([claim, *seen])) == true
    assert whose(", ".join([claim, *map(element, seen)]), FORWARDED) == true


@given(host=PRINTABLE, address=ADDRESSES)
def test_no_host_that_a_proxy_quotes_changes_whose_it_is(host: str, address: object) -> None:
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    for text in (
        f'{element(str(address))};host="{quoted}"',
        f'host="{quoted}";{element(str(address))}',
    ):
        assert whose(f"for=198.51.100.9, {text}", FORWARDED) == (str(parse(str(address))), True)


@given(value=PRINTABLE | st.text(st.sampled_from('for=1.,;"\\ :[]_'), max_size=80))
def test_any_bytes_are_read_or_left(value: str) -> None:
    for settings in (FOR, FORWARDED):
        address, _ = whose(value, settings)
        assert parse(address) is not None


@pytest.mark.parametrize(
    "value",
    [
        "1," * 30_000,
        "10.0.0.1," * 6_000,
        "," * 60_000,
        '"' * 60_000,
        '\\"' * 30_000,
        "\\" * 60_000,
        ("\\" * 999 + '"') * 60,
        "for=10.0.0.1," * 4_500,
        'for="' + "\\a" * 30_000,
        "a=b;" * 15_000,
        " " * 60_000,
        "1." * 30_000,
        "[" * 60_000,
    ],
    ids=lambda value: value[:12],
)
def test_a_header_as_long_as_a_head_may_be_costs_little(value: str) -> None:
    assert len(value) < MAX_HEAD_BYTES
    for settings in (FOR, FORWARDED):
        began = time.thread_time()
        for text in (value, value.rstrip(","), f"{value}, 10.0.0.1", f"{value}, for=10.0.0.1"):
            whose(text, settings)
        assert time.thread_time() - began < 0.1  # 1 ms at the most


def test_of_very_many_trusted_proxies_the_nearest_are_passed_over() -> None:
    names = [f"10.0.0.{number}" for number in range(100)]
    assert whose(", ".join(names)) == (names[-MAX_HOPS], True)


def test_the_other_header_is_not_believed() -> None:
    headers = {"forwarded": "for=198.51.100.1", "x-forwarded-for": "198.51.100.2"}
    proxy = ip_address(PROXY)
    assert str(client(headers, proxy, FOR).address) == "198.51.100.2"
    assert str(client(headers, proxy, FORWARDED).address) == "198.51.100.1"
    for one, settings in (("forwarded", FOR), ("x-forwarded-for", FORWARDED)):
        assert not client({one: headers[one]}, proxy, settings).is_told


@pytest.mark.parametrize(
    ("peer", "networks", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1",), True),
        ("10.0.0.2", ("10.0.0.1",), False),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), True),
        ("10.0.0.1", ("::ffff:10.0.0.0/104",), True),
        ("11.0.0.1", ("::ffff:10.0.0.0/104",), False),
        ("10.0.0.1", ("::/0",), False),
        ("::1", ("::1",), True),
        ("2001:db8::1", ("0.0.0.0/0",), False),
        ("192.0.2.1", (), False),
    ],
)
def test_a_peer_is_trusted_by_address_or_network(
    peer: str, networks: tuple[str, ...], expected: object
) -> None:
    address = parse(peer)
    assert address is not None
    assert is_trusted(address, ServerSettings(trusted_proxies=networks)) is expected


# Counting ------------------------------------------------------------------------------------


def test_a_proxys_connection_counts_for_its_client_and_once() -> None:
    admission = Admission(
        ServerSettings(
            trusted_proxies=TRUSTED,
            max_connections=5,
            max_connections_per_address=1,
            max_handshakes=4,
        )
    )
    tickets = [admission.admit(PROXY) for _ in range(4)]
    with pytest.raises(Refusal, match="whole request"):
        admission.admit(PROXY)
    for ticket in tickets:
        ticket.greeted()
    for ticket, name in zip(tickets, ("198.51.100.1", "198.51.100.2"), strict=False):
        ticket.attribute({"x-forwarded-for": name})
        assert ticket.address == name
    with pytest.raises(Refusal, match="1 connections are open from your address"):
        tickets[2].attribute({"x-forwarded-for": "198.51.100.1"})
    with pytest.raises(Refusal, match="from your address"):
        admission.admit("198.51.100.2")  # it came by itself: it is the same client
    tickets[3].attribute({"x-forwarded-for": "?"})
    assert (tickets[3].address, admission.untold) == (PROXY, 1)
    last = admission.admit(PROXY)
    with pytest.raises(Refusal, match="5 connections are open;"):
        admission.admit("198.51.100.3")
    for ticket in (*tickets, last):
        ticket.close()
    assert (admission.connections, admission.handshakes) == (0, 0)
    assert not admission._by_address


def test_who_is_not_trusted_is_itself_whatever_it_tells() -> None:
    admission = Admission(ServerSettings(trusted_proxies=TRUSTED))
    ticket = admission.admit("::ffff:203.0.113.5")
    ticket.attribute({"x-forwarded-for": "198.51.100.1", "forwarded": "for=198.51.100.1"})
    assert ticket.address == "203.0.113.5"
    assert dict(admission._by_address) == {"203.0.113.5": 1}
    assert admission.untold == 0
    ticket.close()


async def test_each_client_behind_a_proxy_has_its_own_bound(tmp_path: Path) -> None:
    """A full client gets 429, another is served; nothing stays counted."""
    settings = ServerSettings(trusted_proxies=("127.0.0.1",), max_connections_per_address=1)

    def by(address: str) -> str:
        return f"X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: {address}\r\n"

    async with serving(tmp_path, settings=settings) as harness:
        async with await harness.connect() as stream:
            head = f"GET /turbostream HTTP/1.1\r\n{UPGRADE}{by('198.51.100.1')}\r\n"
            await stream.send_all(head.encode())
            assert (await stream.receive_some(12)) == b"HTTP/1.1 101"
            refused = await harness.upgrade(more=by("198.51.100.1"))
            assert refused.error == (429, "TooManyConnections")
            assert int(refused.headers["retry-after"]) > 0
            plain = "GET /healthz HTTP/1.1\r\nHost: a\r\n"
            for address, status in (("198.51.100.1", 429), ("198.51.100.2", 200), ("?", 200)):
                answer = Answer(await harness.exchange(f"{plain}{by(address)}\r\n"))
                assert answer.status == status
        await harness.settled(lambda: harness.server.statistics().connections == 0)
        assert not harness.server._admission._by_address
        assert harness.server.statistics().untold == 1
