"""Metrics of connections and subscribers."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from turbod.histogram import Distribution
from turbod.report.families import counter, counters, gauge, gauges, histogram
from turbod.server.server import ServerStatistics


def server_families(server: ServerStatistics) -> Iterator[Metric]:
    """Yield them all."""
    yield from _connection_families(server)
    yield from _subscriber_families(server)


def _connection_families(server: ServerStatistics) -> Iterator[Metric]:
    yield gauge("turbod_connections", "Open connections.", server.connections)
    yield gauge("turbod_handshakes", "Those without a whole request.", server.handshakes)
    yield counter("turbod_answers", "Plain requests answered.", server.answered)
    text = "Requests refused, by the name of the error."
    yield counters("turbod_refused", text, "error", server.refused)
    text = "Of trusted proxies, without the client's address."
    yield counter("turbod_untold_clients", text, server.untold)
    yield counter("turbod_resets", "Clients reset: stuck, or holding too much.", server.resets)
    yield counter("turbod_connection_errors", "Mistakes of our own.", server.errors)
    text = "Connections open with a token, by its name."
    yield gauges("turbod_token_connections", text, "token", server.tokens)
    yield counter("turbod_wrong_tokens", "Wrong tokens sent.", server.wrong_tokens)


def _subscriber_families(server: ServerStatistics) -> Iterator[Metric]:
    places = {"memory": server.in_memory, "disk": server.on_disk}
    text = "Subscribers, by where their next record lies."
    yield gauges("turbod_subscribers", text, "reading", places)
    text = "Subscribers that are behind the newest record by so many seconds or more."
    yield gauges("turbod_subscribers_behind", text, "seconds", _at_least(server.behind_seconds))
    text = "How far the last of them is."
    yield gauge("turbod_subscriber_farthest_behind_seconds", text, server.farthest_behind_seconds)
    text = "From publishing records to having sent them, sampled."
    yield histogram("turbod_delivery_seconds", text, server.delivery_seconds)
    text = "Connections that are served from objects."
    yield gauge("turbod_archive_readers", text, server.archive_readers)
    text = "For which reading history held the event loop."
    yield counter("turbod_history_seconds", text, server.history_seconds)
    yield counter("turbod_messages_sent", "WebSocket messages.", server.messages)
    yield counter("turbod_records_sent", "Records in them.", server.records)
    yield counter("turbod_bytes_sent", "Their bytes.", server.bytes)
    yield gauge("turbod_filter_dids", "DIDs in all filters.", server.filter_dids)


def _at_least(behind: Distribution) -> dict[str, float]:
    """Return how many are behind by each bound or more."""
    pairs = zip(behind.bounds, behind.cumulative[:-1], strict=True)
    return {f"{bound:g}": behind.count - below for bound, below in pairs}
