"""What may happen next in the factory, and how often: each move looks for an object that is ready and acts on it.

The state is the database's alone. A move reads a few candidates, lets chance choose, and leaves it to the act to
lock and look again, so that several simulators and people can work side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any, Final

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session, aliased

from clarion.factory import quality, shop_floor, supply
from clarion.factory.act import Act, Person
from clarion.factory.states import (
    Disposition,
    FieldType,
    InventoryStatus,
    IssueStatus,
    KitStatus,
    OrderLineStatus,
    OrderStatus,
    PartType,
    ProcedureStatus,
    RunStatus,
    SourcingStrategy,
    TrackingType,
)
from clarion.factory.tables import (
    BuildRequirement,
    Issue,
    Part,
    PartInventory,
    PartKit,
    PartKitItem,
    Procedure,
    PurchaseOrder,
    PurchaseOrderLine,
    Run,
    RunStep,
    RunStepField,
    Supplier,
)

_CANDIDATES: Final = 16
_OPEN_RUNS_MAX: Final = 30
_OPEN_ORDERS_MAX: Final = 12
_STOCK_LOW: Final[dict[str, int]] = {TrackingType.SERIAL: 20}
_STOCK_LOW_OTHERWISE: Final = 400
_OUT_OF_RANGE_SHARE: Final = 0.05

_OPEN_RUN: Final = (RunStatus.TODO, RunStatus.IN_PROGRESS, RunStatus.REDLINE, RunStatus.HOLD)
_PROBLEMS: Final = (
    "Torque above limit",
    "Scratch on sealing face",
    "Porosity in weld",
    "Connector pin bent",
    "Leak rate above limit",
    "Wrong revision of drawing at the bench",
    "Thread damaged",
)
_OBSERVATIONS: Final = (
    "Torque wrench due for calibration",
    "Solvent bottle without label",
    "Particle count in clean room rising",
    "Lot without certificate of conformity",
    "Crane inspection overdue",
)


@dataclass(frozen=True, slots=True)
class Move:
    """Something that may happen: `weight` is how likely it is tried first, against the others."""

    weight: float
    make: Callable[[Session, Random, Person], Act | None]


def begin_run(session: Session, chance: Random, by: Person) -> Act | None:
    """A run is created, unless many are open."""
    few = select(Run.id).where(Run.status.in_(_OPEN_RUN)).limit(_OPEN_RUNS_MAX).subquery()
    if (session.scalar(select(func.count()).select_from(few)) or 0) >= _OPEN_RUNS_MAX:
        return None
    return begin_run_anyway(session, chance, by)


def begin_run_anyway(session: Session, chance: Random, by: Person) -> Act | None:
    """A run of any released procedure; None only when there is none."""
    released = select(Procedure.id).where(Procedure.status == ProcedureStatus.RELEASED).order_by(Procedure.id)
    procedure_id = _one_of(session, chance, released)
    return None if procedure_id is None else shop_floor.create_run(session, procedure_id, by)


def _start_step(session: Session, chance: Random, _by: Person) -> Act | None:
    ready = select(RunStep.id).where(RunStep.status == RunStatus.TODO, RunStep.available_to_work).order_by(RunStep.id)
    step_id = _one_of(session, chance, ready)
    return None if step_id is None else shop_floor.start_step(session, step_id)


def _enter_value(session: Session, chance: Random, by: Person) -> Act | None:
    empty = (
        select(RunStepField.id)
        .join(RunStep, RunStep.id == RunStepField.run_step_id)
        .where(RunStep.status == RunStatus.IN_PROGRESS, RunStepField.value.is_(None))
        .order_by(RunStepField.id)
    )
    field_id = _one_of(session, chance, empty)
    if field_id is None:
        return None
    value = _plausible_value(session.get_one(RunStepField, field_id), chance, by)
    return shop_floor.enter_value(session, field_id, value, by)


def _complete_step(session: Session, chance: Random, _by: Person) -> Act | None:
    missing = exists().where(
        RunStepField.run_step_id == RunStep.id, RunStepField.required, RunStepField.value.is_(None)
    )
    done = select(RunStep.id).where(RunStep.status == RunStatus.IN_PROGRESS, ~missing).order_by(RunStep.id)
    step_id = _one_of(session, chance, done)
    return None if step_id is None else shop_floor.complete_step(session, step_id)


def _complete_run(session: Session, chance: Random, _by: Person) -> Act | None:
    going = select(Run.id).where(Run.status == RunStatus.IN_PROGRESS).order_by(Run.id)
    run_id = _one_of(session, chance, going)
    return None if run_id is None else shop_floor.complete_run(session, run_id)


def _cancel_run(session: Session, chance: Random, _by: Person) -> Act | None:
    waiting = select(Run.id).where(Run.status == RunStatus.TODO).order_by(Run.id)
    run_id = _one_of(session, chance, waiting)
    return None if run_id is None else shop_floor.cancel_run(session, run_id)


def _install_child(session: Session, chance: Random, by: Person) -> Act | None:
    required = (
        select(BuildRequirement.id)
        .join(Run, Run.id == BuildRequirement.run_id)
        .where(
            Run.status == RunStatus.IN_PROGRESS,
            BuildRequirement.installed_quantity < BuildRequirement.quantity,
            _in_stock(BuildRequirement.part_id),
        )
        .order_by(BuildRequirement.id)
    )
    requirement_id = _one_of(session, chance, required)
    return None if requirement_id is None else shop_floor.install_child(session, requirement_id, by)


def _attach_file(session: Session, chance: Random, by: Person) -> Act | None:
    going = select(RunStep.id).where(RunStep.status == RunStatus.IN_PROGRESS).order_by(RunStep.id)
    step_id = _one_of(session, chance, going)
    if step_id is None:
        return None
    return shop_floor.attach_file(session, f"step-{step_id}.jpg", chance.randrange(50_000, 4_000_000), step_id, by)


def _report_issue(session: Session, chance: Random, by: Person) -> Act | None:
    going = select(RunStep.id).where(RunStep.status == RunStatus.IN_PROGRESS).order_by(RunStep.id)
    step_id = _one_of(session, chance, going)
    return None if step_id is None else quality.report_issue(session, step_id, chance.choice(_PROBLEMS), by)


def _create_issue(session: Session, chance: Random, by: Person) -> Act | None:
    return quality.create_issue(session, chance.choice(_OBSERVATIONS), by)


def _work_on_issue(session: Session, chance: Random, by: Person) -> Act | None:
    issue_id = _one_of(session, chance, _issues(IssueStatus.PENDING))
    return None if issue_id is None else quality.work_on_issue(session, issue_id, by)


def _propose_disposition(session: Session, chance: Random, _by: Person) -> Act | None:
    issue_id = _one_of(session, chance, _issues(IssueStatus.IN_PROGRESS))
    if issue_id is None:
        return None
    disposition = chance.choices(list(Disposition), weights=(5, 4, 3, 1, 1))[0]
    return quality.propose_disposition(session, issue_id, disposition)


def _add_redline(session: Session, chance: Random, _by: Person) -> Act | None:
    beside = aliased(RunStep)
    drawn = exists().where(beside.run_id == Issue.run_id, beside.title == func.concat("Rework for issue ", Issue.id))
    to_rework = _issues(IssueStatus.IN_REVIEW).where(
        Issue.disposition.in_((Disposition.REWORK, Disposition.REPAIR)), Issue.run_step_id.is_not(None), ~drawn
    )
    issue_id = _one_of(session, chance, to_rework)
    return None if issue_id is None else quality.add_redline(session, issue_id)


def _release_redline(session: Session, chance: Random, _by: Person) -> Act | None:
    redlines = select(RunStep.id).where(RunStep.status == RunStatus.REDLINE).order_by(RunStep.id)
    step_id = _one_of(session, chance, redlines)
    return None if step_id is None else quality.release_redline(session, step_id)


def _resolve_issue(session: Session, chance: Random, _by: Person) -> Act | None:
    issue_id = _one_of(session, chance, _issues(IssueStatus.IN_REVIEW))
    return None if issue_id is None else quality.resolve_issue(session, issue_id)


def _draft_order(session: Session, chance: Random, by: Person) -> Act | None:
    open_orders = select(PurchaseOrder.id).where(
        PurchaseOrder.status.in_((OrderStatus.DRAFT, OrderStatus.IN_REVIEW, OrderStatus.APPROVED))
    )
    if len(session.scalars(open_orders.limit(_OPEN_ORDERS_MAX)).all()) == _OPEN_ORDERS_MAX:
        return None
    stock = func.coalesce(func.sum(PartInventory.quantity_available), 0)
    scarce = session.execute(
        select(Part.id, Part.tracking_type, stock)
        .outerjoin(
            PartInventory,
            (PartInventory.part_id == Part.id) & (PartInventory.status == InventoryStatus.AVAILABLE),
        )
        .where(Part.sourcing_strategy == SourcingStrategy.BUY, Part.part_type == PartType.PART)
        .group_by(Part.id)
        .order_by(stock, Part.id)
    ).all()
    low = [
        (key, kind) for key, kind, available in scarce if available < _STOCK_LOW.get(kind or "", _STOCK_LOW_OTHERWISE)
    ]
    supplier_id = _one_of(session, chance, select(Supplier.id).where(Supplier.active).order_by(Supplier.id))
    if not low or supplier_id is None:
        return None
    chosen = chance.sample(low, k=min(len(low), chance.randint(1, 3)))
    lines = [
        supply.Wanted(
            key, Decimal(chance.randint(2, 6) if kind == TrackingType.SERIAL else chance.choice((50, 100, 250)))
        )
        for key, kind in chosen
    ]
    return supply.draft_order(session, supplier_id, lines, by)


def _submit_order(session: Session, chance: Random, _by: Person) -> Act | None:
    order_id = _one_of(session, chance, _orders(OrderStatus.DRAFT))
    return None if order_id is None else supply.submit_order(session, order_id)


def _approve_order(session: Session, chance: Random, _by: Person) -> Act | None:
    order_id = _one_of(session, chance, _orders(OrderStatus.IN_REVIEW))
    return None if order_id is None else supply.approve_order(session, order_id)


def _place_order(session: Session, chance: Random, _by: Person) -> Act | None:
    order_id = _one_of(session, chance, _orders(OrderStatus.APPROVED))
    return None if order_id is None else supply.place_order(session, order_id)


def _receive(session: Session, chance: Random, by: Person) -> Act | None:
    coming = (
        select(PurchaseOrderLine.id)
        .where(PurchaseOrderLine.status == OrderLineStatus.ORDERED)
        .order_by(PurchaseOrderLine.id)
    )
    line_id = _one_of(session, chance, coming)
    if line_id is None:
        return None
    line = session.get_one(PurchaseOrderLine, line_id)
    missing = line.quantity - line.received_quantity
    in_part = missing > 1 and chance.random() < 0.3
    return supply.receive(session, line_id, by, quantity=missing // 2 if in_part else None)


def _request_kit(session: Session, chance: Random, by: Person) -> Act | None:
    has_kit = exists().where(PartKit.run_id == Run.id)
    requires = exists().where(
        BuildRequirement.run_id == Run.id, BuildRequirement.installed_quantity < BuildRequirement.quantity
    )
    waiting = select(Run.id).where(Run.status == RunStatus.TODO, ~has_kit, requires).order_by(Run.id)
    run_id = _one_of(session, chance, waiting)
    return None if run_id is None else supply.request_kit(session, run_id, by)


def _pick_item(session: Session, chance: Random, _by: Person) -> Act | None:
    wanted = (
        select(PartKitItem.id)
        .join(PartKit, PartKit.id == PartKitItem.part_kit_id)
        .where(
            PartKit.status.in_((KitStatus.REQUESTED, KitStatus.IN_PROGRESS)),
            PartKitItem.kitted_quantity == 0,
            _in_stock(PartKitItem.part_id),
        )
        .order_by(PartKitItem.id)
    )
    item_id = _one_of(session, chance, wanted)
    return None if item_id is None else supply.pick_item(session, item_id)


def _deliver_kit(session: Session, chance: Random, _by: Person) -> Act | None:
    unpicked = exists().where(PartKitItem.part_kit_id == PartKit.id, PartKitItem.kitted_quantity == 0)
    full = select(PartKit.id).where(PartKit.status == KitStatus.IN_PROGRESS, ~unpicked).order_by(PartKit.id)
    kit_id = _one_of(session, chance, full)
    return None if kit_id is None else supply.deliver_kit(session, kit_id)


def _complete_kit(session: Session, chance: Random, _by: Person) -> Act | None:
    delivered = select(PartKit.id).where(PartKit.status == KitStatus.DELIVERED).order_by(PartKit.id)
    kit_id = _one_of(session, chance, delivered)
    return None if kit_id is None else supply.complete_kit(session, kit_id)


MOVES: Final = (
    Move(3, begin_run),
    Move(14, _start_step),
    Move(24, _enter_value),
    Move(13, _complete_step),
    Move(0.2, _complete_run),
    Move(0.2, _cancel_run),
    Move(10, _install_child),
    Move(1, _attach_file),
    Move(1.5, _report_issue),
    Move(0.5, _create_issue),
    Move(2, _work_on_issue),
    Move(2, _propose_disposition),
    Move(1, _add_redline),
    Move(2, _release_redline),
    Move(2, _resolve_issue),
    Move(2, _draft_order),
    Move(2, _submit_order),
    Move(2, _approve_order),
    Move(2, _place_order),
    Move(4, _receive),
    Move(1, _request_kit),
    Move(4, _pick_item),
    Move(1, _deliver_kit),
    Move(1, _complete_kit),
)


def _one_of(session: Session, chance: Random, candidates: Select[Any]) -> int | None:
    """The key of one of the first candidates, or None."""
    keys = session.scalars(candidates.limit(_CANDIDATES)).all()
    return chance.choice(keys) if keys else None


def _in_stock(part_id: Any) -> Any:
    """Whether something of the part is available."""
    return exists().where(PartInventory.part_id == part_id, PartInventory.status == InventoryStatus.AVAILABLE)


def _issues(status: IssueStatus) -> Select[int]:
    return select(Issue.id).where(Issue.status == status).order_by(Issue.id)


def _orders(status: OrderStatus) -> Select[int]:
    return select(PurchaseOrder.id).where(PurchaseOrder.status == status).order_by(PurchaseOrder.id)


def _plausible_value(field: RunStepField, chance: Random, by: Person) -> str:
    """What a person would enter: mostly within the limits of a number, now and then beyond."""
    match field.type:
        case FieldType.NUMBER:
            low, high = float(field.value_min or 0), float(field.value_max or 100)
            if chance.random() < _OUT_OF_RANGE_SHARE:
                return f"{high + (high - low) * chance.uniform(0.05, 0.5):.3f}"
            return f"{chance.uniform(low, high):.3f}"
        case FieldType.BOOLEAN:
            return "true"
        case FieldType.SELECT:
            return chance.choice(field.options) if field.options else ""
        case FieldType.SIGNOFF:
            return by.name
        case _:
            return "as drawn"
