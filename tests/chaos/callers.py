"""A client of the API as a careful one is written: it sends again until it is answered.

The load of a cluster's trial uses it. Invariant: every request can be sent twice, so that an API
process may be killed at any moment.
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from roadworthy import RunResult
from roadworthy.clock import SystemClock

_PAUSE = 0.1
_CLOCK = SystemClock()


class Refused(Exception):
    """The API answered that it will not do this, and sending it again changes nothing."""


class Caller:
    """Sends requests to one address, from any number of tasks."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._http = httpx.AsyncClient(base_url=url, timeout=60, limits=limits)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def start(self, said: str, key: str, chat: str | None) -> str:
        """The id of the run that this became, or that it was told to."""
        return str((await self._run(said, key, chat, background=True))["run_id"])

    async def come_to(self, said: str, key: str, chat: str | None) -> RunResult[Any]:
        """What a run came to or waits for; it is begun if it was not."""
        found = await self._run(said, key, chat, background=False)
        return msgspec.convert(found, RunResult[Any], strict=False)

    async def decide(self, approval: str, decision: str, note: str = "") -> None:
        """A person's word. Raises: Refused: it was decided already."""
        said = {"decision": decision, "by": "lea", "note": note}
        await self._post(f"/v1/approvals/{approval}", said)

    async def resume(self, run_id: str) -> None:
        """Go on with a run that ended early. Raises: Refused."""
        await self._post(f"/v1/runs/{run_id}/resume", {})

    async def _run(self, said: str, key: str, chat: str | None, *, background: bool) -> Any:  # noqa: ANN401
        body = {"input": said, "conversation": chat, "background": background}
        return await self._post("/v1/runs", body, {"idempotency-key": key})

    async def _post(self, path: str, body: object, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401
        while True:
            try:
                answer = await self._http.post(path, json=body, headers=headers)
            except httpx.TransportError:  # killed, restarting, or too long: again
                await _CLOCK.sleep(_PAUSE)
                continue
            if answer.status_code < 400:
                return answer.json()
            if answer.status_code not in (429, 503):
                raise Refused(f"{path}: {answer.status_code} {answer.text}")
            await _CLOCK.sleep(_PAUSE)
