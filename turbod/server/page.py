"""The page: one answer, put together of its parts, filled with the host it was asked on. Pure."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

SCRIPTS: Final = ("base", "status", "plots", "calendar", "posts", "subscribe", "start")


class Page:
    """The page of a server that has these collections.

    Attributes:
        headers: allow what is in the page, by its hash, and nothing else.
    """

    def __init__(self, collections: Sequence[str]) -> None:
        style = _read("page.css")
        script = '"use strict";\n' + "".join(_read(f"{name}.js") for name in SCRIPTS)
        text = _read("page.html").replace("{{style}}", style).replace("{{script}}", script)
        self._text = text.replace("{{collections}}", html.escape(", ".join(collections)))
        self.headers = _headers(style, script)

    def render(self, host: str) -> bytes:
        """Return the page as bytes, with `host` where it tells how to connect."""
        return self._text.replace("{{host}}", html.escape(host or "localhost")).encode()


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("web", name).read_text("utf-8")


def _headers(style: str, script: str) -> Mapping[str, str]:
    policy = (
        "default-src 'none'",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
