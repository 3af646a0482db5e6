"""History in bulk: what an archive holds, its records, whether it is whole."""

import argparse
import os
import sys
from typing import cast

from turbod.archive.bulk import getting, listing, verification
from turbod.archive.bulk.output import CannotWrite
from turbod.archive.stores.store import StoreFault

_ACTIONS = (
    ("ls", listing, "what it holds, hour by hour"),
    ("get", getting, "its records, to standard output or into files"),
    ("verify", verification, "whether all of it is whole and true"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, module, summary in _ACTIONS:
        action = actions.add_parser(name, help=summary)
        module.add_arguments(action)
        action.set_defaults(act=module.run)


async def run(options: argparse.Namespace) -> int:
    """Run one of them; return its exit code, 1 where the archive or the output failed.

    Whoever reads standard output and has enough of it, such as `head`, ends it in silence.

    Raises:
        ConfigError: what was asked for makes no sense.
    """
    code = 0
    try:
        code = cast("int", await options.act(options))
    except* (StoreFault, CannotWrite) as group:
        print(f"turbod: {_first(group)}", file=sys.stderr)  # noqa: T201 - a command's own words
        code = 1
    except* BrokenPipeError:
        code = 1 if options.action == "verify" else 0  # not all was seen to be whole
        _leave_standard_output()
    except* OSError as group:
        why = getattr(_first(group), "strerror", None)
        print(f"turbod: standard output: {why}", file=sys.stderr)  # noqa: T201 - as above
        code = 1
        _leave_standard_output()
    return code


def _leave_standard_output() -> None:
    """Let what Python still has to write go where it hurts nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _first(error: BaseException) -> BaseException:
    """Return what was raised, out of the groups that nurseries put it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
