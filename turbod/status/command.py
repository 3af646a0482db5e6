"""How a running turbod is, on one screen, what is wrong first.

Without a URL the one that these settings make (TURBOD_LISTEN, or --config FILE). Where it asks for
a token, TURBOD_TOKEN has it. The exit code is 0 where it is live or catching up, 1 where it could
not be asked, 2 for a wrong setting, 3 where something is wrong with it.
"""

import argparse
import os
import sys
from typing import Final

import httpx

from turbod import __version__, bearer, config
from turbod.config import ConfigError
from turbod.hydration.call import Reply, Unanswered, get
from turbod.listen_address import url_of
from turbod.status.told import Told, read
from turbod.status.words import faults, screen

ANSWER_SECONDS: Final = 10.0
_OK, _UNAUTHORIZED = 200, 401
_NOT_ASKED, _WRONG = 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("url", metavar="URL", nargs="?", help="http://HOST:PORT of a turbod")
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings (TURBOD_CONFIG)")


async def run(options: argparse.Namespace) -> int:
    """Print how it is; return the exit code.

    Raises:
        ConfigError: the URL is none, the token is none, or a setting cannot be.
    """
    url = _url(options)
    try:
        reply = await _ask(f"{url}/status")
        told = _told(reply, url)
    except _NotAsked as error:
        print(f"turbod: {error}", file=sys.stderr)  # noqa: T201 - a command's own words
        return _NOT_ASKED
    print("\n".join(screen(told, url=url)))  # noqa: T201 - what the command is for
    return _WRONG if faults(told) else 0


class _NotAsked(Exception):
    """It could not be asked: one line that says why, and what to do."""


def _url(options: argparse.Namespace) -> str:
    if not options.url:
        return url_of(config.load({"config": options.config}, os.environ).listen)
    text: str = options.url
    try:
        parts = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.scheme not in {"http", "https"} or not parts.host or parts.userinfo:
        raise ConfigError(f"{text}: expected http://HOST:PORT of a running turbod")
    return str(parts.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/status")


async def _ask(url: str) -> Reply:
    token = bearer.from_environment(os.environ)
    headers = {"User-Agent": f"turbod/{__version__}", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            return await get(client, url, seconds=ANSWER_SECONDS)
    except Unanswered as error:
        raise _NotAsked(f"{url}: {error.words}; start turbod, or say where it runs") from None


def _told(reply: Reply, url: str) -> Told:
    if reply.status == _UNAUTHORIZED:
        raise _NotAsked(f"{url}: asks for a token; set {bearer.VARIABLE} to one that it knows")
    told = read(reply.body) if reply.status == _OK else None
    if told is None:
        raise _NotAsked(f"{url}: answers {reply.status}, and not as a turbod does")
    return told
