"""The console's own files and those of others, served from the package.

Invariant: what is served is what lies in the wheel, under an address that changes with it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = resources.files("roadworthy.console").joinpath("static")
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@cache
def files() -> dict[str, bytes]:
    """Name -> content, of everything that browsers load."""
    found = {item.name: item for item in _FOLDER.iterdir() if _kind(item.name) in _TYPES}
    return {name: item.read_bytes() for name, item in found.items()}


@cache
def release() -> str:
    """Changes when any file does: part of their address, so that browsers may keep them."""
    digest = hashlib.sha256()
    for name, content in sorted(files().items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


async def serve(request: Request) -> Response:
    """One file."""
    name = request.path_params["name"]
    content = files().get(name)
    if content is None:
        return Response(status_code=404)
    kept = request.path_params["release"] == release()
    return Response(
        content,
        media_type=_TYPES[_kind(name)],
        headers={"cache-control": "public, max-age=31536000, immutable" if kept else "no-cache"},
    )


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
