"""What five of the six integrations do with an event that was verified. Conditions have filtered; the sixth has no code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from clarion.demo.application import Application
from clarion.demo.books import Books
from clarion.factory.act import Act
from clarion_receive import VerifiedEvent


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, in words; `act` is what it made happen in the factory."""

    words: str
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """The request may be answered; the work goes on."""

    work: Awaitable[Done]


Handler = Callable[[VerifiedEvent], Awaitable[Done | Later]]


class Integrators:
    """Five integrators in one process. `handlers` finds what one of them does by its path."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._places = application.places()
        self.books = Books()
        self.handlers: Final[dict[str, Handler]] = {
            "qa": self._qa,
            "monitoring": self._monitoring,
            "erp": self._erp,
            "inventory": self._inventory,
            "validation": self._validation,
        }

    async def _qa(self, event: VerifiedEvent) -> Done:
        number = self.books.open_non_conformance(event.object_id, str(event.data["title"]))
        return Done(f"non-conformance NC-{number} opened")

    async def _monitoring(self, event: VerifiedEvent) -> Done:
        place = event.data["location_id"]
        if event.data["status"] == "in_progress":
            if place is None:
                return Done("begun at no work centre: nothing to monitor")
            self.books.watch(place, event.object_id)
            return Done(f"monitoring on: {self._place(place)}")
        left = self.books.unwatch(event.object_id)
        if left is None:
            return Done("monitoring was not on")
        if left[1]:
            return Done(f"monitoring stays on: {self._place(left[0])} has other work")
        return Done(f"monitoring off: {self._place(left[0])}")

    async def _erp(self, event: VerifiedEvent) -> Done:
        amount, currency = f"{Decimal(str(event.data['estimated_total_cost'])):.2f}", str(event.data["currency"])
        count = self.books.book_order(event.object_id, event.data["supplier_id"], amount, currency)
        return Done(f"booked: {amount} {currency}, order {count} in the ERP table")

    async def _inventory(self, event: VerifiedEvent) -> Done:
        # The receipt alone does not say what came: its items are asked for.
        received = await asyncio.to_thread(self._application.received, event.object_id)
        raised = [
            f"{one.part_number} +{one.quantity:g} = {self.books.raise_stock(one.part_number, one.quantity):g}"
            for one in received
        ]
        return Done("stock: " + (", ".join(raised) or "nothing that is counted"))

    async def _validation(self, event: VerifiedEvent) -> Later:
        return Later(self._validate(event))

    async def _validate(self, event: VerifiedEvent) -> Done:
        field = event.data
        limits = f"{field['value_min']} to {field['value_max']} {field['unit'] or ''}".rstrip()
        if _within(field["value"], field["value_min"], field["value_max"]):
            return Done(f"{field['value']} is within limits")
        title = f"{field['name']} {field['value']} is outside {limits}"
        act = await asyncio.to_thread(
            self._application.open_issue,
            field["run_step_id"],
            field["entered_by_id"],
            title,
            f"{field['name']} = {field['value']}, entered by {event.actor.get('name')}",
            limits,
        )
        return Done(f"{field['value']} is outside {limits}: issue {act.object_id} opened", act)

    def _place(self, location_id: int) -> str:
        return self._places.get(location_id, f"location {location_id}")


def _within(value: object, low: object, high: object) -> bool:
    """Whether a value as entered is a number within its limits; None is no limit."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return False
    return (low is None or number >= Decimal(str(low))) and (high is None or number <= Decimal(str(high)))
