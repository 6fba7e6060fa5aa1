"""What a server offers, as it was accepted: fingerprints of it, pin files, and what changed.

`connection` compares at every opening, `roadworthy pin` shows and writes. Invariant: everything
that decides what a call means, or that a model reads, is in the fingerprint.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from roadworthy.errors import ConfigurationError
from roadworthy.messages import JsonObject

_PREFIX = "sha256:"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One tool as a server describes it. hints: what it says of its effect, True or False."""

    name: str
    description: str
    parameters: JsonObject
    returns: JsonObject | None = None
    hints: JsonObject


def fingerprint(offers: Sequence[Offer]) -> str:
    """`sha256:` and 64 hex digits over all of them, in any order."""
    plain = json.dumps(_plain(offers), sort_keys=True, separators=(",", ":"))
    return _PREFIX + hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()


def is_fingerprint(pin: str | Path) -> bool:
    """Whether a pin is a fingerprint itself, not the file that has it."""
    return str(pin).startswith(_PREFIX)


@dataclass(frozen=True)
class Accepted:
    """What was accepted: its fingerprint, and the tools, where a pin file has them."""

    fingerprint: str
    tools: JsonObject | None = None

    @classmethod
    def read(cls, pin: str | Path) -> Accepted:
        """From a fingerprint or a pin file. Raises: ConfigurationError: there is none."""
        if is_fingerprint(pin):
            return cls(str(pin))
        try:
            data = json.loads(Path(pin).read_text(encoding="utf-8"))
            return cls(str(data["pin"]), dict(data["tools"]))
        except FileNotFoundError:
            why = f"There is no pin file {pin}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"{pin} is no pin file ({type(error).__name__})"
        raise ConfigurationError(f"{why}. `roadworthy pin FILE --write` writes it.")

    @classmethod
    def of(cls, offers: Sequence[Offer]) -> Accepted:
        """What is offered, as accepted."""
        return cls(fingerprint(offers), _plain(offers))

    def changes(self, offers: Sequence[Offer]) -> str:
        """What is different now, in a line."""
        if self.tools is None:
            return "there are now: " + ", ".join(sorted(offer.name for offer in offers))
        old, new = self.tools, _plain(offers)
        found = [f"tool {name} removed" for name in old if name not in new]
        for name, offer in new.items():
            before = old.get(name, {})
            parts = [part for part in offer if name in old and offer[part] != before.get(part)]
            if name not in old:
                found.append(f"tool {name} added")
            elif parts:
                found.append(f"tool {name}: {', '.join(parts)}")
        return "; ".join(found)

    def shown(self, offers: Sequence[Offer]) -> str:
        """What is different now, line by line, for a person who is to accept it."""
        before = [] if self.tools is None else _text(self.tools).splitlines()
        lines = difflib.unified_diff(
            before, _text(_plain(offers)).splitlines(), "accepted", "offered", lineterm="", n=2
        )
        return "\n".join(lines)


def write(pin: Path, server: str, offers: Sequence[Offer]) -> None:
    """Accept what is offered, in a file that is read like code and committed with it."""
    data = {"server": server, "pin": fingerprint(offers), "tools": _plain(offers)}
    pin.parent.mkdir(parents=True, exist_ok=True)
    pin.write_text(_text(data) + "\n", encoding="utf-8")


def _plain(offers: Sequence[Offer]) -> JsonObject:
    plain = {}
    for offer in sorted(offers, key=lambda each: each.name):
        fields = asdict(offer)
        plain[fields.pop("name")] = fields
    return plain


def _text(data: JsonObject) -> str:
    return json.dumps(data, indent=2, sort_keys=True)  # ASCII: what cannot be seen is spelled out
