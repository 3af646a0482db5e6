"""What one client is sent: records, and words about its connection."""

from collections.abc import Mapping
from typing import Any, Final

import trio

from turbod.eventlog.chunk import Gap
from turbod.server import news
from turbod.server.packing import Frames, View
from turbod.server.services import Services
from turbod.server.websocket import WebSocket

PROGRESS_SECONDS: Final = 5.0  # between two `#cursor` during history
HEARTBEAT_SECONDS: Final = 15.0  # without another message


class Voice:
    """Sends on one connection, whose words are as `view` has them; with metadata, or in pings."""

    def __init__(
        self, websocket: WebSocket, services: Services, *, view: View, metadata: bool
    ) -> None:
        self._websocket = websocket
        self._services = services
        self._view = view
        self._metadata = metadata
        self._last_message = self._last_cursor = trio.current_time()
        self._told_before = 0  # the end of the last gap that it was told of

    def is_beat_due(self, now: float) -> bool:
        """Tell whether nothing was sent for too long."""
        return now >= self._last_message + HEARTBEAT_SECONDS

    async def records(self, records: Frames) -> None:
        """Send frames of records."""
        await self._send(*records.parts, messages=records.messages)
        self._services.traffic.records += records.records

    async def beat(self, position: int, *, is_live: bool) -> None:
        """Send a heartbeat."""
        if self._metadata:
            await self.cursor("heartbeat", position, is_live=is_live)
        else:
            await self._websocket.ping()
            self._last_message = trio.current_time()

    async def progress(self, position: int, *, is_live: bool) -> None:
        """Say where it stands if that is due during history."""
        now = trio.current_time()
        if not self._metadata:
            if self.is_beat_due(now):
                await self.beat(position, is_live=is_live)
        elif now >= self._last_cursor + PROGRESS_SECONDS:
            await self.cursor("progress", position, is_live=is_live)

    async def cursor(self, reason: news.Reason, position: int, *, is_live: bool) -> None:
        """Say where it stands."""
        if self._metadata:
            await self.say(news.cursor(reason, self._standing(position, is_live=is_live)))
            self._last_cursor = self._last_message

    async def gap(self, gap: Gap | None, position: int) -> None:
        """Tell of a gap, if there is one, that ends above its position, once."""
        if gap is not None and gap.before > max(position, self._told_before):
            self._told_before = gap.before
            await self.say(news.gap(gap))

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send something about the connection to a client that wants to hear of it."""
        if self._metadata:
            await self._send(self._view.frame(self._view.framing.news(message)))

    def _standing(self, position: int, *, is_live: bool) -> news.Standing:
        log, services = self._services.log, self._services
        events_behind = log.events_behind(position)
        return news.Standing(
            cursor=position,
            head=log.head,
            floor=log.floor,
            now_us=services.now_us(),
            live=is_live and events_behind is not None,  # it may lag since it was live
            upstream=services.upstream_state(),
            events_behind=events_behind,
            events_per_minute=log.events_per_minute,
        )

    async def _send(self, *parts: bytes, messages: int = 1) -> None:
        await self._websocket.send(*parts)
        self._last_message = trio.current_time()
        traffic = self._services.traffic
        traffic.messages += messages
        traffic.bytes += sum(map(len, parts))
