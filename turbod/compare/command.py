"""Two streams side by side: which is ahead, what only one has, what is wrong with either.

Each URL is a turbod's (ws://HOST:PORT) or a plain Jetstream's (wss://HOST/subscribe); filters may
stand in it. A turbod that asks for a token gets TURBOD_TOKEN. The exit code is 0 where they are
alike, 1 where they could not be compared, 2 for a wrong option, 3 where they differ.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

import trio

from turbod import bearer, log_output
from turbod.client.stream import BadAddress, first
from turbod.client.wanted import wanted
from turbod.compare.comparison import SETTLE_SECONDS, Comparison, Side
from turbod.compare.output import Lines, Output, Screen
from turbod.compare.streams import Source, Unreachable, asked_url, kind_of
from turbod.compare.verdicts import NOT_COMPARED, exit_code
from turbod.config import ConfigError
from turbod.filter import InvalidRequest
from turbod.redaction import redacted

TICK_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.1
WINDOW_SECONDS: Final = 30.0
MOST_SECONDS: Final = 10_000_000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "urls", metavar="URL", nargs=2, help="ws://HOST:PORT or wss://.../subscribe"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help="compare so many seconds of events, then wait for what one of them still owes; "
        "without it, until Ctrl-C",
    )
    parser.add_argument(
        "--window",
        type=_seconds,
        default=WINDOW_SECONDS,
        metavar="N",
        help=f"an event is missing after so many seconds (default {WINDOW_SECONDS:.0f})",
    )
    parser.add_argument(
        "--collections",
        action="append",
        default=[],
        metavar="NSID",
        help="only these of the commits, or prefixes ending .*; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="one object every 5 s, and at the end")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"was {text!r}: expected a number of seconds from 1 on")
    return seconds


async def run(options: argparse.Namespace) -> int:
    """Compare until interrupted, or for as long as asked; return the exit code.

    Raises:
        ConfigError: a URL, a collection or the token is none.
    """
    token = bearer.from_environment(os.environ)
    try:
        wanted(collections=options.collections)
        urls = [asked_url(url, options.collections) for url in options.urls]
    except (BadAddress, InvalidRequest) as error:
        raise ConfigError(str(error)) from None
    comparison = Comparison(
        [Side(redacted(url), kind_of(url)) for url in urls],
        window_seconds=options.window,
        settle_seconds=SETTLE_SECONDS,
    )
    sources = [Source(url, comparison, which, token=token) for which, url in enumerate(urls)]
    output: Output = Lines() if options.json else Screen()
    code = NOT_COMPARED
    try:
        code = await _compare(comparison, sources, options.seconds, output)
    except* Unreachable as group:
        log_output.say(f"turbod: {first(group)}")
    except* OSError as group:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if group.subgroup(BrokenPipeError) is None:  # else whoever read us has enough
            log_output.say(f"turbod: standard output: {first(group)}")
    return code


async def _compare(
    comparison: Comparison, sources: Sequence[Source], seconds: float | None, output: Output
) -> int:
    """Compare until a signal comes, or for as long as asked; return the exit code."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(source.run)
            nursery.start_soon(_stop_at, signals, nursery.cancel_scope)
            for source in sources:
                await source.reached.wait()
            comparison.begin(trio.current_time())
            with output:
                nursery.start_soon(_show, comparison, output)
                await _enough(comparison, seconds)
            nursery.cancel_scope.cancel()
    report = comparison.report(trio.current_time())
    if not all(source.reached.is_set() for source in sources):
        return NOT_COMPARED
    output.finish(report)
    return exit_code(report)


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _show(comparison: Comparison, output: Output) -> None:
    while True:
        now = trio.current_time()
        comparison.tick(now)
        output.show(comparison.report(now))
        await trio.sleep(TICK_SECONDS)


async def _enough(comparison: Comparison, seconds: float | None) -> None:
    """Wait until so much was compared, and nothing of it is waited for any more."""
    asked = math.inf if seconds is None else seconds
    while trio.current_time() < comparison.ends_at(asked):  # noqa: ASYNC110 - it moves
        await trio.sleep(LOOK_SECONDS)
    comparison.close(trio.current_time())
    while comparison.pairing.pending:  # judged by the clock, not by an event
        await trio.sleep(LOOK_SECONDS)
        comparison.pairing.judge(trio.current_time())
