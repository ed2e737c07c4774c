"""The factory's tables: a manufacturer's system of record, after the objects of First Resonance's ION.

Each has a key `id` that the database draws, and `created`.
Only what names a row or ties it to its parent has no default, so that one plain INSERT makes a run or an issue
from its title. Columns marked as calculated are written by `rollups.sql`.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Numeric,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column

from clarion.factory.states import (
    Disposition,
    FieldType,
    InventoryStatus,
    IssueStatus,
    KitStatus,
    LocationStatus,
    LocationType,
    OrderLineStatus,
    OrderStatus,
    PartStatus,
    PartType,
    ProcedureStatus,
    ProcedureType,
    PurchaseType,
    RunStatus,
    SourcingStrategy,
    StepType,
    TrackingType,
)

SCHEMA = "factory"


class Base(DeclarativeBase):
    """All tables of the factory, in its own schema."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        },
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        str: Text,
        Decimal: Numeric,
        date: Date,
        datetime: DateTime(timezone=True),
        list[str]: ARRAY(Text),
    }

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, sort_order=-1)
    created: Mapped[datetime] = mapped_column(server_default=text("now()"), sort_order=1)


Quantity = Annotated[Decimal, mapped_column(server_default=text("0"))]
No = Annotated[bool, mapped_column(server_default=text("false"))]
Empty = Annotated[str, mapped_column(server_default=text("''"))]

_OPEN = text("status IN ('todo', 'in_progress', 'redline', 'hold')")


def _state(column: str, states: type[StrEnum], default: StrEnum | None) -> MappedColumn[Any]:
    """A text column that holds one of `states`."""
    listed = ", ".join(f"'{state}'" for state in states)
    return mapped_column(
        Text,
        CheckConstraint(f"{column} IN ({listed})", name=column),
        server_default=None if default is None else text(f"'{default}'"),
    )


def _to(target: str, *, lost: str | None = None, index: bool = True) -> MappedColumn[Any]:
    """A reference to another table; `lost` is what a delete over there does here (nothing: it is refused)."""
    return mapped_column(BigInteger, ForeignKey(f"{SCHEMA}.{target}.id", ondelete=lost), index=index)


# ---------------------------------------------------------------- people and places


class User(Base):
    __tablename__ = "users"

    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(unique=True)
    active: Mapped[bool] = mapped_column(server_default=text("true"))


class Location(Base):
    __tablename__ = "locations"

    name: Mapped[str]
    type: Mapped[str] = _state("type", LocationType, LocationType.SHELF)
    status: Mapped[str] = _state("status", LocationStatus, LocationStatus.ACTIVE)
    description: Mapped[Empty]
    parent_id: Mapped[int | None] = _to("locations", index=False)
    supervisor_id: Mapped[int | None] = _to("users", index=False)
    inventory_available: Mapped[bool] = mapped_column(server_default=text("true"))
    exclude_from_merge: Mapped[No]


class Supplier(Base):
    __tablename__ = "suppliers"

    name: Mapped[str]
    email: Mapped[str | None]
    active: Mapped[bool] = mapped_column(server_default=text("true"))


class FileAttachment(Base):
    __tablename__ = "file_attachments"
    __table_args__ = (Index("file_attachments_of_object", "resource", "object_id"),)

    file_name: Mapped[str]
    content_type: Mapped[str] = mapped_column(server_default=text("'application/octet-stream'"))
    size_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    resource: Mapped[str | None]
    object_id: Mapped[int | None]
    uploaded_by_id: Mapped[int | None] = _to("users", index=False)


# ---------------------------------------------------------------- what is built, and how


