"""The integrators' own systems, as small as they can be: a few tables in memory."""

from __future__ import annotations

import sqlite3
from typing import Final

_TABLES: Final = """
CREATE TABLE seen (webhook_id TEXT PRIMARY KEY);
CREATE TABLE non_conformances (number INTEGER PRIMARY KEY, issue_id TEXT UNIQUE, title TEXT NOT NULL);
CREATE TABLE monitoring (work_center_id INTEGER, run_step_id TEXT, PRIMARY KEY (work_center_id, run_step_id));
CREATE TABLE erp_orders (order_id TEXT PRIMARY KEY, supplier_id INTEGER, amount TEXT NOT NULL, currency TEXT NOT NULL);
CREATE TABLE stock (part_number TEXT PRIMARY KEY, quantity NUMERIC NOT NULL);
"""


class Books:
    """What the integrators keep. One thread only; each method is one transaction."""

    def __init__(self) -> None:
        self._tables = sqlite3.connect(":memory:", isolation_level=None)
        self._tables.executescript(_TABLES)

    def is_known(self, webhook_id: str) -> bool:
        """Whether this event was dealt with: delivery is at least once, acting on it must be once."""
        return self._tables.execute("SELECT 1 FROM seen WHERE webhook_id = ?", [webhook_id]).fetchone() is not None

    def remember(self, webhook_id: str) -> None:
        """This event is dealt with."""
        self._tables.execute("INSERT OR IGNORE INTO seen VALUES (?)", [webhook_id])

    def open_non_conformance(self, issue_id: str, title: str) -> int:
        """The number of the entry in the QA list, the same for the same issue."""
        self._tables.execute(
            "INSERT OR IGNORE INTO non_conformances (issue_id, title) VALUES (?, ?)", [issue_id, title]
        )
        row = self._tables.execute("SELECT number FROM non_conformances WHERE issue_id = ?", [issue_id]).fetchone()
        return int(row[0])

    def watch(self, work_center_id: int, run_step_id: str) -> None:
        """Monitoring of a work centre is on while a step of a run is worked on there."""
        self._tables.execute("INSERT OR IGNORE INTO monitoring VALUES (?, ?)", [work_center_id, run_step_id])

    def unwatch(self, run_step_id: str) -> tuple[int, bool] | None:
        """The work centre where this step was watched, and whether others still are there; None if it was not."""
        row = self._tables.execute(
            "DELETE FROM monitoring WHERE run_step_id = ? RETURNING work_center_id", [run_step_id]
        ).fetchone()
        if row is None:
            return None
        others = self._tables.execute("SELECT 1 FROM monitoring WHERE work_center_id = ? LIMIT 1", [row[0]]).fetchone()
        return int(row[0]), others is not None

    def book_order(self, order_id: str, supplier_id: int | None, amount: str, currency: str) -> int:
        """How many orders the ERP table has, this one included."""
        self._tables.execute(
            "INSERT OR REPLACE INTO erp_orders VALUES (?, ?, ?, ?)", [order_id, supplier_id, amount, currency]
        )
        row = self._tables.execute("SELECT count(*) FROM erp_orders").fetchone()
        return int(row[0])

    def raise_stock(self, part_number: str, quantity: float) -> float:
        """The part's new stock."""
        row = self._tables.execute(
            "INSERT INTO stock VALUES (?, ?) ON CONFLICT DO UPDATE SET quantity = quantity + excluded.quantity"
            " RETURNING quantity",
            [part_number, quantity],
        ).fetchone()
        return float(row[0])
