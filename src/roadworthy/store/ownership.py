"""Which process executes the runs of a SQLite file: one owner, by a lease row.

The runtime takes and renews it on its event loop. Invariant: at most one live process holds the
lease; a dead one's is taken over at once, a silent one's after it expires.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import bindparam, delete, or_, select

from roadworthy.clock import MICROS
from roadworthy.errors import StoreUnavailable
from roadworthy.store.database import Statement, Tx, upsert
from roadworthy.store.schema import owner as o

LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
COPYING = "copy"  # in place of the boot: the lease of a copy, which no process takes over

_P = bindparam
_SEE = Statement(select(o.c.holder, o.c.boot, o.c.pid, o.c.expires).where(o.c.id == 1))
_new = upsert(o)
_TAKE = Statement(
    _new.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "holder": _new.excluded.holder,
            "boot": _new.excluded.boot,
            "pid": _new.excluded.pid,
            "epoch": o.c.epoch + 1,
            "expires": _new.excluded.expires,
        },
        where=or_(o.c.holder == _new.excluded.holder, o.c.holder == _P("seen")),
    )
)
_LEAVE = Statement(delete(o).where(o.c.holder == _P("who")))


@dataclass(frozen=True, kw_only=True)
class Owner:
    """This process, as the lease names it."""

    holder: str
    boot: str
    pid: int


def this_process(holder: str) -> Owner:
    """The identity of this process; `holder` is its runtime's own id."""
    return Owner(holder=holder, boot=_boot(), pid=os.getpid())


def take(tx: Tx, me: Owner, now: int) -> bool:
    """Take or renew the lease. False while another live process holds it."""
    row = tx.one(_SEE)
    seen = me.holder
    if row is not None and row[0] != me.holder:
        holder, boot, pid, expires = row
        if expires > now and not _is_dead(boot, pid, me):
            return False
        seen = holder
    lease = now + int(LEASE_SECONDS * MICROS)
    return bool(
        tx.run(
            _TAKE,
            id=1,
            holder=me.holder,
            boot=me.boot,
            pid=me.pid,
            epoch=1,
            expires=lease,
            seen=seen,
        )
    )


def leave(tx: Tx, me: Owner) -> None:
    """Give the lease up, so that another process need not wait for it to expire."""
    tx.run(_LEAVE, who=me.holder)


def check_whole(tx: Tx) -> None:
    """Raises: StoreUnavailable: a copy into this store was begun and is not finished."""
    row = tx.one(_SEE)
    if row is not None and row[1] == COPYING:
        raise StoreUnavailable(
            "This store is an unfinished copy of another. Call `roadworthy store copy` again."
        )


def holder_of(tx: Tx) -> tuple[str, int] | None:
    """(holder, process id) of whoever has the lease, alive or not."""
    row = tx.one(_SEE)
    return None if row is None else (row[0], row[2])


def _is_dead(boot: str, pid: int, me: Owner) -> bool:
    """Whether the holder was a process of this machine that is gone."""
    if boot != me.boot:
        return False  # another machine or container, or before a restart: only expiry tells
    if pid == me.pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """A killed child whose parent has not collected it still answers kill(0)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _boot() -> str:
    """Names the boot and the space in which process ids mean something (containers have own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"host-{os.uname().nodename}"
