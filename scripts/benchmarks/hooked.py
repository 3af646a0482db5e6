"""turbod with a look inside: how long each AppView call waited to fill.

`python -m benchmarks.hooked FILE serve ...` runs turbod and writes to FILE, for each call, the ms
from when its first item was wanted until it went. Only a first attempt fills; others are left out.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

_waits: Final[list[float]] = []


def _watch() -> None:
    from turbod.hydration.appview import AppView  # noqa: PLC0415 - before turbod itself runs

    call = AppView._call  # noqa: SLF001 - no public place sees a call go

    async def watched(self: AppView, batch: Any, *arguments: Any) -> None:
        if not batch.failures and not batch.part:
            oldest = min(item.wanted_at for item in batch.items)
            _waits.append((time.monotonic() - oldest) * 1000)
        await call(self, batch, *arguments)

    AppView._call = watched  # type: ignore[assignment,method-assign] # noqa: SLF001 - as above


def main() -> None:
    """Run turbod's own command."""
    from turbod.cli import main as turbod  # noqa: PLC0415 - only here is it run

    _watch()
    try:
        turbod(sys.argv[2:])
    finally:
        Path(sys.argv[1]).write_text(json.dumps(_waits))


if __name__ == "__main__":
    main()
