"""What the archive's commands are asked for, read from their arguments."""

import argparse
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from turbod import bearer, config, cursor
from turbod.archive.bulk.parts import Asked
from turbod.archive.bulk.walk import MAX_PARALLEL, PARALLEL
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import IDENTITY_KEY, parse_key
from turbod.archive.stores.store import DEFAULT_FOLDER, Source, StoreFault, open_store
from turbod.archive.stores.web import WebSource
from turbod.config import ConfigError
from turbod.event import KINDS, OPERATIONS
from turbod.filter import Filter, InvalidRequest, read_collections, read_dids, read_words

MAX_DIDS: Final = 1_000_000
MAX_DIDS_FILE_BYTES: Final = 64 * 1024 * 1024

_SOURCE: Final = "a folder, s3://BUCKET/PREFIX, or http(s)://HOST:PORT of a running turbod"


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add what all commands have: where from, and which hours."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help=_SOURCE)
    add(
        "--from",
        dest="begin",
        metavar="TIME",
        default="0",
        help="where to begin: 2026-11-20T08:00:00Z, -7d, or a cursor to begin behind "
        "(default: the oldest)",
    )
    add("--until", metavar="TIME", help="where to end, as --from (default: the newest)")
    add(
        "--parallel",
        metavar="N",
        type=_parallel,
        default=PARALLEL,
        help=f"reads at once, 1 to {MAX_PARALLEL}, some 40 MB each (default: {PARALLEL})",
    )
    add("--s3-endpoint", metavar="URL", help="the S3 server, where it is not AWS")
    add("--s3-region", metavar="REGION", help="the bucket's region")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add which records are wanted, as the protocol has it."""
    for name, metavar, words in (
        ("collections", "NSID", "commits of these, or of prefixes such as app.bsky.graph.*"),
        ("dids", "DID", "events of these accounts"),
        ("about-dids", "DID", "events that concern these accounts; with --dids, either"),
        ("kinds", "KIND", f"of {', '.join(sorted(KINDS))}"),
        ("operations", "OPERATION", f"commits that are one of {', '.join(sorted(OPERATIONS))}"),
    ):
        parser.add_argument(
            f"--{name}", metavar=metavar, nargs="+", action="extend", default=[], help=words
        )
    parser.add_argument("--dids-file", metavar="FILE", help="as --dids, one a line")


@asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[Source]:
    """Open the archive that was named. Nothing is read yet.

    Raises:
        ConfigError: there can be none.
    """
    text: str = options.source
    if text.startswith(("http://", "https://")):
        token = bearer.from_environment(os.environ)
        async with WebSource(text, token=token, keeps_details=options.action == "ls") as source:
            yield source
        return
    yield _open_store(options)


async def listed(source: Source) -> Catalogue:
    """Return which objects an archive has.

    Raises:
        StoreFault: it cannot be listed, or nothing there belongs to an archive.
    """
    found = [(parse_key(each.key), each) for each in await source.list()]
    if not any(name or each.key == IDENTITY_KEY for name, each in found):
        raise StoreFault(f"{source.url}: nothing of an archive is there")
    catalogue = Catalogue()
    catalogue.listed((name, each.size) for name, each in found if name is not None)
    return catalogue


def read_asked(options: argparse.Namespace) -> Asked:
    """Return the range that was asked for.

    A time means what is at or after it, as where to begin and as where to end: so ranges that
    meet have every record once between them.

    Raises:
        ConfigError: it makes no sense.
    """
    after = _position("--from", options.begin)
    if options.until is None:
        return Asked(after)
    until = _position("--until", options.until)
    if until <= after:
        raise ConfigError(f"--until {options.until}: not after --from {options.begin}")
    return Asked(after, until)


def read_filter(options: argparse.Namespace) -> Filter:
    """Return the filter that was asked for.

    Raises:
        ConfigError: some of it is not what it must be.
    """
    from_file = _lines(options.dids_file) if options.dids_file else []
    read = partial(read_dids, most=MAX_DIDS)
    try:
        collections, prefixes = read_collections("--collections", options.collections)
        return Filter(
            collections=collections,
            prefixes=prefixes,
            dids=read("--dids", options.dids) | read(f"--dids-file {options.dids_file}", from_file),
            about=read("--about-dids", options.about_dids),
            kinds=read_words("--kinds", options.kinds, KINDS),
            operations=read_words("--operations", options.operations, OPERATIONS),
        )
    except InvalidRequest as error:
        raise ConfigError(str(error)) from None


def _open_store(options: argparse.Namespace) -> Source:
    text: str = options.source
    given = {
        "archive.location": text,
        "s3.endpoint": options.s3_endpoint,
        "s3.region": options.s3_region,
    }
    settings = config.load(given, os.environ)
    folder = Path(text)
    if not text.startswith("s3:") and not folder.is_dir():
        raise ConfigError(f"{text}: no such folder; expected {_SOURCE}")
    inside = folder / DEFAULT_FOLDER
    if (inside / IDENTITY_KEY).exists() and not (folder / IDENTITY_KEY).exists():
        raise ConfigError(f"{text}: a data folder; its archive is {inside}")
    return open_store(settings.archive, settings.s3, Path())


def _parallel(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PARALLEL:
        raise argparse.ArgumentTypeError(
            f"was {text!r}: expected a whole number from 1 to {MAX_PARALLEL}"
        )
    return int(text)


def _now_us() -> int:
    return time.time_ns() // 1000


def _position(name: str, text: str) -> int:
    now_us = _now_us()
    try:
        position = cursor.parse(text, now_us=now_us)
    except cursor.BadCursor:
        raise ConfigError(
            f"{name} {text!r}: expected a time such as 2026-11-20T08:00:00Z, one before now such "
            "as -90m, -36h or -7d, or a cursor of 16 digits"
        ) from None
    if position > now_us + cursor.FUTURE_US:
        raise ConfigError(f"{name} {text}: in the future")
    return position


def _lines(file: str) -> list[str]:
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(MAX_DIDS_FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"--dids-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--dids-file {file}: not UTF-8") from None
    if len(data) > MAX_DIDS_FILE_BYTES:
        raise ConfigError(f"--dids-file {file}: more than {MAX_DIDS_FILE_BYTES} bytes")
    dids = (line.partition("#")[0].strip() for line in text.splitlines())
    found = [did for did in dids if did]
    if not found:
        raise ConfigError(f"--dids-file {file}: no DID in it")
    return found
