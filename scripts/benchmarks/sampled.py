"""turbod under a sampler: every 5 ms of CPU time, where its event loop stands.

`python -m benchmarks.sampled FILE serve ...` runs turbod and writes the samples to FILE. A signal
handler costs far less than a tracing profiler, and does not make small functions look large.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

INTERVAL_SECONDS: Final = 0.005  # longer than the kernel's tick, which would merge some
_ROWS: Final = 30
_samples: Counter[tuple[str, ...]] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        code = frame.f_code
        module = frame.f_globals.get("__name__", "?")
        stack.append(f"{module}:{code.co_qualname}")
        frame = frame.f_back
    _samples[tuple(stack)] += 1


def table(path: Path) -> str:
    """Return the share of each part of turbod, and of each function, in words."""
    samples = {tuple(stack): count for stack, count in json.loads(path.read_bytes())}
    total = sum(samples.values())
    parts: Counter[str] = Counter()
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in samples.items():
        inner = next((name for name in stack if name.startswith("turbod.")), stack[0])
        parts[_part(stack, inner)] += count
        own[stack[0]] += count
        for name in set(stack):
            if name.startswith("turbod."):
                within[name] += count
    lines = [f"profile: {total} samples of {INTERVAL_SECONDS * 1000:g} ms CPU"]
    for title, counter in (("by part", parts), ("itself", own), ("with what it calls", within)):
        lines.append(f"  {title}")
        for name, count in counter.most_common(_ROWS):
            lines.append(f"    {100 * count / total:6.1f} %  {name}")
    return "\n".join(lines)


def _part(stack: tuple[str, ...], inner: str) -> str:
    if not inner.startswith("turbod.") or inner.startswith(("turbod.daemon", "turbod.cli")):
        return f"event loop and threads ({stack[0].partition(':')[0].partition('.')[0]})"
    return ".".join(inner.partition(":")[0].split(".")[:3])


def main() -> None:
    """Run turbod's own command under the sampler."""
    from turbod.cli import main as turbod  # noqa: PLC0415 - only here is it run

    path = Path(sys.argv[1])
    signal.signal(signal.SIGPROF, _sample)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)
    try:
        turbod(sys.argv[2:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_text(json.dumps(list(_samples.items())))


if __name__ == "__main__":
    main()
