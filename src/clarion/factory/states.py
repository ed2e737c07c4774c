"""The states of the factory's objects, as stored.

Source: the public manuals of First Resonance's ION (statuses of runs, steps, issues, orders, inventory, kits),
written in lower case. What a state follows from, where it follows from others, is in `rollups.sql`.
"""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Of a run, from its steps; and of a run step."""

    TODO = "todo"
    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    REDLINE = "redline"
    HOLD = "hold"
    FAILED = "failed"
    CANCELED = "canceled"


class IssueStatus(StrEnum):
    """Of an issue; it may move back."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    IN_REVIEW = "in_review"
    RESOLVED = "resolved"


class Disposition(StrEnum):
    """What is decided about the part that an issue is about."""

    USE_AS_IS = "use_as_is"
    REWORK = "rework"
    REPAIR = "repair"
    SCRAP = "scrap"
    RETURN_TO_VENDOR = "return_to_vendor"


class OrderStatus(StrEnum):
    """Of a purchase order, from its lines."""

    DRAFT = "draft"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    ORDERED = "ordered"
    RECEIVED = "received"
    CANCELED = "canceled"


class OrderLineStatus(StrEnum):
    """Of one line of a purchase order."""

    DRAFT = "draft"
    ORDERED = "ordered"
    RECEIVED = "received"
    CANCELED = "canceled"


class InventoryStatus(StrEnum):
    """Of inventory, calculated from its quantities and marks."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    SCRAPPED = "scrapped"
    INSTALLED = "installed"
    KITTED = "kitted"
    WIP = "wip"
    ON_ORDER = "on_order"


class KitStatus(StrEnum):
    """Of a kit of parts; any state may follow any other."""

    DRAFT = "draft"
    REQUESTED = "requested"
    IN_PROGRESS = "in_progress"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    CANCELED = "canceled"


class ProcedureStatus(StrEnum):
    """Of a procedure (and of an mBOM); only drafts are edited."""

    DRAFT = "draft"
    IN_REVIEW = "in_review"
    RELEASED = "released"
    ARCHIVED = "archived"


class ProcedureType(StrEnum):
    """What a procedure is for."""

    BUILD = "build"
    MAINTENANCE = "maintenance"
    TEST = "test"
    INSPECTION = "inspection"


class PartType(StrEnum):
    """Whether a part goes into the product or is used on it."""

    PART = "part"
    TOOL = "tool"


class TrackingType(StrEnum):
    """How single pieces are told apart; none: they are not."""

    SERIAL = "serial"
    LOT = "lot"


class PartStatus(StrEnum):
    """Of a part's definition."""

    RELEASED = "released"
    ARCHIVED = "archived"


class SourcingStrategy(StrEnum):
    """Where a part comes from."""

    MAKE = "make"
    BUY = "buy"
    DUAL_SOURCE = "dual_source"


class PurchaseType(StrEnum):
    """Whether a bought part is received, and kept as inventory."""

    RECEIVABLE_INVENTORY = "receivable_inventory"
    RECEIVABLE_NON_INVENTORY = "receivable_non_inventory"
    NON_RECEIVABLE_NON_INVENTORY = "non_receivable_non_inventory"


class LocationType(StrEnum):
    """Kinds of location; work is done at work centres."""

    WAREHOUSE = "warehouse"
    RACK = "rack"
    SHELF = "shelf"
    TOTE = "tote"
    WORKCENTER = "workcenter"


class LocationStatus(StrEnum):
    """Of a location."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class StepType(StrEnum):
    """Whether a step is text and fields, or a table to fill."""

    CONTENT = "content"
    DATAGRID = "datagrid"


class FieldType(StrEnum):
    """How the text in a field's `value` is to be read."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    SELECT = "select"
    MULTISELECT = "multiselect"
    SIGNOFF = "signoff"
    DATETIME = "datetime"
    FILE_ATTACHMENT = "file_attachment"
