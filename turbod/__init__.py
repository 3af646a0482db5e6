"""turbod: hydrated Bluesky events over WebSocket, from your own small machine."""

__version__ = "0.1.0"
