"""HOST:PORT as the settings have it: what to bind, and where one on this machine connects. Pure."""

from typing import Final

_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told, not bound


def split(listen: str) -> tuple[str, int]:
    """Return host, without brackets, and port."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def url_of(listen: str) -> str:
    """Return where one on this machine reaches what listens there."""
    host, port = split(listen)
    host = _ANY.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
