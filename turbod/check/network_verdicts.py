"""What it means, how others are: clocks, Jetstream hosts, the AppView, the archive. Pure."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from turbod.amounts import span
from turbod.archive.upload.identity import Identity
from turbod.check.finding import Finding, Mark, fault, ok, warning
from turbod.hydration.budget import Allowance

# A cursor is never further ahead of our clock than that (docs/protocol.md), so with a clock that is
# further off it is not about the time of its event.
MOST_CLOCK_SECONDS: Final = 5.0
LATE_SECONDS: Final = 60.0  # behind now: a host that is itself behind


class ClockSeen(msgspec.Struct, frozen=True):
    """Our clock less a server's, which tells only whole seconds: somewhere between these."""

    server: str
    least: float
    most: float

    @property
    def is_off(self) -> bool:
        """Whether it is further off than may be."""
        return self.least > MOST_CLOCK_SECONDS or self.most < -MOST_CLOCK_SECONDS

    @property
    def words(self) -> str:
        """How far it is off, at least."""
        if self.least <= 0 <= self.most:
            return f"agrees with {self.server}"
        ahead = self.least > 0
        seconds = self.least if ahead else -self.most
        return f"{span(seconds)} {'ahead of' if ahead else 'behind'} {self.server}"


def judge_clock(seen: Sequence[ClockSeen], *, is_synchronised: bool | None) -> list[Finding]:
    """Return whether cursors would be about the time of their events."""
    found = ", ".join(each.words for each in seen)
    off = [each for each in seen if each.is_off]
    todo = "let it be set by NTP: timedatectl set-ntp true, or chrony"
    if off and len(off) == len(seen):
        return [fault("clock", found, f"cursors would be wrong: {todo}")]
    if off:
        return [warning("clock", found, "they disagree: see which of them is wrong")]
    if is_synchronised is False:
        found = ", ".join(
            part for part in (found, "nothing keeps it right (the kernel says)") if part
        )
        return [warning("clock", found, todo)]
    if not seen:
        return [warning("clock", "no server tells the time", "compare it with another clock")]
    return [ok("clock", found)]


class HostSeen(msgspec.Struct, frozen=True):
    """One Jetstream host.

    Attributes:
        url: as the settings have it.
        trouble: at what it failed, or None.
        words: how, as the connection says it.
        connect_seconds: until it was upgraded.
        waited_seconds: for an event, once connected.
        lag_seconds: our clock less the stamp of its first event; None where none came.
        malformed: messages that are no events.
    """

    url: str
    trouble: Literal["name", "connect", "tls", "upgrade", "after"] | None = None
    words: str = ""
    connect_seconds: float = 0.0
    waited_seconds: float = 0.0
    lag_seconds: float | None = None
    malformed: int = 0


_TODO_FOR_HOST: Final = {
    "name": "correct the name in --upstream, or this machine's DNS (/etc/resolv.conf)",
    "connect": "see whether a firewall or a proxy is between, or whether the host is down",
    "tls": "correct the name in --upstream, or install ca-certificates; a proxy may interfere",
    "upgrade": "correct the path in --upstream (/subscribe), or wait where it asks for that",
    "after": "turbod would connect again and again; ask who runs it",
}


def judge_hosts(seen: Sequence[HostSeen]) -> list[Finding]:
    """Return a line a host: one of several may be away, since every host has all events."""
    away: Mark = "fault" if all(host.trouble for host in seen) else "warning"
    return [_judge_host(host, away) for host in seen]


def _judge_host(host: HostSeen, away: Mark) -> Finding:
    if host.trouble is not None:
        return Finding("upstream", away, f"{host.url}: {host.words}", _TODO_FOR_HOST[host.trouble])
    found = f"{host.url}: connected in {host.connect_seconds:.2f} s"
    lag = host.lag_seconds
    if lag is None:
        what = f"{host.malformed} messages, none an event" if host.malformed else "no event"
        found += f", {what} within {span(host.waited_seconds)}"
        todo = "it may be stuck, or the collections be quiet: turbod would wait"
        return warning("upstream", found, todo)
    if lag > LATE_SECONDS:
        return warning("upstream", f"{found}, {span(lag)} behind", "wait until it has caught up")
    if lag < -MOST_CLOCK_SECONDS:
        found += f", its events are {span(-lag)} ahead of this machine's clock"
        return warning("upstream", found, "see what is said of the clock")
    return ok("upstream", f"{found}, first event after {host.waited_seconds:.2f} s")


