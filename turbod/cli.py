"""The command line: `turbod serve` and the commands beside it."""

import argparse
import gc
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import trio

from turbod import __version__, config, log_output, service, start, tail, token_command
from turbod.archive.bulk import command as archive
from turbod.check import command as check
from turbod.compare import command as compare
from turbod.simulation import command as simulation
from turbod.status import command as status

_DESCRIPTION = """\
turbod reads Bluesky's Jetstream, looks up who wrote, what is answered, quoted and mentioned, and
serves the events with all of that over WebSocket, from a log on disk that any client can resume
from.

  turbod serve                          the daemon, on 127.0.0.1:8080
  turbod tail ws://127.0.0.1:8080       what it serves, one JSON object a line
  turbod archive ls data/archive        what history there is; get it, verify it
  turbod check                          whether serve would work, and what keeps it from that
  turbod compare URL URL                two streams side by side, to judge a host or a turbod
  turbod status                         how a running daemon is, on one screen
  turbod token alice                    lets alice in, where not everybody may
  turbod simulate                       a small Bluesky on loopback, to try it without internet

`turbod COMMAND --help` tells more."""

_SERVE = """\
The daemon: reads Jetstream, hydrates through the AppView, logs to DATA, serves on HOST:PORT.
Open http://HOST:PORT/ in a browser to see it live. Stops on SIGTERM or Ctrl-C, reads its settings
again on SIGHUP.

Every setting can stand on the command line (--hydration-calls-per-second 5), in the environment
(TURBOD_HYDRATION_CALLS_PER_SECOND=5; a list's items with spaces between them) or in a TOML file:

  upstream = ["wss://jetstream1.us-east.bsky.network/subscribe"]
  [hydration]
  calls_per_second = 5

The command line beats the environment, the environment the file."""


_TIMES = frozenset({"--cursor", "--from", "--until"})
_is_ago = re.compile("-[0-9]").match


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit.

    The code: 0 done; 1 cannot run now, or our own fault; 2 a wrong setting or option; 78 what only
    an operator can mend; 130 interrupted; or 128 and the signal's number where a second signal cut
    an orderly end short.
    """
    sys.exit(_run(_options(sys.argv[1:] if arguments is None else arguments)))


def _run(options: argparse.Namespace) -> int:
    """Run a command; say in one line what keeps it from running."""
    try:
        return int(options.run(options) or 0)
    except* config.ConfigError as errors:
        code = start.WRONG_SETTING
        log_output.say(f"turbod: {_first(errors)}")
    except* start.CannotStart as errors:
        first = _first(errors)
        assert isinstance(first, start.CannotStart), "the group has no others"
        code = first.code
        log_output.say(f"turbod: {first}")
    except* KeyboardInterrupt:
        code = 130
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and takes no abbreviations: one more option breaks them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say it and exit."""
        log_output.say(f"{self.prog}: {message}; `{self.prog} --help` tells more")
        self.exit(start.WRONG_SETTING)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    options, unknown = _parser().parse_known_args(_with_joined_times(arguments))
    if unknown:
        name = unknown[0].partition("=")[0]
        command = " ".join(
            ("turbod", options.command, *filter(None, [vars(options).get("action")]))
        )
        hint = (
            config.hint(name)
            if options.command in {"serve", "check"}
            else f"`{command} --help` lists all"
        )
        log_output.say(f"{command}: {name}: no such option; {hint}")
        sys.exit(start.WRONG_SETTING)
    return options


def _with_joined_times(arguments: Sequence[str]) -> list[str]:
    """Write `--cursor -15m` as `--cursor=-15m`, which argparse would take for an option."""
    joined = list(arguments)
    for index in range(len(joined) - 2, -1, -1):
        if joined[index] in _TIMES and _is_ago(joined[index + 1]):
            joined[index : index + 2] = [f"{joined[index]}={joined[index + 1]}"]
    return joined


def _parser() -> _Parser:
    parser = _Parser(
        prog="turbod", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"turbod {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="the daemon",
        usage="turbod serve [--help] [--config FILE] [--SETTING VALUE ...]",
        description=_SERVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config.add_arguments(serve)
    serve.set_defaults(run=_serve)
    for name, module, summary in (
        ("tail", tail, "print a stream, one JSON object a line"),
        ("archive", archive, "history in bulk: list it, get it, verify it"),
        ("check", check, "whether serve would work"),
        ("status", status, "how a running daemon is"),
        ("compare", compare, "two streams side by side"),
        ("simulate", simulation, "a small Bluesky on loopback"),
    ):
        command = commands.add_parser(
            name, help=summary, description=module.__doc__, usage=getattr(module, "USAGE", None)
        )
        module.add_arguments(command)
        command.set_defaults(run=lambda options, module=module: _attend(module.run, options))
    token = commands.add_parser(
        "token",
        help="let somebody in, where not everybody may",
        description=token_command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    token_command.add_arguments(token)
    token.set_defaults(run=token_command.run)
    return parser


def _serve(options: argparse.Namespace) -> int:
    load = partial(config.load, vars(options), os.environ)
    settings = load()
    log_output.for_daemon(settings.log_level, settings.log_format)
    _collect_garbage_seldom()
    return trio.run(service.serve, settings, load)


def _attend(run: Any, options: argparse.Namespace) -> Any:
    # What the parts of a check would say is among its findings.
    log_output.for_command("error" if options.command == "check" else "info")
    return trio.run(run, options)


def _collect_garbage_seldom() -> None:
    """Let the cycle collector run seldom: a tenth of what an event costs was its walks.

    Reference counts free what an event leaves behind. Cycles come from connections and exceptions;
    a hundred thousand young objects, some tens of megabytes, are the most that wait for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def _first(errors: BaseException) -> BaseException:
    """Return the first of some errors."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
