"""How the archive is, and what the log says of it: each fault once, until all is well again."""

from typing import Final, Literal

import structlog
import trio

State = Literal["ok", "failing", "conflict", "full"]

MAX_TOLD: Final = 20  # different faults that are named in one go

log = structlog.get_logger()


class Condition:
    """The present state.

    Attributes:
        state: `ok`; `failing` while the store does not do what is asked; `conflict` where an
            operator must decide; `full`.
        fault: why it is not `ok`, else None.
        changed: set as soon as the state was entered anew.
    """

    def __init__(self) -> None:
        self.state: State = "ok"
        self.fault: str | None = None
        self.changed = trio.Event()
        self._told: set[str] = set()

    def enter(self, state: State, fault: str | None, **more: object) -> None:
        """Note how things are now."""
        if fault is None:
            self._told.clear()
            if self.state != state:
                log.info("archive_ok", was=self.state, **more)
        elif fault not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(fault)
            _tell(state, error=fault, **more)
        self.state, self.fault = state, fault
        self.changed.set()
        self.changed = trio.Event()


def _tell(state: State, **fault: object) -> None:
    match state:
        case "conflict":
            log.error("archive_conflict", **fault)
        case "full":
            log.error("archive_full", **fault)
        case _:
            log.warning("archive_failing", **fault)
