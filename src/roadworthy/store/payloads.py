"""Free text, once per content, addressed by a keyed hash; the only place it can be erased from.

The journal, waits and caches keep text here. Invariant: an address never changes its content,
other than to nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, MutableMapping

from sqlalchemy import bindparam, select

from roadworthy.store.codec import Seal
from roadworthy.store.database import Statement, Tx, upsert
from roadworthy.store.schema import payload as p

ADD_PAYLOAD = Statement(upsert(p).on_conflict_do_nothing())
_AT_ONCE = 64
_ONE = Statement(select(p.c.id, p.c.data).where(p.c.id == bindparam("a0")))
_MANY = Statement(
    select(p.c.id, p.c.data).where(p.c.id.in_([bindparam(f"a{i}") for i in range(_AT_ONCE)]))
)
_ERASED = b"null"


def keep(tx: Tx, data: bytes, seal: Seal) -> str:
    """Keep a text. Returns its address."""
    address = seal.address(data)
    tx.add(ADD_PAYLOAD, id=address, data=data)
    return address


def fetch(tx: Tx, addresses: Iterable[str], into: MutableMapping[str, bytes]) -> None:
    """Fetch what is not there yet, many at once. What was erased reads as null."""
    wanted = [address for address in dict.fromkeys(addresses) if address not in into]
    for start in range(0, len(wanted), _AT_ONCE):
        batch = wanted[start : start + _AT_ONCE]
        into.update(dict.fromkeys(batch, _ERASED))
        if len(batch) == 1:
            found = tx.rows(_ONE, a0=batch[0])
        else:
            filled = itertools.islice(itertools.chain(batch, itertools.repeat(batch[0])), _AT_ONCE)
            found = tx.rows(_MANY, **{f"a{i}": address for i, address in enumerate(filled)})
        into.update((address, data) for address, data in found if data is not None)


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
