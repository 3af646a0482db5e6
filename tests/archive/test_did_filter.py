"""The DID filter of a frame: it never denies what is in it, and seldom affirms what is not."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod.archive.format import did_filter
from turbod.archive.format.did_filter import DidFilter, SoughtDids, build


def invented(prefix: str, count: int) -> list[str]:
    return [f"did:plc:{sha256(f'{prefix} {n}'.encode()).hexdigest()[:24]}" for n in range(count)]


@given(st.sets(st.text(max_size=40), min_size=1, max_size=200))
def test_it_never_denies_a_did_that_is_in_it(dids: set[str]) -> None:
    made = build(dids)
    assert all(made.may_hold(SoughtDids([did])) for did in dids)


def test_of_those_that_are_not_in_it_it_affirms_one_in_a_hundred() -> None:
    made = build(invented("in", 4000))
    wrong = sum(made.may_hold(SoughtDids([did])) for did in invented("out", 20_000))
    assert 0.005 < wrong / 20_000 < 0.0115  # 0.8 % in theory
    assert len(made.bits) == 5000


def test_its_bits_are_where_the_documentation_says() -> None:
    dids = ["did:plc:skgh7tzgwbtzz4zieiy6zlfz", "did:web:example.com", "did:plc:é"]
    made = build(dids)
    expected = set()
    for did in dids:
        digest = sha256(did.encode()).digest()
        a, b = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
        expected |= {(a + i * b) % 2**64 % (len(made.bits) * 8) for i in range(7)}
    ones = {n for n in range(len(made.bits) * 8) if made.bits[n // 8] & 1 << (n % 8)}
    assert (made.hashes, len(made.bits), ones) == (7, 4, expected)


def test_any_of_several_dids_is_enough() -> None:
    made = build(["did:web:b"])
    assert made.may_hold(SoughtDids(["did:web:a", "did:web:b", "did:web:c"]))
    assert not made.may_hold(SoughtDids(["did:web:a", "did:web:c"]))
    assert not made.may_hold(SoughtDids([]))


def test_a_sought_did_is_hashed_once_and_only_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[str] = []
    real = did_filter._numbers

    def counting(did: str) -> tuple[int, int]:
        hashed.append(did)
        return real(did)

    monkeypatch.setattr(did_filter, "_numbers", counting)
    filters = [build([did]) for did in ("did:web:b", "did:web:c", "did:web:c")]
    hashed.clear()
    sought = SoughtDids(["did:web:a", "did:web:b", "did:web:c", "did:web:d"])
    assert all(each.may_hold(sought) for each in filters)
    assert hashed == ["did:web:a", "did:web:b", "did:web:c"]
    assert len(sought) == 4


def test_building_pauses_after_every_did() -> None:
    pauses: list[None] = []
    build(invented("in", 50), pause=lambda: pauses.append(None))
    assert len(pauses) == 50


@pytest.mark.parametrize(
    "text",
    [b'{"hashes":7,"bits":""}', b'{"hashes":0,"bits":"AA=="}', b'{"hashes":33,"bits":"AA=="}'],
)
def test_a_filter_that_cannot_be_asked_is_not_read(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=DidFilter)
