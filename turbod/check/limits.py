"""Looks at how much memory and how many open files there may be."""

import resource
from pathlib import Path
from typing import Final

import trio

from turbod.check.finding import Finding
from turbod.check.local_verdicts import LimitsSeen, judge_limits
from turbod.config import Settings

_GROUPS: Final = Path("/sys/fs/cgroup")


async def look(settings: Settings) -> list[Finding]:
    """Return whether the settings promise more than there is."""
    memory = await trio.to_thread.run_sync(_memory, abandon_on_cancel=True)
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_limits(LimitsSeen(_or_endless(descriptors), memory), settings)


def _or_endless(limit: int) -> int:
    return limit if limit != resource.RLIM_INFINITY else 1 << 30


def _memory() -> int | None:
    """Return what is there for us: the machine's, or less where a control group bounds it."""
    known = [each for each in (_machine(), *_groups()) if each is not None]
    return min(known, default=None)


def _machine() -> int | None:
    lines = _read(Path("/proc/meminfo")).splitlines()
    total = next((line.split()[1] for line in lines if line.startswith("MemTotal:")), None)
    return int(total) * 1024 if total else None


def _groups() -> list[int | None]:
    """Return the bounds of this process's group and those above it (cgroup v2)."""
    own = next(
        (
            line[3:]
            for line in _read(Path("/proc/self/cgroup")).splitlines()
            if line.startswith("0::")
        ),
        "/",
    )
    group = Path(own.strip().lstrip("/"))
    texts = [_read(_GROUPS / each / "memory.max").strip() for each in (group, *group.parents)]
    return [int(text) if text.isdigit() else None for text in texts]


def _read(path: Path) -> str:
    """Return a file of the kernel's, empty where it is not shown to us."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
