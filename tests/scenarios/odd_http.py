"""An MCP server over HTTP without any library, in a thread of the test, as odd as a test wants."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

from roadworthy.tools.mcp.connection import KEY


class OddHttp:
    """Use as `with`. say: what a call answers; packed: compressed, though nobody asked for it.
    hold: the first call is answered once `go_on` is set, and `called` tells that it came.
    demands: the bearer token it wants; it gives it to the client `desk` with the secret `geheim`,
    as a sign-in server. signed_in: how often it did.
    """

    def __init__(
        self, say: str = "well", *, packed: bool = False, hold: bool = False, demands: str = ""
    ) -> None:
        self.say, self.packed, self.hold, self.demands = say, packed, hold, demands
        self.callers: list[str] = []
        self.keys: list[str] = []
        self.called, self.go_on = threading.Event(), threading.Event()
        self.signed_in, self.refused = 0, 0
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
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token":
            self._sign_in(odd, body.decode())
            return
        if odd.demands and self.headers.get("authorization") != f"Bearer {odd.demands}":
            odd.refused += 1
            self._send(401, {"error": "invalid_token"})
            return
        asked = json.loads(body)
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

    def _sign_in(self, odd: OddHttp, form: str) -> None:
        desk = "Basic " + base64.b64encode(b"desk:geheim").decode()
        if self.headers.get("authorization") != desk or "client_credentials" not in form:
            self._send(401, {"error": "invalid_client"})
            return
        odd.signed_in += 1
        self._send(200, {"access_token": odd.demands, "token_type": "Bearer", "expires_in": 60})

    def do_GET(self) -> None:
        odd = cast(OddHttp, self.server.odd)  # type: ignore[attr-defined]
        here = odd.url.removesuffix("/mcp")
        if odd.demands and self.path.startswith("/.well-known/oauth-protected-resource"):
            self._send(200, {"resource": odd.url, "authorization_servers": [here]})
        elif odd.demands and self.path.startswith("/.well-known/oauth-authorization-server"):
            self._send(200, {
                "issuer": here,
                "authorization_endpoint": f"{here}/authorize",
                "token_endpoint": f"{here}/token",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
            })  # fmt: skip
        else:
            self.send_error(405)

    def _send(self, status: int, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
