"""Generated requests against the whole API: no crash, and only answers it documents."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from roadworthy.api import create_app
from tests.unit.api.desks import runtime

_folder = Path(
    tempfile.mkdtemp()
)  # a session's fixtures do not exist yet where tests are generated
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
app = create_app(runtime(_folder))
# what never ends by itself is tried in test_inbox
schema = schemathesis.openapi.from_asgi("/openapi.json", app).exclude(
    path="/v1/escalations/changes"
)
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_documented(case: schemathesis.Case[Any]) -> None:
    if isinstance(case.body, dict) and "agent" in case.body:
        case.body["agent"] = "desk"  # a random name would find nobody
    case.call_and_validate(checks=CHECKS)
