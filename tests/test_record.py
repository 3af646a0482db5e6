import json

import pytest

from turbod.envelope import Malformed
from turbod.event import parse
from turbod.exclusion import Exclusion
from turbod.filter import Filter
from turbod.record import Head, Record, head_of_line, head_or_nobody, read_line


def test_a_line_gives_back_its_cursor_event_and_head(captured_events: list[bytes]) -> None:
    for message in captured_events:
        event = parse(message)
        body = b',"at_uri":"x","did":"y","time_us":1,"message":%b,"hydrated_metadata":{}}' % message
        record = Record(event, body, 1)
        line = record.line(1745342977546824)
        assert line.startswith(b'{"cursor":1745342977546824,"at_uri":')
        assert json.loads(line)["message"] == json.loads(message)
        assert read_line(line) == (1745342977546824, event)
        assert head_of_line(line) == record.head(1745342977546824)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"cursor":1}', b"\0" * 10, b'{"cursor":1,"message":{}}']
)
def test_what_is_no_whole_record_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        read_line(line)


def test_a_line_that_is_no_record_comes_from_nobody_so_that_no_filter_fails_over_it() -> None:
    line = b'{"cursor":1745342977546824,"at_uri":"x","message":{"kind":"commiu"}}'
    assert head_or_nobody(line) == Head(1745342977546824, "", "", "", "", ())
    assert Filter().matches(head_or_nobody(line), len(line))
    assert not Filter(dids=frozenset({"did:web:x.example"})).matches(head_or_nobody(line), 10)


def test_what_cannot_be_judged_is_withheld() -> None:
    exclusion = Exclusion()
    exclusion.change(frozenset({"did:web:x.example"}))
    line = b'{"cursor":1745342977546824,"message":{"kind":"commiu"},"by":"did:web:x.example"}'
    assert exclusion.withhold(head_or_nobody(line), line) is None
