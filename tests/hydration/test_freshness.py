import json
from typing import Any

import pytest

from turbod.event import Event, parse
from turbod.hydration.freshness import NOTHING, Effect, Fate, effect, subject

DID = "did:plc:alice"


def commit(collection: str, operation: str = "create", **record: Any) -> Event:
    body: dict[str, Any] = {
        "rev": "r1",
        "operation": operation,
        "collection": collection,
        "rkey": "k",
    }
    if operation != "delete":
        body |= {"record": record, "cid": "c"}
    event = {"did": DID, "time_us": 1, "kind": "commit", "commit": body}
    return parse(json.dumps(event).encode())


def account(*, active: bool) -> Event:
    notice = {"active": active, "did": DID, "seq": 1, "time": "t1"}
    return parse(
        json.dumps({"did": DID, "time_us": 1, "kind": "account", "account": notice}).encode()
    )


@pytest.mark.parametrize(
    "collection",
    [
        "app.bsky.actor.profile",
        "app.bsky.actor.status",
        "chat.bsky.actor.declaration",
        "app.bsky.notification.declaration",
        "com.germnetwork.declaration",
        "app.bsky.labeler.service",
    ],
)
@pytest.mark.parametrize("operation", ["create", "update", "delete"])
def test_what_a_profile_shows_outdates_the_profile(collection: str, operation: str) -> None:
    assert DID in effect(commit(collection, operation)).outdated


def test_an_identity_outdates_the_profile() -> None:
    notice = {"did": DID, "time_us": 1, "kind": "identity", "identity": {"time": "t"}}
    assert effect(parse(json.dumps(notice).encode())) == Effect(outdated=(DID,))


def test_an_account_that_is_not_active_is_gone_until_it_is_back() -> None:
    assert effect(account(active=False)) == Effect((DID,), Fate.GONE)
    assert effect(account(active=True)) == Effect((), Fate.BACK)
    assert subject(account(active=True)) == (DID, "t1")


def test_posts_come_change_and_go() -> None:
    uri = f"at://{DID}/app.bsky.feed.post/k"
    create, update, delete = (
        effect(commit("app.bsky.feed.post", operation))
        for operation in ("create", "update", "delete")
    )
    assert create == Effect((), Fate.BACK)
    assert update == Effect((uri,), Fate.BACK)
    assert delete == Effect((uri,), Fate.GONE)
    assert subject(commit("app.bsky.feed.post")) == (uri, "r1")


@pytest.mark.parametrize("collection", ["app.bsky.feed.threadgate", "app.bsky.feed.postgate"])
@pytest.mark.parametrize("operation", ["create", "update", "delete"])
def test_gates_outdate_the_post_of_their_own_key(collection: str, operation: str) -> None:
    uri = f"at://{DID}/app.bsky.feed.post/k"
    assert effect(commit(collection, operation, post="at://did:plc:x/y.y.y/z")).outdated == (uri,)


@pytest.mark.parametrize(
    "collection",
    ["app.bsky.feed.generator", "app.bsky.graph.list", "app.bsky.graph.starterpack"],
)
def test_what_embeds_show_is_outdated_when_it_changes(collection: str) -> None:
    uri = f"at://{DID}/{collection}/k"
    assert effect(commit(collection)) == NOTHING
    assert effect(commit(collection, "update")).outdated == (uri,)
    assert effect(commit(collection, "delete")).outdated == (uri,)


def test_a_verification_outdates_its_subject() -> None:
    verification = commit("app.bsky.graph.verification", subject="did:plc:bob")
    assert effect(verification).outdated == ("did:plc:bob",)


@pytest.mark.parametrize("collection", ["app.bsky.feed.like", "app.bsky.graph.follow"])
def test_what_only_counts_changes_nothing(collection: str) -> None:
    assert effect(commit(collection)) == NOTHING


def test_a_notice_of_a_whole_second_comes_before_one_of_its_fractions() -> None:
    def version(moment: str) -> str:
        notice = {"active": True, "did": DID, "seq": 1, "time": moment}
        event = {"did": DID, "time_us": 1, "kind": "account", "account": notice}
        return subject(parse(json.dumps(event).encode()))[1]

    times = ["2026-07-04T14:38:07Z", "2026-07-04T14:38:07.877Z", "2026-07-04T14:38:08Z"]
    assert sorted(times, key=version) == times
