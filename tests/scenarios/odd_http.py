"""An MCP server over HTTP without any library, in a thread of the test, as odd as a test wants."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

from roadworthy.tools.mcp.connection import KEY


class OddHttp:
    """Use as `with`. say: what a call answers; packed: compressed, though nobody asked for it.
    hold: the first call is answered once `go_on` is set, and `called` tells that it came."""

    def __init__(self, say: str = "well", *, packed: bool = False, hold: bool = False) -> None:
        self.say, self.packed, self.hold = say, packed, hold
        self.callers: list[str] = []
        self.keys: list[str] = []
        self.called, self.go_on = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.odd = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/mcp"

    def __enter__(self) -> OddHttp:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        odd = cast(OddHttp, self.server.odd)  # type: ignore[attr-defined]
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "id" not in asked:
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"]} | self._answer(odd, asked)).encode()
        packed = odd.packed and asked["method"] == "tools/call"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if packed:
            body = gzip.compress(body)
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, odd: OddHttp, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["method"]:
            case "initialize":
                version = asked["params"]["protocolVersion"]
                info = {"name": "odd", "version": "1"}
                found = {"protocolVersion": version, "capabilities": {"tools": {}}}
                return {"result": found | {"serverInfo": info}}
            case "tools/list":
                schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
                return {"result": {"tools": [{"name": "look", "inputSchema": schema}]}}
            case "tools/call":
                odd.callers.append(self.headers.get("authorization", ""))
                odd.keys.append(asked["params"].get("_meta", {}).get(KEY, ""))
                if odd.hold and len(odd.keys) == 1:
                    odd.called.set()
                    odd.go_on.wait(60)
                return {"result": {"content": [{"type": "text", "text": odd.say}]}}
            case _:
                return {"error": {"code": -32601, "message": "no"}}

    def do_GET(self) -> None:
        self.send_error(405)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
