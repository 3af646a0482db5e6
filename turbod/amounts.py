"""Sizes and lengths of time in words, for people. Pure."""

from typing import Final

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_FEW: Final = 10  # with fewer the next smaller unit says something

_SIZES: Final = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_SPANS: Final = ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s"))


def size(count: float) -> str:
    """Return a number of bytes with three digits: `3.21 GB`."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `3 d 4 h`, `35 min`, `0.4 s`."""
    for unit, name, smaller, smaller_name in _SPANS:
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            more = f" {rest // smaller} {smaller_name}" if rest >= smaller and whole < _FEW else ""
            return f"{whole} {name}{more}"
    return f"{seconds:.0f} s" if seconds >= _FEW else f"{seconds:.2g} s"
