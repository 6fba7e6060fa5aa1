"""A provider of OpenAI's chat format in a process of its own: `far_provider.py PORT DOWN ASKED`.

DOWN: a file of the models that answer 500. ASKED: a file that gets the model of each request.
It prints its port. Invariant: it answers every request, by what DOWN says at that moment.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, DOWN, ASKED = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = asked["model"]
        with ASKED.open("a", encoding="utf-8") as file:
            file.write(f"{model}\n")
        down = model in DOWN.read_text(encoding="utf-8").split()
        said = {"role": "assistant", "content": f"I am {model}."}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }
        body = json.dumps({"error": {"message": "down"}} if down else answer).encode()
        self.send_response(500 if down else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
