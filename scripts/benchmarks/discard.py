"""The bare minimum: trio-websocket receives every event and throws it away."""

import json
import sys
from typing import Any, Final

import trio
import trio_websocket

# What is quickest with this library: of buffers from 4 to 256 KiB, 64 and above.
RECEIVE_BYTES: Final = 65536
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


async def _run(upstream: str) -> None:
    async with trio_websocket.open_websocket_url(
        upstream, receive_buffer_size=RECEIVE_BYTES, max_message_size=MAX_MESSAGE_BYTES
    ) as websocket:
        _answer({})
        async for line in trio.wrap_file(sys.stdin):
            count = json.loads(line)["count"]
            for _ in range(count):
                await websocket.get_message()
            _answer({"received": count})


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_run, json.loads(sys.argv[1])["upstream"])
