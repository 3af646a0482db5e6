"""Make a token for one who is to connect.

Its entry goes to standard output, for the file that `server.tokens` names; the token itself to
standard error, once: turbod keeps only its hash. So `turbod token alice >>tokens.toml` does both.
"""

import argparse
import os
import sys

from turbod import bearer
from turbod.server.tokens import is_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "name", metavar="NAME", type=_name, help="whose it is, for logs and figures"
    )


def run(options: argparse.Namespace) -> int:
    """Print the entry, and where that went well the token; 1 where it did not."""
    token = bearer.make()
    entry = f'[{options.name}]\nsha256 = "{bearer.digest(token).hex()}"\n'
    try:
        sys.stdout.write(entry)
        sys.stdout.flush()
    except OSError as error:
        print(f"turbod: standard output: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command's own words
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    words = (
        f"turbod: the token of {options.name}, shown this once; its owner sets TURBOD_TOKEN to it"
    )
    print(f"{words}:\n{token}", file=sys.stderr)  # noqa: T201 - as above
    return 0


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError("expected 1 to 40 letters, digits, _ and -")
    return text
