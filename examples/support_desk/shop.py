"""The shop: a SQLite database that knows nothing of agents. `python -m examples.support_desk.shop`
prints what is in it.

`desk.py` opens it for one customer at a time. Invariant: a customer sees and changes only what is
theirs, whoever asks and however.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

POLICY = (
    "Damaged, wrong or missing: full refund at once, nothing has to be sent back. "
    "Change of mind: refund once the parcel is back. The money arrives within 3 bank days."
)

_SCHEMA = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, email TEXT, address TEXT);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, customer TEXT REFERENCES customers, item TEXT, cents INTEGER, placed TEXT);
CREATE TABLE parcels (
    order_id TEXT PRIMARY KEY REFERENCES orders, state TEXT, place TEXT,
    failures INTEGER);               -- the carrier's server fails so many times, then works
CREATE TABLE address_changes (key TEXT PRIMARY KEY, customer TEXT, address TEXT);
CREATE TABLE refunds (               -- the bank's book. Nothing in it forbids to pay twice
    id INTEGER PRIMARY KEY, order_id TEXT REFERENCES orders, cents INTEGER, reason TEXT,
    reference TEXT, paid_at TEXT DEFAULT CURRENT_TIMESTAMP);
"""
_CUSTOMERS = (
    ("ana", "Ana Silva", "ana@example.com", "Rua das Flores 4, Porto"),
    ("ben", "Ben Okafor", "ben@example.com", "12 Canal Street, Bristol"),
    ("chloe", "Chloe Martin", "chloe@example.com", "8 rue Vauban, Lyon"),
    ("dana", "Dana Weiss", "dana@example.com", "Lindenweg 21, Bern"),
)
_ORDERS = (  # what the story needs; dana's ten orders are drawn
    ("A-1001", "ana", "Espresso machine", 24900, "delivered", "front door", 0),
    ("A-1002", "ana", "Burr grinder", 8950, "in transit", "Lisbon depot", 0),
    ("A-2001", "ben", "Desk lamp", 6400, "in transit", "Bristol hub", 0),
    ("A-2002", "ben", "Bookends, brass", 3200, "out for delivery", "Bristol, van 12", 2),
    ("A-2003", "ben", "Enamel mug", 1850, "lost", "unknown", 0),
    ("A-3001", "chloe", "Cast-iron pan", 7900, "in transit", "Dijon depot", 0),
)
_ITEMS = ("Tea towel", "Fruit bowl", "Oven mitts", "Bread knife", "Carafe", "Salt cellar")
_STATES = (("delivered", "front door"), ("in transit", "Basel depot"), ("delivered", "neighbour"))
_FIRST_DAY = date(2026, 1, 5)


class CarrierDown(Exception):
    """The carrier's server answered 503."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order. euros: what was paid; refunded: what went back."""

    id: str
    item: str
    euros: Decimal
    placed: str
    state: str
    refunded: Decimal


@dataclass(frozen=True, kw_only=True)
class Refund:
    """One line of the bank's book. reference: the idempotency key of the call that paid it."""

    id: int
    order_id: str
    euros: Decimal
    reason: str
    reference: str


@dataclass(frozen=True)
class Shop:
    """The shop as one customer may see it."""

    db: sqlite3.Connection
    customer: str

    def profile(self) -> dict[str, str]:
        """The customer's name, e-mail and address; {} for a stranger."""
        query = "SELECT id, name, email, address FROM customers WHERE id = ?"
        row = self.db.execute(query, (self.customer,)).fetchone()
        return dict(zip(("id", "name", "email", "address"), row or (), strict=False))

    def orders(self) -> list[Order]:
        """All their orders, the oldest first."""
        query = (
            "SELECT o.id, o.item, o.cents, o.placed, p.state, "
            "(SELECT coalesce(sum(r.cents), 0) FROM refunds r WHERE r.order_id = o.id) "
            "FROM orders o JOIN parcels p ON p.order_id = o.id WHERE o.customer = ? ORDER BY o.id"
        )
        rows = self.db.execute(query, (self.customer,))
        return [
            Order(id=i, item=item, euros=_euros(paid), placed=on, state=at, refunded=_euros(back))
            for i, item, paid, on, at, back in rows
        ]

    def order(self, order_id: str) -> Order | None:
        """One of their orders; None also where it is somebody else's."""
        return next((order for order in self.orders() if order.id == order_id), None)

    def parcel(self, order_id: str) -> dict[str, str]:
        """Where a parcel is, as the carrier says. Raises: CarrierDown."""
        answered = self.db.execute(
            "UPDATE parcels SET failures = failures - 1 WHERE order_id = ? AND failures > 0",
            (order_id,),
        )
        if answered.rowcount:
            raise CarrierDown("503 Service Unavailable")
        query = "SELECT state, place FROM parcels WHERE order_id = ?"
        state, place = self.db.execute(query, (order_id,)).fetchone()
        return {"order_id": order_id, "state": state, "place": place}

    def move(self, address: str, key: str) -> None:
        """Change the customer's address; done once for a key, however often it is asked."""
        change = "INSERT OR IGNORE INTO address_changes VALUES (?, ?, ?)"
        if self.db.execute(change, (key, self.customer, address)).rowcount:
            where = "UPDATE customers SET address = ? WHERE id = ?"
            self.db.execute(where, (address, self.customer))

    def pay_back(self, order_id: str, euros: Decimal, reason: str, reference: str) -> int:
        """Tell the bank to pay. It pays each time it is told! Returns the number of the refund."""
        pay = "INSERT INTO refunds (order_id, cents, reason, reference) VALUES (?, ?, ?, ?)"
        return self.db.execute(pay, (order_id, int(euros * 100), reason, reference)).lastrowid or 0

    def refunds(self, order_id: str = "", reference: str = "") -> list[Refund]:
        """The bank's book: of an order, or under a reference."""
        query = (
            "SELECT id, order_id, cents, reason, reference FROM refunds "
            "WHERE order_id = ? OR reference = ? ORDER BY id"
        )
        return [
            Refund(id=id, order_id=order, euros=_euros(cents), reason=reason, reference=key)
            for id, order, cents, reason, key in self.db.execute(query, (order_id, reference))
        ]


def connect(path: Path) -> sqlite3.Connection:
    """The shop's database, made and filled when it does not exist yet."""
    fresh = not path.exists()
    # Tools run in threads of their own; SQLite itself takes care that they do not collide.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    if fresh:
        with db:
            db.executescript(_SCHEMA)
            db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", _CUSTOMERS)
            for order in (*_ORDERS, *_drawn()):
                _add(db, order)
    return db


def _drawn() -> Iterator[tuple[str, str, str, int, str, str, int]]:
    """Dana's orders: made up, and the same each time."""
    dice = random.Random(7)  # noqa: S311 - test data, no secret
    for number in range(10):
        cents = dice.randrange(900, 4900, 50)
        yield (f"A-40{number:02}", "dana", dice.choice(_ITEMS), cents, *dice.choice(_STATES), 0)


def _add(db: sqlite3.Connection, order: tuple[str, str, str, int, str, str, int]) -> None:
    id, customer, item, cents, state, place, failures = order
    placed = (_FIRST_DAY + timedelta(days=int(id[-2:]) * 3)).isoformat()
    db.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", (id, customer, item, cents, placed))
    db.execute("INSERT INTO parcels VALUES (?, ?, ?, ?)", (id, state, place, failures))


def _euros(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


if __name__ == "__main__":
    with closing(connect(Path(":memory:"))) as database:
        for name, *_ in _CUSTOMERS:
            print(name, *Shop(database, name).orders(), sep="\n  ")