class CallSeen(msgspec.Struct, frozen=True):
    """One call of the AppView.

    Attributes:
        what: profiles or posts.
        seconds: until the answer was there.
        status: of the answer; 0 where there was none.
        words: why there was none, or why it is none of an AppView's; else empty.
        allowance: what its RateLimit headers say.
    """

    what: str
    seconds: float
    status: int
    words: str = ""
    allowance: Allowance | None = None


_TOO_MANY: Final = 429


def judge_appview(url: str, calls: Sequence[CallSeen], *, calls_per_second: float) -> list[Finding]:
    """Return whether views could be had."""
    bad = next((call for call in calls if call.words), None)
    if bad is None:
        took = ", ".join(f"{call.what} in {call.seconds:.2f} s" for call in calls)
        return [ok("appview", f"{url}: {took}; {_budget(calls, calls_per_second)}")]
    found = f"{url}: no {bad.what}: {bad.words}"
    if bad.status == _TOO_MANY:
        todo = "turbod would wait: does another client, or a running turbod, use this address?"
        return [warning("appview", found, todo)]
    todo = "correct --appview, or wait: until then events would have null in place of views"
    return [fault("appview", found, todo)]


def _budget(calls: Sequence[CallSeen], calls_per_second: float) -> str:
    allowance = next((call.allowance for call in reversed(calls) if call.allowance), None)
    if allowance is None:
        return f"it names no budget, so {calls_per_second:g} calls a second by the settings"
    window = f" in {span(allowance.window_seconds)}" if allowance.window_seconds else ""
    return f"budget {allowance.limit} calls{window}, {allowance.remaining} left"


class ArchiveSeen(msgspec.Struct, frozen=True):
    """The archive.

    Attributes:
        url: where it is.
        trouble: why it cannot be read or written, in words that say what to do; else empty.
        exists: else it is to be made.
        identity: what it says of itself, None where it says nothing yet.
        own: the id of the data folder, None where it has none yet.
        may_take_over: the data folder has neither an id nor an hour.
        honours_conditions: whether two writers cannot overwrite each other; None for folders.
        left: what the trial could not delete again; else empty.
    """

    url: str
    trouble: str = ""
    exists: bool = True
    identity: Identity | None = None
    own: str | None = None
    may_take_over: bool = False
    honours_conditions: bool | None = None
    left: str = ""


def judge_archive(seen: ArchiveSeen) -> list[Finding]:
    """Return whether finished hours could go there."""
    if seen.trouble:
        return [fault("archive", seen.trouble, "until then hours wait on this disk")]
    first = _judge_owner(seen)
    more = []
    if seen.left:
        todo = "delete it yourself, or grant s3:DeleteObject, which turbod uses for nothing else"
        more.append(warning("archive", f"{seen.url}: cannot delete {seen.left}", todo))
    return [first, *more]


def _judge_owner(seen: ArchiveSeen) -> Finding:
    writer = seen.identity.instance if seen.identity else None
    if writer is None:
        what = "nobody's yet" if seen.exists else "to be made"
        return ok("archive", f"{seen.url}: {what}, writable{_conditions(seen)}")
    if writer == seen.own:
        return ok("archive", f"{seen.url}: ours ({writer}), writable{_conditions(seen)}")
    if seen.own is None and seen.may_take_over:
        found = f"{seen.url}: that of the turbod {writer}, in whose place this one would go on"
        return warning("archive", found, "see that the other one runs no longer")
    found = f"{seen.url}: that of the turbod {writer}, this one is {seen.own or 'another'}"
    todo = "name a place of its own with --archive, or start with an empty --data to replace it"
    return fault("archive", found, todo)


def _conditions(seen: ArchiveSeen) -> str:
    if seen.honours_conditions is None:
        return ""
    return (
        ", conditional writes honoured"
        if seen.honours_conditions
        else ", conditional writes not honoured, so turbod looks before it writes"
    )
