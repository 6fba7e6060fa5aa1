"""An MCP server over stdio without any library, as odd as its first argument (a file) says.

The file holds JSON: `tools` (name -> description), `say` (what a call answers: an object of the
protocol, one of the words below, or a line as it is). `<file>.calls` has a line for each call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

STATE = Path(sys.argv[1])


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            answer(asked["id"], asked["method"], asked.get("params", {}))


def answer(number: int, method: str, params: dict[str, Any]) -> None:
    state = json.loads(STATE.read_text(encoding="utf-8"))
    if method == "initialize":
        version = params["protocolVersion"]
        info = {"name": "odd", "version": "1"}
        result(
            number, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        )
    elif method == "tools/list":
        result(number, {"tools": [described(*each) for each in state["tools"].items()]})
    elif method == "tools/call":
        with Path(f"{STATE}.calls").open("a", encoding="utf-8") as calls:
            calls.write(json.dumps(params) + "\n")
        said(number, state["say"])
    else:
        write(
            {"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no " + method}}
        )


def said(number: int, say: Any) -> None:  # noqa: ANN401 - JSON
    match say:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once" | "hang once" if is_first():
            die_or_hang(say)
        case "die once" | "hang once":
            result(number, {"content": [{"type": "text", "text": "well"}]})
        case "hang":
            return
        case "flood":
            sys.stdout.write(
                f'{{"jsonrpc":"2.0","id":{number},"result":{{"content":[{{"type":"text",'
            )
            sys.stdout.write('"text":"')
            for _ in range(100):
                sys.stdout.write("x" * 1_000_000)
            sys.stdout.write('"}]}}\n')
            sys.stdout.flush()
        case "binary":
            sys.stdout.buffer.write(b"\xff\xfe\x00 no message\n")
            sys.stdout.buffer.flush()
            result(number, {"content": [{"type": "text", "text": "after the noise"}]})
        case "changed":
            write({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            result(number, {"content": [{"type": "text", "text": "ok"}]})
        case str(raw):
            sys.stdout.write(raw.replace("ID", str(number)) + "\n")
            sys.stdout.flush()
        case _:
            result(number, say)


def is_first() -> bool:
    return len(Path(f"{STATE}.calls").read_text(encoding="utf-8").splitlines()) == 1


def die_or_hang(say: str) -> None:
    if say == "die once":
        os.kill(os.getpid(), signal.SIGKILL)
    pipe = os.open(f"{STATE}.pipe", os.O_WRONLY)  # open for as long as this process lives
    os.write(pipe, b"called")


def described(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"readOnlyHint": name.startswith("read")},
    }


def result(number: int, found: dict[str, Any]) -> None:
    write({"jsonrpc": "2.0", "id": number, "result": found})


def write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
