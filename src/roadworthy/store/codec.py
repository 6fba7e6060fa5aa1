"""Events to rows and back. Text of users, models and tools goes to payloads, once per content.

Invariant: what an older release wrote always loads; what a newer one wrote is refused by name.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from roadworthy.errors import StoreVersionError
from roadworthy.events import EVENT_TYPES, RunEvent
from roadworthy.messages import File, Message, Reply, ToolResult

_ROW = {"key", "run_id", "seq", "at"}


def _default(value: object) -> object:
    """What a field holds when it is not given: msgspec keeps a factory for mutable ones."""
    factory = getattr(value, "factory", None)
    return value if factory is None else factory()


_FIELDS = {
    cls: tuple(
        (name, default)
        for name, default in zip(
            cls.__struct_fields__,
            (msgspec.NODEFAULT,) * (len(cls.__struct_fields__) - len(cls.__struct_defaults__))
            + tuple(map(_default, cls.__struct_defaults__)),
            strict=True,
        )
        if name not in _ROW
    )
    for cls in EVENT_TYPES.values()
}
_DECODERS = {name: msgspec.json.Decoder(cls) for name, cls in EVENT_TYPES.items()}
UPCASTERS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""(type, v) -> the body one version later. Pure, kept for ever."""


def _hook(value: object) -> object:
    """Typed outputs of users: pydantic models and the like, as plain data."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_hook)
encode_json = _ENCODER.encode


class EventRow(NamedTuple):
    """An event as its table holds it, without run_id, seq and at."""

    type: str
    v: int
    key: str
    body: str
    refs: str


class Seal:
    """Addresses payloads by a keyed hash: no tenant can tell that another has the same text."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def address(self, data: bytes) -> str:
        """The payload's id."""
        mac = self._mac.copy()
        mac.update(data)
        return mac.hexdigest()[:40]


def encode(event: RunEvent, seal: Seal, payloads: dict[str, bytes]) -> EventRow:
    """One event as a row; its payloads are added to `payloads`."""
    cls = type(event)
    body: dict[str, Any] = {}
    refs: dict[str, str] = {}
    for name, default in _FIELDS[cls]:
        value = getattr(event, name)
        if value is default or value == default:
            continue
        if name in cls.payload:
            data = encode_json(_stow(value, seal, payloads))
            refs[name] = seal.address(data)
            payloads[refs[name]] = data
        else:
            body[name] = value
    return EventRow(
        cls.__name__,
        cls.v,
        event.key,
        encode_json(body).decode(),
        encode_json(refs).decode() if refs else "",
    )


def decode(row: EventRow, payloads: Mapping[str, bytes], place: tuple[str, int, int]) -> RunEvent:
    """The event of a row; `place` is (run_id, seq, at).

    Raises: StoreVersionError: the type, version or a value is unknown to this release.
    """
    body = row.body
    cls = EVENT_TYPES.get(row.type)
    if cls is None or row.v > cls.v:
        raise _newer(row, place[0])
    for version in range(row.v, cls.v):
        body = encode_json(UPCASTERS[row.type, version](msgspec.json.decode(body))).decode()
    run_id, seq, at = place
    head = {"key": row.key, "run_id": run_id, "seq": seq, "at": at}
    parts = [encode_json(head)[:-1]]
    if len(body) > 2:
        parts.append(b"," + body[1:-1].encode())
    refs: dict[str, str] = msgspec.json.decode(row.refs) if row.refs else {}
    parts.extend(b',"%s":%s' % (name.encode(), payloads[ref]) for name, ref in refs.items())
    try:
        event = _DECODERS[row.type].decode(b"".join(parts) + b"}")
    except msgspec.ValidationError as error:  # such as a kind that is not known here
        raise _newer(row, place[0]) from error
    return _fetch(event, payloads)


def _newer(row: EventRow, run_id: str) -> StoreVersionError:
    return StoreVersionError(
        f"Run {run_id} holds an event {row.type} v{row.v} of a newer release; upgrade roadworthy. "
        "The run was left as it is."
    )


def references(row: EventRow) -> list[str]:
    """The payload ids a row needs (files are found after decoding)."""
    return list(msgspec.json.decode(row.refs).values()) if row.refs else []


def _stow(value: object, seal: Seal, payloads: dict[str, bytes]) -> object:
    """Replace the bytes of files by their address."""

    def stow_file(file: File) -> File:
        if file.data is None:
            return file
        sha = seal.address(file.data)
        payloads[sha] = file.data
        return replace(file, data=None, sha=sha)

    return _map_files(value, stow_file)


def _map_files(value: object, change: Callable[[File], File]) -> object:
    if isinstance(value, Reply):
        message = _map_files(value.message, change)
        return value if message is value.message else replace(value, message=message)
    if isinstance(value, ToolResult):
        return replace(value, files=tuple(map(change, value.files))) if value.files else value
    if isinstance(value, Message):
        if not any(isinstance(p, File) or getattr(p, "files", ()) for p in value.parts):
            return value
        parts = tuple(
            change(p) if isinstance(p, File) else _map_files(p, change) for p in value.parts
        )
        return replace(value, parts=parts)
    return value


def _fetch(event: RunEvent, payloads: Mapping[str, bytes]) -> RunEvent:
    """Give files their bytes back where they were loaded."""

    def fetch_file(file: File) -> File:
        data = payloads.get(file.sha or "")
        return file if data is None else replace(file, data=data, sha=None)

    changed = {}
    for name in type(event).payload:
        value = getattr(event, name)
        mapped = _map_files(value, fetch_file)
        if mapped is not value:
            changed[name] = mapped
    return replace(event, **changed) if changed else event
