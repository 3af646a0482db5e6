import json

import pytest

from turbod.hydration import recent as recent_module
from turbod.hydration.recent import RecentPosts, tid_us

NOW = 1745342977546824
KEY = "3lnfzk2kt4c2z"


def post(number: int, text: str = "hi") -> bytes:
    commit = {
        "rev": "r",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "rkey": f"k{number}",
        "record": {"text": text},
        "cid": "c",
    }
    return json.dumps(
        {"did": "did:plc:a", "time_us": 1, "kind": "commit", "commit": commit}
    ).encode()


def test_a_tid_tells_its_time() -> None:
    assert tid_us("3jzfcijpj2z2a") == 1688137381887007
    assert tid_us("2222222222222") == 0


@pytest.mark.parametrize("key", ["", "self", "3jzfcijpj2z2", "zzzzzzzzzzzzz", "3jzfcijpj2z2A"])
def test_what_is_no_tid_tells_none(key: str) -> None:
    assert tid_us(key) is None


def uri(number: int) -> str:
    return f"at://did:plc:a/app.bsky.feed.post/k{number}"


def test_posts_are_remembered_for_a_minute() -> None:
    now = 100.0
    recent = RecentPosts(now_us=lambda: NOW, clock=lambda: now)
    recent.add(uri(1), post(1))
    now += 60
    assert recent.has(uri(1))
    now += 1
    assert not recent.has(uri(1))
    recent.expire()
    assert not recent._seen


def test_memory_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_module, "MAX_POSTS", 10)
    monkeypatch.setattr(recent_module, "MAX_BYTES", 5000)
    recent = RecentPosts(now_us=lambda: NOW)
    for number in range(20):
        recent.add(uri(number), post(number))
    assert len(recent._seen) == 10
    for number in range(20):
        recent.add(uri(number), post(number, "x" * 1000))
    assert recent.bytes <= 5000
    assert recent.bytes == sum(len(message) for _, message in recent._seen.values())


def test_a_post_is_fresh_by_its_key_within_a_minute() -> None:
    born = tid_us(KEY)
    assert born is not None
    key = f"at://did:plc:a/app.bsky.feed.post/{KEY}"
    assert RecentPosts(now_us=lambda: born + 59_000_000).is_fresh(key)
    assert not RecentPosts(now_us=lambda: born + 61_000_000).is_fresh(key)
    assert not RecentPosts(now_us=lambda: born).is_fresh("did:plc:a")
    assert not RecentPosts(now_us=lambda: born).is_fresh(f"at://did:plc:a/app.bsky.feed.like/{KEY}")
