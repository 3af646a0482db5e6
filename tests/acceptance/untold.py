"""What must be told nowhere: secrets, however they are spelled."""

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus


def spellings(secret: str) -> set[bytes]:
    """Return how a secret may stand in text: as it is, in a URL, in JSON, in Base64."""
    plain = secret.encode()
    encoded = {quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    return {plain, base64.b64encode(plain).rstrip(b"="), *(text.encode() for text in encoded)}


def check_untold(where: str, text: bytes | str, secrets: Iterable[str]) -> None:
    """Fail where a secret stands in a text."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    for secret in secrets:
        for spelling in spellings(secret):
            at = data.find(spelling)
            assert at < 0, f"{where} tells a secret: {data[max(at - 200, 0) : at + 200]!r}"
