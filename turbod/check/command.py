"""Whether `turbod serve` would work with these settings: a line for each thing that it needs.

A line begins with ok, warning or fault. The exit code is 0 where serve would start and do its work
now, 1 where there is a fault, 2 for a wrong setting. A turbod that runs is not disturbed.
"""

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import trio

from turbod import config
from turbod.check import appview, archive, clock, data, disk, files, limits, port, upstream
from turbod.check.finding import Finding, fault, summary
from turbod.check.local_verdicts import judge_settings
from turbod.config import Settings

USAGE: Final = "turbod check [--help] [--json] [--config FILE] [--SETTING VALUE ...]"
LIMIT_SECONDS: Final = 10.0


class Look(NamedTuple):
    """One thing that is looked at; all are at once, and told in their order."""

    name: str
    see: Callable[[Settings], Awaitable[list[Finding]]]


LOOKS: Final = (
    Look("data", data.look),
    Look("disk", disk.look),
    Look("limits", limits.look),
    Look("port", port.look),
    Look("exclude", files.look_at_exclusions),
    Look("tokens", files.look_at_tokens),
    Look("credentials", files.look_at_credentials),
    Look("clock", clock.look),
    Look("upstream", upstream.look),
    Look("appview", appview.look),
    Look("archive", archive.look),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings, which are those of `serve`, and how to tell."""
    parser.add_argument("--json", action="store_true", help="tell in JSON, an object a line")
    config.add_arguments(parser)


async def run(options: argparse.Namespace) -> int:
    """Look at everything; return 1 where there is a fault.

    Raises:
        ConfigError: a setting cannot be.
    """
    settings = config.load(vars(options), os.environ)
    file = options.config or os.environ.get("TURBOD_CONFIG") or ""
    findings: list[Finding] = []

    def tell(found: Finding) -> None:
        finding = found.shown()
        findings.append(finding)
        _print(msgspec.json.encode(finding).decode() if options.json else finding.line())

    try:
        for finding in judge_settings(settings, file):
            tell(finding)
        await look_at_all(settings, tell)
        if not options.json:
            _print(summary(findings))
    except* BrokenPipeError:  # whoever read us has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(any(finding.mark == "fault" for finding in findings))


async def look_at_all(
    settings: Settings, tell: Callable[[Finding], None], looks: Sequence[Look] = LOOKS
) -> None:
    """Tell what is found, in the order of the looks, each as soon as its turn has come."""
    async with trio.open_nursery() as nursery:
        begun = [_Begun(look) for look in looks]
        for each in begun:
            nursery.start_soon(each.run, settings)
        for each in begun:
            await each.ended.wait()
            for finding in each.findings:
                tell(finding)


class _Begun:
    """A look under way, and then what it found."""

    def __init__(self, look: Look) -> None:
        self.ended = trio.Event()
        self.findings: list[Finding] = []
        self._look = look

    async def run(self, settings: Settings) -> None:
        with trio.move_on_after(LIMIT_SECONDS) as scope:
            try:
                self.findings = await self._look.see(settings)
            except OSError as error:  # whose files these are is not known
                found = f"{error.filename or 'the system'}: {error.strerror or error}"
                self.findings = [fault(self._look.name, found, "check as the user who runs turbod")]
        if scope.cancelled_caught:
            found = f"nothing found out within {LIMIT_SECONDS:g} s"
            self.findings = [fault(self._look.name, found, "a disk or a server hangs")]
        self.ended.set()


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what the command is for
