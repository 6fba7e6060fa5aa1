"""Free text, once per content, addressed by a keyed hash; the only place it can be erased from.

The journal, waits and caches keep text here. Invariant: an address never changes its content,
other than to nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, MutableMapping, Sequence

from sqlalchemy import bindparam, select

from roadworthy.store.codec import Seal
from roadworthy.store.database import Statement, Tx, upsert
from roadworthy.store.schema import payload as p

ADD_PAYLOAD = Statement(upsert(p).on_conflict_do_nothing())
_AT_ONCE = 64
_BY_ID = select(p.c.id, p.c.data).where(p.c.id == bindparam("a0"))
_BY_IDS = select(p.c.id, p.c.data).where(p.c.id.in_([bindparam(f"a{i}") for i in range(_AT_ONCE)]))
_SETTLED = Statement(_BY_ID, settled=True), Statement(_BY_IDS, settled=True)
_ADDED = Statement(_BY_ID), Statement(_BY_IDS)
_ERASED = b"null"


def keep(tx: Tx, data: bytes, seal: Seal) -> str:
    """Keep a text. Returns its address."""
    address = seal.address(data)
    tx.add(ADD_PAYLOAD, id=address, data=data)
    return address


def fetch(tx: Tx, addresses: Iterable[str], into: MutableMapping[str, bytes]) -> None:
    """Fetch what is not there yet, many at once. What was erased reads as null."""
    wanted = [address for address in dict.fromkeys(addresses) if address not in into]
    missing = _fetch(tx, wanted, into, _SETTLED)
    missing = _fetch(tx, missing, into, _ADDED)  # in this batch
    into.update(dict.fromkeys(missing, _ERASED))


def _fetch(
    tx: Tx,
    wanted: Sequence[str],
    into: MutableMapping[str, bytes],
    by: tuple[Statement, Statement],
) -> list[str]:
    """Returns the addresses that are not there."""
    one, many = by
    for start in range(0, len(wanted), _AT_ONCE):
        batch = wanted[start : start + _AT_ONCE]
        if len(batch) == 1:
            found = tx.rows(one, a0=batch[0])
        else:
            filled = itertools.islice(itertools.chain(batch, itertools.repeat(batch[0])), _AT_ONCE)
            found = tx.rows(many, **{f"a{i}": address for i, address in enumerate(filled)})
        into.update((address, _ERASED if data is None else data) for address, data in found)
    return [address for address in wanted if address not in into]


def fetch_one(tx: Tx, address: str) -> bytes:
    """One text."""
    into: dict[str, bytes] = {}
    fetch(tx, (address,), into)
    return into[address]


def files_in(data: bytes) -> list[str]:
    """The addresses of the files that a text names."""
    if b'"sha":"' not in data:
        return []
    return [piece[:40].decode("ascii", "replace") for piece in data.split(b'"sha":"')[1:]]