class Part(Base):
    __tablename__ = "parts"
    __table_args__ = (
        UniqueConstraint("part_number", "revision"),
        CheckConstraint("length(description) <= 512", name="description"),
    )

    part_number: Mapped[str]
    revision: Mapped[str] = mapped_column(server_default=text("'A'"))
    description: Mapped[Empty]
    part_type: Mapped[str] = _state("part_type", PartType, PartType.PART)
    tracking_type: Mapped[str | None] = _state("tracking_type", TrackingType, None)
    status: Mapped[str] = _state("status", PartStatus, PartStatus.RELEASED)
    sourcing_strategy: Mapped[str] = _state("sourcing_strategy", SourcingStrategy, SourcingStrategy.BUY)
    purchase_type: Mapped[str] = _state("purchase_type", PurchaseType, PurchaseType.RECEIVABLE_INVENTORY)
    cost: Mapped[Decimal | None]
    lead_time_days: Mapped[int | None]
    reorder_quantity_min: Mapped[Decimal | None]
    reorder_quantity_max: Mapped[Decimal | None]
    maintenance_interval_days: Mapped[int | None]
    supplier_part_number: Mapped[str | None]
    export_controlled: Mapped[No]
    is_latest_revision: Mapped[bool] = mapped_column(server_default=text("true"))
    revised_from_id: Mapped[int | None] = _to("parts", index=False)


class Mbom(Base):
    __tablename__ = "mboms"

    part_id: Mapped[int] = _to("parts")
    version: Mapped[int] = mapped_column(server_default=text("1"))
    status: Mapped[str] = _state("status", ProcedureStatus, ProcedureStatus.DRAFT)


class MbomItem(Base):
    __tablename__ = "mbom_item"

    mbom_id: Mapped[int] = _to("mboms", lost="CASCADE")
    part_id: Mapped[int] = _to("parts", index=False)
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    reference_designators: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))


class Procedure(Base):
    __tablename__ = "procedures"

    family_id: Mapped[int | None]
    title: Mapped[str]
    description: Mapped[Empty]
    type: Mapped[str] = _state("type", ProcedureType, ProcedureType.BUILD)
    version: Mapped[int] = mapped_column(server_default=text("1"))
    status: Mapped[str] = _state("status", ProcedureStatus, ProcedureStatus.DRAFT)
    part_id: Mapped[int | None] = _to("parts", index=False)
    export_controlled: Mapped[No]
    labels: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))


class Step(Base):
    __tablename__ = "steps"

    procedure_id: Mapped[int] = _to("procedures", lost="CASCADE")
    title: Mapped[str]
    type: Mapped[str] = _state("type", StepType, StepType.CONTENT)
    position: Mapped[int] = mapped_column(server_default=text("0"))
    content: Mapped[Empty]
    lead_time_seconds: Mapped[int | None]
    is_standard_step: Mapped[No]
    location_id: Mapped[int | None] = _to("locations", index=False)


class StepField(Base):
    __tablename__ = "steps_fields"

    step_id: Mapped[int] = _to("steps", lost="CASCADE")
    name: Mapped[str]
    type: Mapped[str] = _state("type", FieldType, FieldType.STRING)
    position: Mapped[int] = mapped_column(server_default=text("0"))
    unit: Mapped[str | None]
    value_min: Mapped[Decimal | None]
    value_max: Mapped[Decimal | None]
    required: Mapped[No]
    allow_not_applicable: Mapped[No]
    options: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    peer_review_required: Mapped[No]


# ---------------------------------------------------------------- buying and stock


class PurchaseOrder(Base):
    __tablename__ = "purchase_orders"
    __table_args__ = (
        Index(
            "purchase_orders_open",
            "status",
            "id",
            postgresql_where=text("status IN ('draft', 'in_review', 'approved')"),
        ),
    )

    status: Mapped[str] = _state("status", OrderStatus, OrderStatus.DRAFT)
    """Calculated from the lines, where there are any."""
    supplier_id: Mapped[int | None] = _to("suppliers", index=False)
    assigned_to_id: Mapped[int | None] = _to("users", index=False)
    external_reference: Mapped[str | None]
    currency: Mapped[str] = mapped_column(server_default=text("'USD'"))
    estimated_total_cost: Mapped[Quantity]
    """Calculated: quantity x cost of the lines that are not canceled."""
    received_quantity: Mapped[Quantity]
    """Calculated: pieces received over all lines."""


