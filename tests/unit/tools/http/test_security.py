"""Signing in as an OpenAPI document says, and bodies that are forms."""

from __future__ import annotations

from email import message_from_bytes
from typing import Any

import pytest
from aiohttp import web

from roadworthy import DeclarationError, NotApplied, RunContext
from roadworthy.tools.http import OpenAPI
from roadworthy.tools.http.security import Credential
from tests.unit.tools.http.serving import LOCAL, Served, run, serving

SCHEMES: dict[str, Any] = {
    "head": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "api key"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "session"},
    "bearer": {"type": "http", "scheme": "Bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "oauth": {"type": "oauth2", "flows": {}},
    "digest": {"type": "http", "scheme": "digest"},
    "tls": {"type": "mutualTLS"},
}


def document(*security: dict[str, list[str]], body: Any = None) -> dict[str, Any]:  # noqa: ANN401
    node: dict[str, Any] = {"operationId": "put", "security": [*security]}
    if body is not None:
        node["requestBody"] = {"required": True, "content": body}
    paths = {"/put": {"post": node}}
    return {"openapi": "3.1.0", "paths": paths, "components": {"securitySchemes": SCHEMES}}


async def fine(_: web.Request) -> web.StreamResponse:
    return web.json_response({})


async def sent(told: dict[str, Any], /, **credentials: Credential) -> Served:
    async with serving(fine) as served:
        shop = OpenAPI("shop", told, base_url=served.url, client=LOCAL, credentials=credentials)
        await shop.tools[0].function(run())
    return served


@pytest.mark.parametrize(
    ("scheme", "header", "value"),
    [
        ("head", "X-Key", "a:b"),
        ("cookie", "Cookie", "session=a%3Ab"),
        ("bearer", "Authorization", "Bearer a:b"),
        ("basic", "Authorization", "Basic YTpi"),
        ("oauth", "Authorization", "Bearer a:b"),
    ],
)
async def test_a_credential_goes_where_the_document_says(
    scheme: str, header: str, value: str
) -> None:
    served = await sent(document({scheme: []}), **{scheme: "a:b"})
    assert served.heard[0][header] == value


async def test_a_key_in_the_query_is_encoded() -> None:
    served = await sent(document({"query": []}), query="a&b")
    assert served.seen == [("POST", "/put?api%20key=a%26b")]


async def test_the_first_alternative_that_all_is_there_for_is_taken() -> None:
    told = document({"head": [], "basic": []}, {"query": [], "oauth": []}, {"head": []})
    served = await sent(told, head="k", oauth="t")
    assert served.heard[0]["X-Key"] == "k"
    assert "Authorization" not in served.heard[0]


async def test_what_asks_for_nothing_gets_nothing() -> None:
    served = await sent(document(), bearer="t")
    assert "Authorization" not in served.heard[0]


async def test_a_credential_may_be_that_of_the_tenant() -> None:
    async def of_tenant(run: RunContext[Any]) -> str:
        return f"key of {run.user.id}"

    served = await sent(document({"head": []}), head=of_tenant)
    assert served.heard[0]["X-Key"] == f"key of {run().user.id}"

    def broken(_: RunContext[Any]) -> str:
        raise OSError("the vault is shut: geheim")

    with pytest.raises(NotApplied, match=r"cannot be had: OSError$"):
        await sent(document({"head": []}), head=broken)


@pytest.mark.parametrize(
    ("scheme", "why"), [("digest", "http digest"), ("tls", "mutualTLS"), ("x", "It has: .*bearer")]
)
def test_what_cannot_be_signed_is_said(scheme: str, why: str) -> None:
    with pytest.raises(DeclarationError, match=why):
        OpenAPI("s", document(), base_url="https://s.example", credentials={scheme: "k"})


def test_credentials_are_not_shown() -> None:
    told = document({"head": []})
    shop = OpenAPI("s", told, base_url="https://s.example", credentials={"head": "geheim"})
    assert "geheim" not in f"{shop!r}{shop.tools[0].declared()}"


FIELDS = {"type": "object", "properties": {"name": {"type": "string"}, "tags": {}, "more": {}}}


async def test_forms_of_several_parts() -> None:
    told = document(body={"multipart/form-data": {"schema": FIELDS}})
    text = 'x"\r\n--y\r\nContent-Disposition: form-data; name="admin"\r\n\r\n1'
    async with serving(fine) as served:
        shop = OpenAPI("shop", told, base_url=served.url, client=LOCAL)
        await shop.tools[0].function(run(), name=text, tags=["a", "b"], more={"n": 1})
    kind = served.heard[0]["Content-Type"].encode()
    found = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + served.bodies[0])
    parts = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
        for part in found.walk()
        if not part.is_multipart()
    ]
    assert parts == [
        ("name", text.encode()),
        ("tags", b"a"),
        ("tags", b"b"),
        ("more", b'{"n":1}'),
    ]


async def test_forms_in_one_line() -> None:
    told = document(body={"application/x-www-form-urlencoded": {"schema": FIELDS}})
    async with serving(fine) as served:
        shop = OpenAPI("shop", told, base_url=served.url, client=LOCAL)
        await shop.tools[0].function(run(), name="a&b", tags=["a", "b"])
    assert served.bodies == [b"name=a%26b&tags=a&tags=b"]


def test_a_multipart_body_that_is_no_object_is_left_out() -> None:
    told = document(body={"multipart/form-data": {"schema": {"type": "string"}}})
    with pytest.raises(DeclarationError, match="no plain object"):
        OpenAPI("shop", told, base_url="https://s.example", only=["put"])
