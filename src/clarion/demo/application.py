"""What the integrators ask of the factory beside its webhooks: two questions, and one act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from clarion.database.address import DatabaseAddress
from clarion.factory.act import Act, ActRefused, Person, open_engine, perform
from clarion.factory.quality import create_issue, report_issue
from clarion.factory.simulate import staff


@dataclass(frozen=True, slots=True)
class Received:
    """One part on a receipt."""

    part_number: str
    quantity: float


class Application:
    """The factory as an integrator's program reaches it. Blocks; may be used from any thread."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._address = address
        self._engine = open_engine(address)
        self._anybody = staff(self._engine)[0]

    def places(self) -> dict[int, str]:
        """The names of all locations by their key."""
        return {int(key): str(name) for key, name in self._ask("SELECT id, name FROM factory.locations", [])}

    def received(self, receipt_id: str) -> list[Received]:
        """The parts that came with a receipt; what has no part number is left out."""
        rows = self._ask(
            """SELECT part.part_number, sum(item.quantity)
               FROM factory.receipt_items AS item
               JOIN factory.parts_inventory AS stock ON stock.id = item.parts_inventory_id
               JOIN factory.parts AS part ON part.id = stock.part_id
               WHERE item.receipt_id = %s
               GROUP BY part.part_number ORDER BY part.part_number""",
            [int(receipt_id)],
        )
        return [Received(str(number), float(quantity)) for number, quantity in rows]

    def open_issue(self, run_step_id: int, entered_by_id: int | None, title: str, cause: str, expected: str) -> Act:
        """An issue on a step of a run; one of its own when that step has ended meanwhile."""
        by = Person(entered_by_id or self._anybody.id, "validation service")
        try:
            return perform(
                self._engine,
                by,
                lambda session: report_issue(
                    session, run_step_id, title, by, cause_condition=cause, expected_condition=expected
                ),
            )
        except ActRefused:
            return perform(self._engine, by, lambda session: create_issue(session, title, by, cause_condition=cause))

    def _ask(self, question: str, values: list[Any]) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._address.url, application_name="clarion demo receiver") as connection:
            return connection.execute(question.encode(), values).fetchall()
