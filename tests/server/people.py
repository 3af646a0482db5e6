"""Some who have tokens."""

from typing import Final

from turbod import bearer
from turbod.server.tokens import Tokens, parse

ALICE, BOB, STRANGER = (f"turbod_{letter * 43}" for letter in "abx")
NAMES: Final = {"alice": ALICE, "bob": BOB}


def tokens(*names: str, **limits: str) -> Tokens:
    """Return the tokens of these people; `limits` are lines of TOML by name."""
    text = "".join(
        f'[{name}]\nsha256 = "{bearer.digest(NAMES[name]).hex()}"\n{limits.get(name, "")}\n'
        for name in names or NAMES
    )
    return parse(text.encode(), "tokens.toml")


def by(token: str) -> str:
    """Return the header that carries a token."""
    return f"Authorization: Bearer {token}\r\n"
