"""The first page: one file, filled with the host it was asked on, and its security policy. Pure."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class Page:
    """The page of a server that has these collections.

    Attributes:
        headers: allow what is in the page, by its hash, and nothing else.
    """

    def __init__(self, collections: Sequence[str]) -> None:
        text = resources.files(__package__).joinpath("page.html").read_text("utf-8")
        self._text = text.replace("{{collections}}", html.escape(", ".join(collections)))
        self.headers = _headers(text)

    def render(self, host: str) -> bytes:
        """Return the page as bytes, with `host` where it tells how to connect."""
        return self._text.replace("{{host}}", html.escape(host or "localhost")).encode("utf-8")


def _headers(text: str) -> Mapping[str, str]:
    hashes = {kind: _hash(content) for kind, content in _INLINE.findall(text)}
    policy = (
        "default-src 'none'",
        f"style-src {hashes['style']}",
        f"script-src {hashes['script']}",
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
