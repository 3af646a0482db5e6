"""turbod as a service: signals, systemd, and an orderly end of the daemon."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from turbod import data_folder, log_output, report, systemd
from turbod.config import ConfigError, Settings
from turbod.daemon import Daemon
from turbod.listeners import open_listeners
from turbod.redaction import redacted
from turbod.start import CannotStart

STANDARD_INPUT: Final = 0

STATUS_SECONDS: Final = 5.0  # between two looks at how we are
EXTENSION_SECONDS: Final = 30.0  # asked for with each look until we are ready, and in the end
LONGEST_START_SECONDS: Final = 3600.0  # after which systemd may draw its conclusions
FEEDS_PER_DEADLINE: Final = 4  # of the watchdog

log = structlog.get_logger()


async def serve(settings: Settings, load: Callable[[], Settings]) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code; at SIGHUP read the settings again.

    Args:
        settings: what `load` returned; changed in place where a reload finds others.
        load: reads them.

    Raises:
        CannotStart: before anything was begun.
    """
    data = Path(settings.data)
    with (
        data_folder.held(data),
        _signals() as signals,
        closing(systemd.Notifier(os.environ)) as notifier,
        closing(Daemon(settings, data)) as daemon,
    ):
        listeners = await open_listeners(settings.listen, os.environ)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_output.run)
            nursery.start_soon(daemon.run, listeners)
            number = await _until_signal(signals, notifier, daemon, load)
            log.info("stopping", signal=signal.Signals(number).name)
            nursery.start_soon(_now_at_second_signal, signals, nursery.cancel_scope)
            seconds = settings.server.shutdown_seconds
            nursery.start_soon(_tell_stopping, notifier, seconds)
            with trio.move_on_after(seconds):
                await daemon.stop()
            nursery.cancel_scope.cancel()
    log.info("stopped", in_time=daemon.stopped)
    return 0 if daemon.stopped else 128 + number


@contextmanager
def _signals() -> Iterator[AsyncIterator[int]]:
    """Hear signals; a SIGHUP from before is among them, and one behind this is no end either.

    It would hide the exit code: systemd does not start again what a SIGHUP ended.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)  # what the receiver does not hand out comes here
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            yield signals
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def _until_signal(
    signals: AsyncIterator[int],
    notifier: systemd.Notifier,
    daemon: Daemon,
    load: Callable[[], Settings],
) -> int:
    """Tell systemd how we are until a signal says to stop; return its number."""
    ask, asked = trio.open_memory_channel[None](1)  # while one is under way, one more is enough
    had_terminal = os.isatty(STANDARD_INPUT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, notifier, daemon)
        nursery.start_soon(_reload_when_asked, asked, notifier, daemon, load)
        async for number in signals:
            # A terminal that is closed says so by the same signal.
            if number != signal.SIGHUP or (had_terminal and not os.isatty(STANDARD_INPUT)):
                break
            with suppress(trio.WouldBlock):
                ask.send_nowait(None)
        nursery.cancel_scope.cancel()
    return number


async def _reload_when_asked(
    asked: trio.MemoryReceiveChannel[None],
    notifier: systemd.Notifier,
    daemon: Daemon,
    load: Callable[[], Settings],
) -> None:
    async for _ in asked:
        is_ready = daemon.is_ready.is_set()  # before that, READY=1 would say more than is true
        if is_ready:
            notifier.reloading()
        words = await _reload(daemon, load)
        if is_ready:
            notifier.ready(words)


async def _reload(daemon: Daemon, load: Callable[[], Settings]) -> str:
    """Let the daemon read its settings again; return in words what came of it."""
    try:
        found = await daemon.reload(load)
    except (ConfigError, CannotStart) as error:
        words = redacted(str(error))
        log.error("reload_refused", error=words, todo="correct it; what was set before holds")  # noqa: TRY400 - it is no fault of ours
        return f"Nothing was reloaded: {words}"
    for_restart = [*found.needs_restart, *_credentials()]
    changed, waiting = (", ".join(keys) or "none" for keys in (found.changed, for_restart))
    log.info("reloaded", changed=changed, needs_restart=waiting)
    return f"Reloaded; changed: {changed}; needs a restart: {waiting}"


def _credentials() -> Iterator[str]:
    """Name those that were passed: systemd does so once, so that a reload finds them unchanged."""
    with suppress(OSError):
        for name in ("s3", "tokens"):
            if systemd.credential(os.environ, name):
                yield f"credential {name} if it changed"


async def _tell(notifier: systemd.Notifier, daemon: Daemon) -> None:
    if notifier.is_heard:
        await _tell_starting(notifier, daemon)
        notifier.ready(report.summary(daemon.snapshot()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell_status, notifier, daemon)
            nursery.start_soon(_feed_watchdog, notifier, daemon)


async def _tell_starting(notifier: systemd.Notifier, daemon: Daemon) -> None:
    """Return once subscribers can be served; until then ask for more time, but not for ever."""
    notifier.status("Repairing the log, and asking what is in the archive")
    with trio.move_on_after(LONGEST_START_SECONDS):
        await _until(daemon.is_ready, lambda: notifier.extend(EXTENSION_SECONDS))
    await daemon.is_ready.wait()


async def _until(event: trio.Event, act: Callable[[], None]) -> None:
    """Act at once, and again and again until the event."""
    while not event.is_set():
        act()
        with trio.move_on_after(STATUS_SECONDS):
            await event.wait()


async def _tell_status(notifier: systemd.Notifier, daemon: Daemon) -> None:
    while True:
        await trio.sleep(STATUS_SECONDS)
        notifier.status(report.summary(daemon.snapshot()))


async def _feed_watchdog(notifier: systemd.Notifier, daemon: Daemon) -> None:
    """Feed it while all tasks go on: what the network does is no reason to be restarted."""
    seconds = systemd.watchdog_seconds(os.environ, pid=os.getpid())
    while seconds is not None:
        if not daemon.heartbeats.late(trio.current_time()):
            notifier.alive()
        await trio.sleep(seconds / FEEDS_PER_DEADLINE)


async def _tell_stopping(notifier: systemd.Notifier, seconds: float) -> None:
    """Say that we end, and ask for the time that it may take; a disk may hang for longer."""
    notifier.stopping("Stopping: finishing what is under way, and saying goodbye to subscribers")
    with trio.move_on_after(seconds):
        while True:
            notifier.extend(EXTENSION_SECONDS)
            notifier.alive()
            await trio.sleep(STATUS_SECONDS)


async def _now_at_second_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    number = await anext(signals)
    while number == signal.SIGHUP:  # nothing is read again any more
        number = await anext(signals)
    log.warning("stopping_now", signal=signal.Signals(number).name)
    scope.cancel()
