"""What a look found: how serious it is, what was seen, what to do about it. Pure."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from turbod.redaction import redacted

Mark = Literal["ok", "warning", "fault"]

_MARK_WIDTH: Final = 8
_NAME_WIDTH: Final = 12


class Finding(msgspec.Struct, frozen=True):
    """One line of what `turbod check` says.

    Attributes:
        check: what was looked at, a word.
        mark: `fault` where `serve` would not start or not do its work now; `warning` where it
            would, and somebody should know.
        found: what was seen.
        todo: what to do, empty where there is nothing.
    """

    check: str
    mark: Mark
    found: str
    todo: str = ""

    def shown(self) -> "Finding":
        """Return it as it may be told, whatever others put into it."""
        return Finding(self.check, self.mark, _shown(self.found), _shown(self.todo))

    def line(self) -> str:
        """Return it for people."""
        told = "; ".join(part for part in (self.found, self.todo) if part)
        return f"{self.mark:<{_MARK_WIDTH}}{self.check:<{_NAME_WIDTH}}{told}"


def ok(check: str, found: str) -> Finding:
    """Return what is as it must be."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, todo: str) -> Finding:
    """Return what does not keep `serve` from its work."""
    return Finding(check, "warning", found, todo)


def fault(check: str, found: str, todo: str) -> Finding:
    """Return what does."""
    return Finding(check, "fault", found, todo)


def summary(findings: Iterable[Finding]) -> str:
    """Return the last line: whether `serve` would work."""
    marks = [finding.mark for finding in findings]
    faults, warnings = marks.count("fault"), marks.count("warning")
    counts = f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    return f"turbod serve would {'not ' * bool(faults)}work: {counts}"


def _shown(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in redacted(text))
