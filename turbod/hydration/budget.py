"""When the next call may be made: the server's word on rate, pauses, and our own setting. Pure.

Times called `now` are seconds of a clock that only rises; `wall` is Unix time.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from turbod.backoff import Backoff

LONGEST_PAUSE_SECONDS: Final = 600.0  # whatever a header says: a slip there must not stop us
SHORTEST_PAUSE_SECONDS: Final = 0.5  # `Retry-After: 0` would be a busy loop
BURST_SECONDS: Final = 1.0  # what may be saved up, in seconds of the rate, one call at least
SLOWEST_CALLS_PER_SECOND: Final = 0.05
_RECOVERY_PER_SUCCESS = 1 / 200  # of the full rate: half of it comes back in 100 calls
_SMALLEST_SHARE = 1 / 64
_RESERVE_SHARE = 0.02  # of a window, left for others behind the same address
_MOST_RESERVE = 5

_NUMBER = re.compile(r"\s*(\d{1,15})(?:\.\d*)?\s*", re.ASCII).fullmatch
_WINDOW = re.compile(r";\s*w\s*=\s*(\d{1,9})", re.ASCII).search


class Allowance(msgspec.Struct, frozen=True):
    """What RateLimit headers say: calls left, seconds until more, calls and seconds of a window.

    `reset_seconds` is from the answer's own Date where it has one, so that two clocks that
    disagree do no harm; it is never more than the window.
    """

    limit: int
    remaining: int
    reset_seconds: float
    window_seconds: float | None


class Budget:
    """One bucket of calls, filled at the rate that holds.

    The rate is what the server's headers allow, spread over the rest of its window, while they are
    current; else the setting. An unspent window is not plenty: the rate never passes limit /
    window. Answers of 429 pause all calls, and where no headers explain them halve the rate, which
    then recovers step by step.

    Attributes:
        calls_per_second: the setting; it may be changed.
    """

    def __init__(
        self, calls_per_second: float, *, now: float = 0.0, backoff: Backoff | None = None
    ) -> None:
        self.calls_per_second = calls_per_second
        self._backoff = backoff or Backoff(first_seconds=1, longest_seconds=30)
        self._share = 1.0
        self._allowance: Allowance | None = None
        self._spendable = 0.0  # of the server's window
        self._reset_at = 0.0
        self._paused_until = 0.0
        self._refused_at = -1.0
        self._tokens = 1.0  # a start that finds a full bucket would take it for plenty
        self._filled_at = now

    @property
    def paused_until(self) -> float:
        """The time before which no call is made, whatever the rate."""
        return self._paused_until

    @property
    def reset_at(self) -> float:
        """When the server's window ends, by its last word."""
        return self._reset_at

    @property
    def limits(self) -> Allowance | None:
        """The last RateLimit headers, None where there never were any."""
        return self._allowance

    def rate(self, now: float) -> float:
        """Return the calls a second that hold now."""
        allowance = self._allowance
        if allowance is None:
            return max(SLOWEST_CALLS_PER_SECOND, self.calls_per_second * self._share)
        window = allowance.window_seconds
        fair = allowance.limit / window if window else self.calls_per_second
        if now < self._reset_at:
            left = self._spendable - _reserve(allowance)
            fair = min(fair, left / max(self._reset_at - now, 1.0))
        return max(SLOWEST_CALLS_PER_SECOND, fair * self._share)

    def next_at(self, now: float) -> float:
        """Return when the next call may be made, in the past where it is already."""
        self._fill(now)
        wait = (1.0 - self._tokens) / self.rate(now)
        return max(now + wait, self._paused_until)

    def spend(self, now: float) -> None:
        """Count a call that is made now."""
        self._fill(now)
        self._tokens -= 1.0
        self._spendable -= 1.0

    def heard(self, now: float, *, headers: Mapping[str, str], wall: float, flying: int) -> None:
        """Take in the headers of an answer, whatever its status.

        Args:
            now: when it came.
            headers: by name, in lower case or in a mapping that does not mind.
            wall: Unix time, used where the answer has no Date.
            flying: other calls under way, which these headers may not have counted.
        """
        allowance = read_allowance(headers, wall)
        if allowance is None:
            return
        self._fill(now)
        self._allowance = allowance
        self._reset_at = now + min(allowance.reset_seconds, LONGEST_PAUSE_SECONDS)
        self._spendable = float(allowance.remaining - flying)
        self._tokens = min(self._tokens, self._burst(now))
        if allowance.remaining <= 0 and allowance.limit > 0:
            self._paused_until = max(self._paused_until, self._reset_at)

    def succeeded(self) -> None:
        """Count an answer that was no refusal: a lowered rate recovers by a step."""
        self._share = min(1.0, self._share + _RECOVERY_PER_SUCCESS)
        self._backoff.reset()

    def refused(
        self, now: float, *, headers: Mapping[str, str], wall: float, sent_at: float
    ) -> None:
        """Count a 429, after `heard`. Several for calls sent before the first count as one."""
        told = read_retry_after(headers, wall)
        allowance = read_allowance(headers, wall)
        again = sent_at <= self._refused_at
        if told is None and allowance is not None and allowance.remaining <= 0:
            told = allowance.reset_seconds
        if told is not None:
            pause = min(max(told, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        elif again:
            return
        else:
            pause = self._backoff.next_seconds()
        self._paused_until = max(self._paused_until, now + pause)
        self._tokens = min(self._tokens, 1.0)
        if not again:
            self._refused_at = now
            if allowance is None:
                self._share = max(_SMALLEST_SHARE, self._share / 2)

    def _fill(self, now: float) -> None:
        passed, self._filled_at = max(0.0, now - self._filled_at), max(now, self._filled_at)
        self._tokens = min(self._burst(now), self._tokens + passed * self.rate(now))

    def _burst(self, now: float) -> float:
        return max(1.0, self.rate(now) * BURST_SECONDS)


def read_allowance(headers: Mapping[str, str], wall: float) -> Allowance | None:
    """Read RateLimit-Limit, -Remaining, -Reset (Unix seconds) and -Policy as the PDS sends them.

    None where they are absent or not numbers: then nothing was said.
    """
    limit = _number(headers.get("ratelimit-limit"))
    remaining = _number(headers.get("ratelimit-remaining"))
    reset = _number(headers.get("ratelimit-reset"))
    if not limit or remaining is None or reset is None:
        return None
    policy = _WINDOW(headers.get("ratelimit-policy", ""))
    window = float(policy[1]) if policy and int(policy[1]) else None
    sent = _http_date(headers.get("date"))
    left = max(0.0, reset - (wall if sent is None else sent))
    if window is not None:
        left = min(left, window)
    return Allowance(limit, min(remaining, limit), left, window)


def read_retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3), delta seconds or date, as seconds from now."""
    text = headers.get("retry-after")
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        return float(number)
    date = _http_date(text)
    if date is None:
        return None
    sent = _http_date(headers.get("date"))
    return max(0.0, date - (wall if sent is None else sent))


def _reserve(allowance: Allowance) -> float:
    return min(_MOST_RESERVE, allowance.limit * _RESERVE_SHARE)


def _number(text: str | None) -> int | None:
    match = _NUMBER(text) if text is not None else None
    return int(match[1]) if match else None


def _http_date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
