"""What the console serves of its own and of others: listed, licensed, small, and from here only."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from roadworthy.console import assets

FOLDER = Path(assets.__file__).parent
STATIC, TEMPLATES = FOLDER / "static", FOLDER / "templates"
LISTED = tomllib.loads((STATIC / "vendored.toml").read_text("utf-8"))["package"]
OURS = {
    "console.css",
    "mark.svg",
    *(f"{n}.js" for n in ("console", "inbox", "run", "chat", "sign-in")),
}


def test_work_of_others_is_listed_with_its_licence_and_hash() -> None:
    hashes = {name: digest for package in LISTED for name, digest in package["files"].items()}
    for name, digest in hashes.items():
        assert hashlib.sha256(assets.files()[name]).hexdigest() == digest, name
    assert set(assets.files()) == {*hashes, *OURS}
    for package in LISTED:
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"] in ("0BSD", "MIT")
        assert len(package["text"]) > 400


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 300_000


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_no_script_no_style_and_no_foreign_address(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:|hx-vals=.js", text)
    assert not re.search(r"https?://|url\(", text)
    assert "| safe" not in text


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_own_files_make_no_markup_of_text_and_load_from_nowhere_else(name: str) -> None:
    text = assets.files()[name].decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")
    assert "url(" not in text
