"""The command line: `turbod serve`, `turbod tail`, `turbod simulate`."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence

import structlog
import trio

from turbod import __version__, config, daemon, tail
from turbod.simulation import command as simulation

_DESCRIPTION = """\
turbod reads Bluesky's Jetstream, looks up who wrote, what is answered, quoted and mentioned, and
serves the events with all of that over WebSocket, from a log on disk that any client can resume
from.

  turbod serve                          the daemon, on 127.0.0.1:8080
  turbod tail ws://127.0.0.1:8080       what it serves, one JSON object a line
  turbod simulate                       a small Bluesky on loopback, to try it without internet

`turbod COMMAND --help` tells more."""

_SERVE = """\
The daemon: reads Jetstream, hydrates through the AppView, logs to DATA, serves on HOST:PORT.
Open http://HOST:PORT/ in a browser to see it live. Stops on SIGTERM or Ctrl-C.

Every setting can stand on the command line (--hydration-calls-per-second 5), in the environment
(TURBOD_HYDRATION_CALLS_PER_SECOND=5; a list's items with spaces between them) or in a TOML file:

  upstream = ["wss://jetstream1.us-east.bsky.network/subscribe"]
  [hydration]
  calls_per_second = 5

The command line beats the environment, the environment the file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 cannot run, 2 a wrong setting or option."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except config.ConfigError as error:
        _fail(error, code=2)
    except daemon.CannotStart as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="turbod", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"turbod {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="the daemon",
        description=_SERVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config.add_arguments(serve)
    serve.set_defaults(run=_serve)
    for name, module, summary in (
        ("tail", tail, "print a stream, one JSON object a line"),
        ("simulate", simulation, "a small Bluesky on loopback"),
    ):
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=lambda options, module=module: trio.run(module.run, options) or 0)
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = config.load(vars(options), os.environ)
    _configure_log(settings.log_level)
    _collect_garbage_seldom()
    return trio.run(daemon.serve, settings)


def _collect_garbage_seldom() -> None:
    """Let the cycle collector run a seventieth as often as by default.

    Reference counts free what an event leaves behind. What little is in cycles can wait, and the
    hundred thousand objects of a warm cache need not be walked for it every few hundred events.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _configure_log(level: str) -> None:
    """Log to standard error: for people on a terminal, else one `key=value` line an event."""
    on_terminal = sys.stderr.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer()
        if on_terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _fail(error: Exception, *, code: int) -> None:
    print(f"turbod: {error}", file=sys.stderr)  # noqa: T201 - a command's own words
    sys.exit(code)
