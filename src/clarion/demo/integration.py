"""The six integrations that the demo sets up: what each subscribes to, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Integration:
    """A receiver of an integrator: `number` is that of its use, `path` where it listens, `purpose` what it does."""

    number: int
    path: str
    purpose: str
    resource: str
    action: str

    @property
    def receiver_name(self) -> str:
        """The name that it is registered under; another run of the demo knows its predecessor's by it."""
        return f"Demo: {self.path}"

    @property
    def subscription(self) -> str:
        """Resource and action, as `ISSUES CREATE`."""
        return f"{self.resource} {self.action}"


INTEGRATIONS: Final = (
    Integration(1, "qa", "Opens a non-conformance in its own QA list.", "ISSUES", "CREATE"),
    Integration(2, "monitoring", "Switches environment monitoring on at the work centre.", "RUN_STEPS", "UPDATE"),
    Integration(3, "erp", "Books orders that were placed in a small ERP table.", "PURCHASE_ORDERS", "UPDATE"),
    Integration(4, "inventory", "Raises stock by what was received.", "RECEIPTS", "CREATE"),
    Integration(5, "validation", "Validates values asynchronously and opens an issue.", "RUN_STEPS_FIELDS", "UPDATE"),
    Integration(6, "teams", "Sends an adaptive card to Microsoft Teams.", "ISSUES", "CREATE"),
)
"""In the order of the uses' numbers."""