class PurchaseOrderLine(Base):
    __tablename__ = "purchase_order_lines"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity"),
        Index("purchase_order_lines_open", "id", postgresql_where=text("status = 'ordered'")),
    )

    purchase_order_id: Mapped[int] = _to("purchase_orders", lost="CASCADE")
    part_id: Mapped[int | None] = _to("parts", index=False)
    description: Mapped[Empty]
    status: Mapped[str] = _state("status", OrderLineStatus, OrderLineStatus.DRAFT)
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    received_quantity: Mapped[Quantity]
    """Calculated from the receipt items."""
    cost: Mapped[Decimal] = mapped_column(server_default=text("0"))
    """Of one piece, in the order's currency."""
    paid: Mapped[No]
    needed_by: Mapped[date | None]
    expected_on: Mapped[date | None]


class PartInventory(Base):
    __tablename__ = "parts_inventory"
    __table_args__ = (
        UniqueConstraint("part_id", "serial_number"),
        CheckConstraint("quantity >= 0", name="quantity"),
        CheckConstraint("quantity_scrapped >= 0 AND quantity_scrapped <= quantity", name="quantity_scrapped"),
        Index("parts_inventory_available", "part_id", "id", postgresql_where=text("status = 'available'")),
    )

    part_id: Mapped[int] = _to("parts", index=False)
    serial_number: Mapped[str | None]
    lot_number: Mapped[str | None]
    status: Mapped[str] = _state("status", InventoryStatus, InventoryStatus.AVAILABLE)
    """Calculated from the quantities and marks below."""
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    quantity_available: Mapped[Quantity]
    """Calculated: what is neither scrapped, installed nor kitted; 0 unless the status is available."""
    quantity_scrapped: Mapped[Quantity]
    quantity_installed: Mapped[Quantity]
    """Calculated from the installations."""
    quantity_kitted: Mapped[Quantity]
    """Calculated from the open kits."""
    on_order: Mapped[No]
    work_in_progress: Mapped[No]
    quality_hold: Mapped[No]
    """Calculated: an issue on it is not resolved."""
    cost: Mapped[Decimal | None]
    unit_of_measure: Mapped[str] = mapped_column(server_default=text("'each'"))
    location_id: Mapped[int | None] = _to("locations", index=False)
    supplier_id: Mapped[int | None] = _to("suppliers", index=False)
    purchase_order_line_id: Mapped[int | None] = _to("purchase_order_lines", lost="SET NULL")
    received_at: Mapped[datetime | None]


class Receipt(Base):
    __tablename__ = "receipts"

    purchase_order_id: Mapped[int | None] = _to("purchase_orders", lost="SET NULL")
    packing_slip: Mapped[str | None]
    received_by_id: Mapped[int | None] = _to("users", index=False)
    location_id: Mapped[int | None] = _to("locations", index=False)
    received_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class ReceiptItem(Base):
    __tablename__ = "receipt_items"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity"),)

    receipt_id: Mapped[int] = _to("receipts", lost="CASCADE")
    purchase_order_line_id: Mapped[int | None] = _to("purchase_order_lines", lost="SET NULL")
    parts_inventory_id: Mapped[int | None] = _to("parts_inventory", lost="SET NULL")
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))


# ---------------------------------------------------------------- the shop floor


class Run(Base):
    __tablename__ = "runs"
    __table_args__ = (Index("runs_open", "status", "id", postgresql_where=_OPEN),)

    title: Mapped[str]
    status: Mapped[str] = _state("status", RunStatus, RunStatus.TODO)
    """Calculated from the steps, where there are any; a canceled run stays so."""
    procedure_id: Mapped[int | None] = _to("procedures", index=False)
    part_id: Mapped[int | None] = _to("parts", index=False)
    parts_inventory_id: Mapped[int | None] = _to("parts_inventory", lost="SET NULL")
    batch: Mapped[str | None]
    assigned_to_id: Mapped[int | None] = _to("users", index=False)
    started_at: Mapped[datetime | None]
    """Calculated: when the first step started."""
    completed_at: Mapped[datetime | None]
    """Calculated: when the last step was completed."""


