"""What may be asked of the simulated AppView, with the official server's refusals. Pure."""

import re
from typing import Final

from turbod.event import valid_did, valid_nsid, valid_rkey

MAX_ITEMS: Final = 25
PROFILES: Final = "/xrpc/app.bsky.actor.getProfiles"
POSTS: Final = "/xrpc/app.bsky.feed.getPosts"
PARAMETER: Final = {PROFILES: "actors", POSTS: "uris"}
_MAX_URI_LENGTH = 8192
_is_handle = re.compile(
    r"([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?",
    re.ASCII,
).fullmatch
_FRAGMENT = re.compile(r"#/[a-zA-Z0-9._~:@!$&')(*+,;=%[\]/-]*", re.ASCII)


def complaint(path: str, items: list[str]) -> str | None:
    """Return the message of the 400 that the official server answers, None where all is well.

    One item that is malformed fails the whole call.
    """
    name = PARAMETER[path]
    if not items:
        return f'Error: Params must have the property "{name}"'
    if len(items) > MAX_ITEMS:
        return f"Error: {name} must not have more than {MAX_ITEMS} elements"
    for place, item in enumerate(items):
        if path == PROFILES and not valid_actor(item):
            return f"Error: {name}/{place} must be a valid did or a handle"
        if path == POSTS and not valid_at_uri(item):
            return f"Error: {name}/{place} must be a valid at-uri"
    return None


def valid_actor(item: str) -> bool:
    """Tell whether this is a DID or a handle."""
    return valid_did(item) or _is_handle(item) is not None


def valid_at_uri(item: str) -> bool:
    """Tell whether the official server takes this for an AT URI: more than records have one."""
    if len(item) > _MAX_URI_LENGTH or not item.startswith("at://"):
        return False
    body, mark, fragment = item[5:].partition("#")
    if mark and not _FRAGMENT.fullmatch(mark + fragment):
        return False
    authority, *rest = body.split("/")
    if not valid_actor(authority) or len(rest) > 2:  # noqa: PLR2004 - collection and record key
        return False
    checks = (valid_nsid, valid_rkey)
    return all(check(part) for check, part in zip(checks, rest, strict=False))
