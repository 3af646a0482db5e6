"""A program that follows servers with the library and keeps all that it gets."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from turbod.client import Gap, Progress, Record, Records, Status, follow


class Program:
    """Attributes: what the program was given, in order."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.items: list[Record | Gap] = []
        self.gaps: list[Gap] = []
        self.progress: list[Progress] = []
        self.statuses: list[Status] = []
        self.records: Records | None = None
        self.go = trio.Event()
        self.go.set()

    @property
    def keys(self) -> list[str]:
        """The record keys of the posts that it got."""
        messages = [item.message for item in self.items if isinstance(item, Record)]
        return [message["commit"]["rkey"] for message in messages if "commit" in message]

    @property
    def cursor(self) -> str:
        """What it would save."""
        assert self.records is not None
        return self.records.cursor

    @property
    def words(self) -> list[str]:
        """What it was told of its servers."""
        return [status.words for status in self.statuses]

    def take_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self.items.append(gap)

    async def run(self, servers: str | Sequence[str], **options: Any) -> None:
        """Take records until cancelled."""
        async with follow(
            servers,
            on_gap=self.take_gap,
            on_progress=self.progress.append,
            on_status=self.statuses.append,
            **options,
        ) as self.records:
            async for record in self.records:
                self.lines.append(record.line)
                self.items.append(record)
                await self.go.wait()


@asynccontextmanager
async def running(servers: str | Sequence[str], **options: Any) -> AsyncIterator[Program]:
    """Run a program for as long as the block lasts."""
    program = Program()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: program.run(servers, **options))
        yield program
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait until something is so."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of what is looked at
            await trio.sleep(0.005)
