"""What the factory's tables are called as resources, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clarion.capture.attach import Attachment
from clarion.factory.tables import SCHEMA

ORGANISATION: Final = "default"


@dataclass(frozen=True, slots=True)
class FactoryResource:
    """A table as a resource: the table's name in capitals, the older singular name (None: it is the same)."""

    table: str
    singular: str | None
    description: str

    @property
    def name(self) -> str:
        """The resource's name, as `PARTS_INVENTORY`."""
        return self.table.upper()


RESOURCES: Final = (
    FactoryResource("parts", "PART", "Definitions of what is bought, made or used, by part number and revision."),
    FactoryResource(
        "parts_inventory", "PART_INVENTORY", "Pieces and lots of a part: where they are, how many, and in which state."
    ),
    FactoryResource("procedures", "PROCEDURE", "Versioned work instructions that runs are made from."),
    FactoryResource("steps", "STEP", "Steps of a procedure, each at its work centre."),
    FactoryResource("steps_fields", "STEP_FIELD", "Data that a step of a procedure asks for, with its limits."),
    FactoryResource("runs", "RUN", "Executions of a procedure; the status follows from the steps."),
    FactoryResource("run_steps", "RUN_STEP", "Steps of a run: what is to be done, where, and how far it is."),
    FactoryResource("run_steps_fields", "RUN_STEP_FIELD", "Values measured or entered at a step of a run."),
    FactoryResource("issues", "ISSUE", "Non-conformances found on a run or on inventory, and what was decided."),
    FactoryResource("suppliers", "SUPPLIER", "Companies that parts are bought from."),
    FactoryResource("purchase_orders", "PURCHASE_ORDER", "Orders to a supplier; the status follows from the lines."),
    FactoryResource(
        "purchase_order_lines", "PURCHASE_ORDER_LINE", "Lines of a purchase order: part, quantity, cost, how much came."
    ),
    FactoryResource("receipts", "RECEIPT", "Deliveries from suppliers as they arrive at the dock."),
    FactoryResource("receipt_items", "RECEIPT_ITEM", "What came with a receipt, for which line, into which inventory."),
    FactoryResource("locations", "LOCATION", "Places: warehouses, racks, shelves, totes and work centres."),
    FactoryResource("mboms", "MBOM", "Manufacturing bills of materials, by part and version."),
    FactoryResource("mbom_item", None, "Parts and quantities of a manufacturing bill of materials."),
    FactoryResource("build_requirements", "BUILD_REQUIREMENT", "What a run has to install into what it builds."),
    FactoryResource("abom_installations", "ABOM_INSTALLATION", "Pieces that were installed: the as-built structure."),
    FactoryResource("parts_kits", "PART_KIT", "Kits of parts that are picked for a run and brought to it."),
    FactoryResource("part_kit_items", "PART_KIT_ITEM", "Parts of a kit, and how many of them were picked."),
    FactoryResource("users", "USER", "People who work in the factory."),
    FactoryResource("file_attachments", "FILE_ATTACHMENT", "Files that are attached to an object of the factory."),
)


def attachments() -> tuple[Attachment, ...]:
    """All of them, as `clarion.capture.attach.attach` takes them."""
    return tuple(
        Attachment(
            resource=resource.name,
            table=resource.table,
            schema=SCHEMA,
            singular=resource.singular,
            description=resource.description,
            organisation=ORGANISATION,
        )
        for resource in RESOURCES
    )
