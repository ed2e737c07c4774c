"""The six integrations that the demo sets up: what each subscribes to, only when, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final


@dataclass(frozen=True, slots=True)
class Integration:
    """A receiver of an integrator: `number` is that of its use, `path` where it listens, `purpose` what it does.

    `condition` and `template` are those of its subscription; None: every change, the standard body.
    """

    number: int
    path: str
    purpose: str
    resource: str
    action: str
    condition: str | None = None
    template: str | None = None

    @property
    def receiver_name(self) -> str:
        """The name that it is registered under; another run of the demo knows its predecessor's by it."""
        return f"Demo: {self.path}"

    @property
    def subscription(self) -> str:
        """Resource and action, as `ISSUES CREATE`."""
        return f"{self.resource} {self.action}"


INTEGRATIONS: Final = (
    Integration(
        1, "qa", "Opens a non-conformance in its own QA list.", "ISSUES", "CREATE", condition="object.run_id != null"
    ),
    Integration(
        2,
        "monitoring",
        "Switches environment monitoring on and off at the work centre.",
        "RUN_STEPS",
        "UPDATE",
        condition='object.status != oldObject.status && "in_progress" in [object.status, oldObject.status]',
    ),
    Integration(
        3,
        "erp",
        "Books orders that were placed in a small ERP table.",
        "PURCHASE_ORDERS",
        "UPDATE",
        condition='object.status == "ordered" && oldObject.status != "ordered"',
    ),
    Integration(4, "inventory", "Raises stock by what was received.", "RECEIPTS", "CREATE"),
    Integration(
        5,
        "validation",
        "Validates values asynchronously and opens an issue.",
        "RUN_STEPS_FIELDS",
        "UPDATE",
        condition='"value" in changed && object.value != null && object.type == "number"',
    ),
    Integration(
        6,
        "teams",
        "Shows an adaptive card in Microsoft Teams, without any code of an integrator.",
        "ISSUES",
        "CREATE",
        template=(files("clarion.demo") / "issue.cel").read_text(encoding="utf-8"),
    ),
)
"""In the order of the uses' numbers."""
