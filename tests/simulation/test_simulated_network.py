"""The simulated network against what the production stream looks like."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turbod.envelope import Malformed
from turbod.event import MAX_MENTIONS, parse, split_uri
from turbod.simulation.acts import ACTS
from turbod.simulation.happening import Happening, read_message
from turbod.simulation.identifiers import blob_cid, plc_did, record_cid, tid, time_text
from turbod.simulation.network import LIKE_THE_REAL_ONE, MOSTLY_POSTS, Network
from turbod.simulation.trace import events, record

NOW_US = 1_790_000_000_000_000
BLOB_KEYS = ["$type", "ref", "mimeType", "size"]


def happen(network: Network, count: int, *, step_us: int = 1000) -> list[Happening]:
    return [network.next_event(NOW_US + place * step_us) for place in range(count)]


@pytest.fixture(scope="module")
def happenings() -> list[Happening]:
    # Every act is often enough in this many.
    mix = {name: weight + 1 for name, weight in LIKE_THE_REAL_ONE.items()}
    return happen(Network(accounts=300, mix=mix), 8_000)


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, child in value.items():
            yield from objects(child, f"{path}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from objects(child, f"{path}[]")


def name(event: dict[str, Any]) -> str:
    commit = event.get("commit")
    return f"{commit['collection']} {commit['operation']}" if commit else str(event["kind"])


def test_the_same_seed_and_times_give_the_same_bytes_and_another_seed_others() -> None:
    once, again, other = (
        [happening.message() for happening in happen(Network(seed=seed, accounts=50), 500)]
        for seed in (7, 7, 8)
    )
    assert once == again
    assert not set(once) & set(other)


def test_every_event_passes_the_checks_for_upstream_bytes(happenings: list[Happening]) -> None:
    for happening in happenings:
        event = parse(happening.message())
        assert event.message == happening.message()
        assert event.did == happening.did
        assert event.at_uri == (happening.uri if happening.collection else f"at://{event.did}")


def test_cids_keys_texts_and_identities_are_each_their_own(happenings: list[Happening]) -> None:
    posts = [h for h in happenings if h.collection == "app.bsky.feed.post" and h.record]
    texts = [h.record["text"] for h in posts if h.record]
    cids = [happening.cid for happening in happenings if happening.cid]
    creates = [h.uri for h in happenings if h.operation == "create" and h.rkey != "self"]
    identities = [parse(happening.message()).identity for happening in happenings]
    for unique in (texts, cids, creates, identities):
        assert len(set(unique)) == len(unique)
    assert all(len(cid) == 59 and cid.startswith("bafyrei") for cid in cids)


def test_time_us_rises_strictly_and_a_commit_has_one_rev(happenings: list[Happening]) -> None:
    times = [happening.time_us for happening in happenings]
    assert times == sorted(set(times))
    several = [h for h in happenings if h.commit_us != h.time_us]
    assert several
    for happening in several:
        first = next(h for h in happenings if h.time_us == happening.commit_us)
        assert (first.rev, first.did) == (happening.rev, happening.did)


def test_revs_rise_per_account(happenings: list[Happening]) -> None:
    newest: dict[str, str] = {}
    for happening in happenings:
        if happening.rev:
            assert happening.rev >= newest.get(happening.did, "")
            newest[happening.did] = happening.rev


def test_keys_stand_in_the_order_of_the_production_stream(
    happenings: list[Happening], captures: Path
) -> None:
    captured = [
        json.loads(line)
        for line in (captures / "jetstream-v1/events.jsonl").read_bytes().splitlines()
    ]
    envelopes = {name(event): [list(event), list(event[event["kind"]])] for event in captured}
    checked = 0
    for happening in happenings:
        event = json.loads(happening.message())
        envelope = [list(event), list(event[event["kind"]])]
        if happening.notice:
            kind_keys = [key for key in envelope[1] if key not in {"handle", "status"}]
            assert kind_keys == envelopes[happening.kind][1]
        elif name(event) in envelopes:
            assert envelope == envelopes[name(event)]
            checked += 1
        for _, value in objects(happening.record):
            wanted = BLOB_KEYS if value.get("$type") == "blob" else sorted(value)
            assert list(value) == wanted
    assert checked > 1000


def test_identity_and_account_events_have_the_captured_keys_with_their_options(
    happenings: list[Happening], captures: Path
) -> None:
    captured = (captures / "network-1/events.jsonl").read_bytes().splitlines()
    shapes = {
        (event["kind"], *event[event["kind"]])
        for event in map(json.loads, captured)
        if event["kind"] != "commit"
    }
    made = {(h.kind, *h.notice) for h in happenings if h.notice}
    assert made <= shapes
    assert {kind for kind, *_ in made} == {"identity", "account"}
    assert any("status" in shape for shape in made)


def test_records_have_no_key_that_no_captured_record_has(
    happenings: list[Happening], captured_events: list[bytes]
) -> None:
    known: dict[str, set[str]] = {}
    for line in captured_events:
        record = json.loads(line).get("commit", {}).get("record")
        for path, value in objects(record):
            known.setdefault(f"{record['$type']}{path}", set()).update(value)
    unseen = {
        # In the lexicons, though in none of the captures.
        "app.bsky.actor.profile": {"banner", "pinnedPost", "labels"},
        "app.bsky.actor.profile.labels.values[]": {"val"},
        "app.bsky.feed.post.embed.media.images[]": {"aspectRatio"},
    }
    compared = 0
    for happening in happenings:
        record = happening.record or {}
        for path, value in objects(record):
            place = f"{record.get('$type')}{path}"
            if place in known:
                assert set(value) <= known[place] | unseen.get(place, set()), place
                compared += 1
    assert compared > 5_000


def test_go_escapes_are_printed_and_the_app_view_gets_them_plain() -> None:
    happenings = happen(Network(accounts=50, mix=MOSTLY_POSTS), 2000)
    escaped = [h for h in happenings if b"\\u0026" in h.message()]
    assert escaped
    for happening in happenings:
        assert not set(b"&<>") & set(happening.message())
        assert b"\\u0026" not in happening.record_json
    assert json.loads(escaped[0].message())["commit"]["record"] == escaped[0].record


def test_facets_point_at_the_very_bytes_that_they_are_about(happenings: list[Happening]) -> None:
    kinds: Counter[str] = Counter()
    wide = 0
    for happening in happenings:
        record = happening.record or {}
        data = record.get("text", "").encode()
        for facet in record.get("facets", ()):
            shown = data[facet["index"]["byteStart"] : facet["index"]["byteEnd"]].decode()
            feature = facet["features"][0]
            kinds[feature["$type"]] += 1
            wide += facet["index"]["byteStart"] != record["text"].index(shown)
            match feature:
                case {"tag": tag}:
                    assert shown == f"#{tag}"
                case {"uri": uri}:
                    assert shown.removesuffix("...") in uri
                case {"did": did}:
                    assert shown.startswith("@")
                    assert did.startswith("did:")
    assert len(kinds) == 3
    assert wide, "no facet behind a character of several bytes"


def test_texts_fit_into_a_post(happenings: list[Happening]) -> None:
    for happening in happenings:
        text = (happening.record or {}).get("text", "")
        assert len(text) <= 300
        assert len(text.encode()) <= 3000


def test_replies_name_a_post_that_was_there_and_the_root_of_its_thread(
    happenings: list[Happening],
) -> None:
    roots: dict[str, str] = {}
    depths: Counter[bool] = Counter()
    for happening in happenings:
        if happening.collection != "app.bsky.feed.post" or happening.operation != "create":
            continue
        reply = (happening.record or {}).get("reply")
        if reply:
            parent, root = reply["parent"]["uri"], reply["root"]["uri"]
            assert roots[parent] == root
            depths[parent == root] += 1
        roots[happening.uri] = root if reply else happening.uri
    assert depths[True]
    assert depths[False]


def test_who_is_inactive_does_nothing_until_active_again(happenings: list[Happening]) -> None:
    inactive: set[str] = set()
    statuses = set()
    for happening in happenings:
        if happening.kind == "account" and happening.notice:
            statuses.add(happening.notice.get("status"))
            (inactive.discard if happening.notice["active"] else inactive.add)(happening.did)
        elif happening.kind == "commit":
            assert happening.did not in inactive
    assert statuses == {None, "deactivated", "takendown", "deleted"}


def test_activity_is_very_unequal() -> None:
    counts = Counter(h.did for h in happen(Network(accounts=1000), 20_000))
    busiest = sum(count for _, count in counts.most_common(10))
    assert busiest > 20_000 * 0.3
    assert len(counts) > 500


def test_quotes_are_of_posts_beside_media_and_of_other_things(happenings: list[Happening]) -> None:
    kinds: Counter[str] = Counter()
    for happening in happenings:
        embed = (happening.record or {}).get("embed")
        if embed and "record" in embed:
            beside = embed["$type"].endswith("WithMedia")
            uri = (embed["record"]["record"] if beside else embed["record"])["uri"]
            parts = split_uri(uri)
            assert parts
            kinds[f"{parts[1]} {beside}"] += 1
    assert len(kinds) == 6
    assert kinds["app.bsky.feed.post True"]


def test_every_act_can_be_made_to_happen() -> None:
    network = Network(accounts=100)
    happen(network, 500)
    for act in ACTS:
        told = [h for _ in range(8) for h in network.act(act, NOW_US + 10_000_000)]
        assert told, act


def test_posts_that_are_forgotten_are_answered_no_more() -> None:
    network = Network(accounts=50, posts_kept=20, mix={"post": 1, "reply": 3})
    created: list[str] = []
    for happening in happen(network, 2000):
        reply = (happening.record or {}).get("reply")
        if reply:
            assert reply["parent"]["uri"] in created[-21:]
        if happening.collection == "app.bsky.feed.post":
            created.append(happening.uri)


def test_identifiers_have_the_published_forms() -> None:
    """Examples from atproto's specs of TID and from the multiformats' CIDv1."""
    assert tid(0) == "2222222222222"
    assert tid((1 << 53) - 1, clock=1023) == "bzzzzzzzzzzzz"
    assert tid(1_783_175_888_085_434) < tid(1_783_175_888_085_435)
    assert record_cid(b"").startswith("bafyrei")
    assert blob_cid(b"").startswith("bafkrei")
    assert len(record_cid(b"x")) == len(blob_cid(b"x")) == 59
    assert plc_did("1") != plc_did("2")
    assert time_text(1_783_175_888_085_434) == "2026-07-04T14:38:08.085Z"


@pytest.mark.parametrize("mix", [LIKE_THE_REAL_ONE, MOSTLY_POSTS])
def test_both_mixes_name_acts_that_exist(mix: dict[str, float]) -> None:
    assert set(mix) == set(ACTS) - {"mention_thousands", "write_hugely"}


def test_heavy_posts_are_events_and_huge_records_are_refused() -> None:
    network = Network(accounts=20)
    crowd = parse(network.act("mention_thousands", NOW_US)[0].message())
    assert len(crowd.references.mentions) == MAX_MENTIONS
    with pytest.raises(Malformed, match="size"):
        parse(network.act("write_hugely", NOW_US)[0].message())


def test_a_recorded_trace_is_the_same_each_time_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert record(path, 3, 100) == 300
    lines = path.read_bytes().splitlines()
    assert lines == list(events(seconds=3, rate=100))
    times = [parse(line).time_us for line in lines]
    assert times[0] == NOW_US
    assert 2_900_000 < times[-1] - times[0] < 3_000_000
    for line in lines:
        again = read_message(line)
        assert again.message() == line
        assert again.record_json == b"" or json.loads(again.record_json) == again.record
