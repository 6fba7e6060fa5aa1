"""What is behind a tool: told apart where it differs, without what opens a door."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy.tools.http import OpenAPI, http_tool
from roadworthy.tools.mcp import MCP
from roadworthy.tools.sources import of_command, of_database, of_url
from roadworthy.tools.sql import SQL, sql_tool


def test_servers_by_host_and_port() -> None:
    assert of_url("https://shop.example") == "shop.example:443"
    assert of_url("http://shop.example:8080/") == "shop.example:8080"
    assert of_url("https://shop.example/a") != of_url("https://shop.example/b")
    assert of_url("https://Shop.example/a") == of_url("https://shop.example:443/a/")


@pytest.mark.parametrize(
    "shown",
    [
        of_url("https://ana:geheim@shop.example/s/geheim/mcp?key=geheim"),
        of_command(["serve", "--token=geheim"], {"KEY": "geheim"}, "/home/geheim"),
        of_database("postgresql://ana:geheim@db/shop?password=geheim&port=6432"),
        of_database("sqlite:////home/geheim/shop.db"),
    ],
)
def test_nothing_secret_is_shown(shown: str) -> None:
    assert "geheim" not in shown
    assert "ana" not in shown


def test_who_signs_in_makes_no_other_place_of_it() -> None:
    assert of_url("https://a:1@x.example/m") == of_url("https://b:2@x.example/m")
    one = of_database("postgresql://a:1@db/shop?password=x&sslmode=require")
    assert one == of_database("postgres://b:2@db:5432/shop") == "db:5432/shop"
    assert of_database("postgresql://db/shop") != of_database("postgresql://db/other")
    assert of_database("postgresql:///shop?host=one") != of_database("postgresql:///shop?host=two")


def test_commands_by_how_they_are_called() -> None:
    first = of_command(["/usr/bin/python", "-m", "a"], {}, None)
    assert first.startswith("python#")
    assert first == of_command(["/usr/bin/python", "-m", "a"], {}, None)
    assert first != of_command(["/usr/bin/python", "-m", "b"], {}, None)
    assert first != of_command(["/usr/bin/python", "-m", "a"], {}, "/srv")
    with_key = of_command(["/usr/bin/python", "-m", "a"], {"KEY": "1"}, None)
    assert with_key == of_command(["/usr/bin/python", "-m", "a"], {"KEY": "2"}, None)


@pytest.mark.requirement("REC-7")
def test_equally_named_tools_of_different_servers_are_different(tmp_path: Path) -> None:
    def pay(base: str) -> str:
        return http_tool("pay", "Pay.", f"{base}/pay", method="POST").identity

    def described(base: str) -> str:
        document = {"openapi": "3.1.0", "paths": {"/pay": {"post": {"operationId": "pay"}}}}
        return OpenAPI("shop", document, base_url=base).tools[0].identity

    def asked(name: str) -> str:
        database = SQL(f"sqlite:///{tmp_path}/{name}.db")
        return sql_tool("one", "One.", "SELECT 1", database).identity

    for made in (pay, described):
        assert made("https://a.example") != made("https://b.example")
        assert made("https://a.example") == made("https://a.example")
    assert asked("a") != asked("b")
    assert asked("a") == asked("a")
    assert MCP("a", url="https://a.example/m").source != MCP("a", url="https://b.example/m").source
    assert MCP("a", command=["x"]).source != MCP("a", command=["y"]).source
