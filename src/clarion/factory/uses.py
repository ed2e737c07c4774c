"""The six uses that webhooks of a factory are for, played once each, with what an integrator must get from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Final

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from clarion.core.errors import EnvironmentRefused
from clarion.factory.act import Act, Change, Person, perform
from clarion.factory.quality import create_issue, report_issue
from clarion.factory.shop_floor import create_run, enter_value, start_step
from clarion.factory.simulate import staff
from clarion.factory.states import FieldType, LocationType, PartType, ProcedureStatus, SourcingStrategy, TrackingType
from clarion.factory.supply import Wanted, approve_order, draft_order, place_order, receive, submit_order
from clarion.factory.tables import (
    Location,
    Part,
    Procedure,
    PurchaseOrderLine,
    RunStep,
    RunStepField,
    Step,
    StepField,
    Supplier,
)

Values = dict[str, str | int | None]

_RESTORE: Final = "`clarion factory install` puts the master data into an empty schema"


@dataclass(frozen=True, slots=True)
class Expected:
    """A change that must arrive: `values` are columns of the object after it, as the act set them."""

    change: Change
    values: Values


@dataclass(frozen=True, slots=True)
class Use:
    """One of the six uses, played: its number from 1, what happened, and what must arrive, in this order."""

    number: int
    name: str
    acts: tuple[Act, ...]
    expected: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class SixUses:
    """All that was played: what had to be there first, and the six uses in the order of their numbers."""

    preparation: tuple[Act, ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """The objects that the uses are played on."""

    run_id: int
    run_step_id: int
    location_id: int | None
    field_id: int
    field_name: str
    value_min: Decimal
    value_max: Decimal
    order_id: int
    order_line_id: int


def play_six_uses(engine: Engine, watch: Callable[[Use], None] | None = None) -> SixUses:
    """What was done: each act in a transaction of its own, `watch` called after each use, in the order of a day's work.

    On the same factory it does the same each time; every call makes a new run and a new order.
    Raises EnvironmentRefused when the master data does not allow it.
    """
    people = staff(engine)
    operator, buyer = people[0], people[-1]
    scene, preparation = _prepare(engine, operator, buyer)
    played: list[Use] = []

    def done(use: Use) -> None:
        played.append(use)
        if watch is not None:
            watch(use)

    done(_a_run_step_starts(engine, operator, scene))
    done(_values_are_entered(engine, operator, scene))
    done(_a_run_has_a_problem(engine, operator, scene))
    done(_an_order_is_placed(engine, buyer, scene))
    done(_a_part_is_received(engine, buyer, scene))
    done(_an_issue_is_created(engine, operator))
    return SixUses(preparation, tuple(sorted(played, key=lambda use: use.number)))


def _a_run_has_a_problem(engine: Engine, by: Person, scene: _Scene) -> Use:
    title = f"{scene.field_name} out of tolerance on run {scene.run_id}"
    act = perform(
        engine,
        by,
        lambda session: report_issue(
            session,
            scene.run_step_id,
            title,
            by,
            cause_condition=f"{scene.field_name} above {scene.value_max}",
            expected_condition=f"{scene.field_name} from {scene.value_min} to {scene.value_max}",
        ),
    )
    values: Values = {"title": title, "status": "pending", "run_id": scene.run_id, "run_step_id": scene.run_step_id}
    return Use(1, "a run has a problem", (act,), (Expected(act.changes[0], values),))


def _a_run_step_starts(engine: Engine, by: Person, scene: _Scene) -> Use:
    act = perform(engine, by, lambda session: start_step(session, scene.run_step_id))
    values: Values = {
        "status": "in_progress",
        "location_id": scene.location_id,
        "run_id": scene.run_id,
    }
    return Use(2, "a run starts at a given work centre", (act,), (Expected(act.changes[0], values),))


def _an_order_is_placed(engine: Engine, by: Person, scene: _Scene) -> Use:
    act = perform(engine, by, lambda session: place_order(session, scene.order_id))
    return Use(3, "a purchase order is placed", (act,), (Expected(act.changes[0], {"status": "ordered"}),))


def _a_part_is_received(engine: Engine, by: Person, scene: _Scene) -> Use:
    act = perform(engine, by, lambda session: receive(session, scene.order_line_id, by))
    values: Values = {"purchase_order_id": scene.order_id, "received_by_id": by.id}
    return Use(4, "a part is received", (act,), (Expected(act.changes[0], values),))


def _values_are_entered(engine: Engine, by: Person, scene: _Scene) -> Use:
    low, high = scene.value_min, scene.value_max
    acts: list[Act] = []
    expected: list[Expected] = []
    for value in (str((low + high) / 2), str(high + (high - low))):
        act = perform(engine, by, partial(enter_value, run_step_field_id=scene.field_id, value=value, by=by))
        acts.append(act)
        expected.append(Expected(act.changes[0], {"name": scene.field_name, "value": value, "entered_by_id": by.id}))
    return Use(5, "data is entered into a given field", tuple(acts), tuple(expected))


def _an_issue_is_created(engine: Engine, by: Person) -> Use:
    title = "Torque wrench due for calibration"
    act = perform(engine, by, lambda session: create_issue(session, title, by))
    values: Values = {"title": title, "status": "pending", "run_id": None}
    return Use(6, "an issue is created", (act,), (Expected(act.changes[0], values),))


def _prepare(engine: Engine, operator: Person, buyer: Person) -> tuple[_Scene, tuple[Act, ...]]:
    """A run whose first step asks for a number, and an approved order."""
    with Session(engine) as session:
        procedure_id, step_id, field_name = _procedure(session)
        supplier_id = session.scalar(select(Supplier.id).where(Supplier.active).order_by(Supplier.id).limit(1))
        part_id = session.scalar(
            select(Part.id)
            .where(
                Part.sourcing_strategy == SourcingStrategy.BUY,
                Part.part_type == PartType.PART,
                Part.tracking_type == TrackingType.LOT,
            )
            .order_by(Part.id)
            .limit(1)
        )
    if supplier_id is None or part_id is None:
        raise EnvironmentRefused("factory: the uses need a supplier and a bought part tracked by lot", _RESTORE)
    run = perform(engine, operator, lambda session: create_run(session, procedure_id, operator))
    wanted = [Wanted(part_id, Decimal(20))]
    drafted = perform(engine, buyer, lambda session: draft_order(session, supplier_id, wanted, buyer))
    order_id = drafted.object_id
    submitted = perform(engine, buyer, lambda session: submit_order(session, order_id))
    approved = perform(engine, buyer, lambda session: approve_order(session, order_id))
    with Session(engine) as session:
        step = session.scalars(select(RunStep).where(RunStep.run_id == run.object_id, RunStep.step_id == step_id)).one()
        field_id, value_min, value_max = session.execute(
            select(RunStepField.id, RunStepField.value_min, RunStepField.value_max).where(
                RunStepField.run_step_id == step.id, RunStepField.name == field_name
            )
        ).one()
        line_id = session.scalars(
            select(PurchaseOrderLine.id).where(PurchaseOrderLine.purchase_order_id == order_id)
        ).one()
        scene = _Scene(
            run_id=run.object_id,
            run_step_id=step.id,
            location_id=step.location_id,
            field_id=field_id,
            field_name=field_name,
            value_min=value_min or Decimal(0),
            value_max=value_max or Decimal(0),
            order_id=order_id,
            order_line_id=line_id,
        )
    return scene, (run, drafted, submitted, approved)


def _procedure(session: Session) -> tuple[int, int, str]:
    """Procedure, its first step, and the field there that takes a number within limits."""
    first = (
        select(func.min(Step.position)).where(Step.procedure_id == Procedure.id).correlate(Procedure).scalar_subquery()
    )
    row = session.execute(
        select(Procedure.id, Step.id, StepField.name)
        .join(Step, Step.procedure_id == Procedure.id)
        .join(StepField, StepField.step_id == Step.id)
        .join(Location, Location.id == Step.location_id)
        .where(
            Procedure.status == ProcedureStatus.RELEASED,
            Procedure.part_id.is_not(None),
            Step.position == first,
            Location.type == LocationType.WORKCENTER,
            StepField.type == FieldType.NUMBER,
            StepField.value_min.is_not(None),
            StepField.value_max.is_not(None),
        )
        .order_by(Procedure.id, Step.id, StepField.position)
        .limit(1)
    ).first()
    if row is None:
        raise EnvironmentRefused("factory: no released procedure begins with a number at a work centre", _RESTORE)
    return row[0], row[1], row[2]
