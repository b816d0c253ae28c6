"""A scripted chat endpoint, so cheap that it is nobody's bottleneck: raw asyncio, one answer after a fixed time.

`python tests/bench/scripted_upstream.py PORT [MILLISECONDS]`
"""

import asyncio
import json
import sys

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Your order is on its way. " * 8},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 50, "total_tokens": 90},
    }
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)


class Scripted(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; reads bodies by their length, and what it reads it forgets."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s, self.held, self.left = delay_s, b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while self.held:
            head, found, rest = self.held.partition(b"\r\n\r\n")
            if not found:
                return
            low = head.lower()
            at = low.find(b"content-length:")
            length = int(low[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < length:
                return
            self.held = rest[length:]
            asyncio.get_running_loop().call_later(self.delay_s, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(RESPONSE)


async def serve(port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Scripted(delay_s), "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    milliseconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    uvloop.run(serve(int(sys.argv[1]), milliseconds / 1000))
