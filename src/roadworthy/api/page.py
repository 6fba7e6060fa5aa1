"""The page: a list of runs and one run's trace, one file, no request to anywhere else.

Invariant: its policy lets only its own script and style run, so text of models and users cannot.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

routes = APIRouter(include_in_schema=False)
_PAGE = resources.files("roadworthy.api").joinpath("page.html").read_text(encoding="utf-8")


def _sources(element: str) -> str:
    """The hashes of what stands inline, for the policy."""
    found = re.findall(rf"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in found)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)


POLICY = (
    f"default-src 'none'; script-src {_sources('script')}; style-src {_sources('style')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@routes.get("/")
@routes.get("/runs/{run_id}")
async def page() -> HTMLResponse:
    """Both views are this file; its script asks /v1 for what the address names."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": POLICY})
