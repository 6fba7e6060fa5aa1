"""A provider on this machine: OpenAI's chat-completions format, answered from the workload.

`run.py` starts it as a process of its own; it prints its port. The address says the script:
`/5/0/chat/completions` asks for five tool calls, 0 ms each. Invariant: a reply depends on its
request alone (the number of tool results in it), so all contenders get the same.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

from bench.workload import ANSWER, call

_TARGET = re.compile(rb"POST /(\d+)/(\d+)/chat/completions ")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_RESULT = re.compile(rb'"role": ?"tool"')


def reply(body: bytes, steps: int) -> bytes:
    """What the model says: the next call, or the answer once all steps are done."""
    done = len(_RESULT.findall(body))
    message: dict[str, object] = {"role": "assistant", "content": None if done < steps else ANSWER}
    if done < steps:
        name, arguments = call(done)
        function = {"name": name, "arguments": json.dumps(arguments)}
        message["tool_calls"] = [{"id": f"call_{done}", "type": "function", "function": function}]
    written = len(str(message)) // 4
    finish = "tool_calls" if done < steps else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = {
        "prompt_tokens": len(body) // 4,
        "completion_tokens": written,
        "total_tokens": len(body) // 4 + written,
    }
    return json.dumps({
        "id": f"chatcmpl-{done}", "object": "chat.completion", "created": 1_790_000_000,
        "model": "bench-model", "choices": [choice], "usage": usage,
    }).encode()  # fmt: skip


class Exchange(asyncio.Protocol):
    """One connection, kept alive; requests come whole or in pieces."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = _LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < size:
                return
            body, self._data = self._data[end + 4 : size], self._data[size:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        target = _TARGET.match(head)
        said = reply(body, int(target[1])) if target else b"{}"
        status = b"200 OK" if target else b"404 Not Found"
        lines = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        delay = int(target[2]) / 1_000 if target else 0.0
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self._transport.write, lines % (status, len(said), said))


async def serve() -> None:
    """Listen on a free port until whoever started us closes our stdin."""
    server = await asyncio.get_running_loop().create_server(Exchange, "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
