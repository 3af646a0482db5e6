"""One port: WebSocket subscribers, each at its own pace, and plain GETs."""