class RunStep(Base):
    __tablename__ = "run_steps"
    __table_args__ = (Index("run_steps_open", "status", "id", postgresql_where=_OPEN),)

    run_id: Mapped[int] = _to("runs", lost="CASCADE")
    title: Mapped[str]
    status: Mapped[str] = _state("status", RunStatus, RunStatus.TODO)
    position: Mapped[int] = mapped_column(server_default=text("0"))
    """Steps of a lower position come first; equal ones are parallel."""
    content: Mapped[Empty]
    step_id: Mapped[int | None] = _to("steps", lost="SET NULL")
    location_id: Mapped[int | None] = _to("locations", index=False)
    available_to_work: Mapped[No]
    """Calculated: open, and all steps before it are done."""
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class RunStepField(Base):
    __tablename__ = "run_steps_fields"

    run_step_id: Mapped[int] = _to("run_steps", lost="CASCADE")
    name: Mapped[str]
    type: Mapped[str] = _state("type", FieldType, FieldType.STRING)
    position: Mapped[int] = mapped_column(server_default=text("0"))
    value: Mapped[str | None]
    """As entered; `type` says how to read it. A multiselect is a JSON array."""
    unit: Mapped[str | None]
    value_min: Mapped[Decimal | None]
    value_max: Mapped[Decimal | None]
    required: Mapped[No]
    allow_not_applicable: Mapped[No]
    options: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    peer_review_required: Mapped[No]
    entered_by_id: Mapped[int | None] = _to("users", index=False)
    entered_at: Mapped[datetime | None]


class Issue(Base):
    __tablename__ = "issues"
    __table_args__ = (Index("issues_open", "status", "id", postgresql_where=text("status <> 'resolved'")),)

    title: Mapped[str]
    status: Mapped[str] = _state("status", IssueStatus, IssueStatus.PENDING)
    disposition: Mapped[str | None] = _state("disposition", Disposition, None)
    cause_condition: Mapped[Empty]
    expected_condition: Mapped[Empty]
    run_id: Mapped[int | None] = _to("runs", lost="SET NULL")
    run_step_id: Mapped[int | None] = _to("run_steps", lost="SET NULL")
    parts_inventory_id: Mapped[int | None] = _to("parts_inventory", lost="SET NULL")
    assigned_to_id: Mapped[int | None] = _to("users", index=False)
    resolved_at: Mapped[datetime | None]
    """Calculated: when the status became resolved."""


class BuildRequirement(Base):
    __tablename__ = "build_requirements"

    run_id: Mapped[int | None] = _to("runs", lost="CASCADE")
    parts_inventory_id: Mapped[int | None] = _to("parts_inventory", lost="SET NULL")
    """What is being built; the parent of what is installed."""
    part_id: Mapped[int] = _to("parts", index=False)
    mbom_item_id: Mapped[int | None] = _to("mbom_item", lost="SET NULL", index=False)
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    installed_quantity: Mapped[Quantity]
    """Calculated from the installations."""


class AbomInstallation(Base):
    __tablename__ = "abom_installations"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity"),)

    build_requirement_id: Mapped[int] = _to("build_requirements", lost="CASCADE")
    parts_inventory_id: Mapped[int] = _to("parts_inventory")
    """The piece that was installed."""
    run_step_id: Mapped[int | None] = _to("run_steps", lost="SET NULL", index=False)
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    installed_by_id: Mapped[int | None] = _to("users", index=False)


class PartKit(Base):
    __tablename__ = "parts_kits"
    __table_args__ = (
        Index("parts_kits_open", "status", "id", postgresql_where=text("status NOT IN ('completed', 'canceled')")),
    )

    status: Mapped[str] = _state("status", KitStatus, KitStatus.DRAFT)
    run_id: Mapped[int | None] = _to("runs", lost="SET NULL")
    assigned_to_id: Mapped[int | None] = _to("users", index=False)
    staging_location_id: Mapped[int | None] = _to("locations", index=False)
    delivery_location_id: Mapped[int | None] = _to("locations", index=False)


class PartKitItem(Base):
    __tablename__ = "part_kit_items"

    part_kit_id: Mapped[int] = _to("parts_kits", lost="CASCADE")
    part_id: Mapped[int] = _to("parts", index=False)
    quantity: Mapped[Decimal] = mapped_column(server_default=text("1"))
    kitted_quantity: Mapped[Quantity]
    parts_inventory_id: Mapped[int | None] = _to("parts_inventory", lost="SET NULL")
    """Where the kitted pieces were taken from."""
