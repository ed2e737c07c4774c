"""Acts on the shop floor: runs, their steps, the values entered at them, what is installed.

Each takes a session with its transaction open (`clarion.factory.act.perform` gives one), and returns what it did.
Acts on a run lock the run first, so that two of them wait for one another instead of ending in a deadlock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.orm import Session

from clarion.factory.act import Act, ActRefused, Change, Person, created, updated
from clarion.factory.states import InventoryStatus, ProcedureStatus, RunStatus
from clarion.factory.tables import (
    AbomInstallation,
    BuildRequirement,
    FileAttachment,
    Mbom,
    MbomItem,
    Part,
    PartInventory,
    Procedure,
    Run,
    RunStep,
    RunStepField,
    Step,
    StepField,
)

OPEN_STEP: Final = (RunStatus.TODO, RunStatus.IN_PROGRESS)


def create_run(session: Session, procedure_id: int, by: Person, *, title: str | None = None) -> Act:
    """A run of a released procedure: steps and fields copied, the product begun, its mBOM's items required.

    Raises ActRefused when there is no such procedure, or it is not released.
    """
    procedure = session.get(Procedure, procedure_id)
    if procedure is None or procedure.status != ProcedureStatus.RELEASED:
        raise ActRefused(f"procedure {procedure_id} is not released", "runs are made from released procedures")
    product = _begin_product(session, procedure.part_id) if procedure.part_id else None
    run = Run(
        title=title or procedure.title,
        procedure_id=procedure.id,
        part_id=procedure.part_id,
        parts_inventory_id=product.id if product else None,
        assigned_to_id=by.id,
    )
    session.add(run)
    session.flush()
    changes = [created(run)]
    if product is not None:
        changes += [created(product), *_require_items(session, run, product)]
    changes += _copy_steps(session, run)
    return Act("create_run", f"run {run.id}: {run.title}", tuple(changes))


def start_step(session: Session, run_step_id: int) -> Act:
    """A step of a run goes in progress at its work centre. Raises ActRefused unless it is to do and available."""
    step = _locked_step(session, run_step_id)
    if step.status != RunStatus.TODO or not step.available_to_work:
        raise ActRefused(f"run step {run_step_id} is {step.status} and cannot start", "steps before it may be open")
    step.status = RunStatus.IN_PROGRESS
    session.flush()
    return Act(
        "start_step",
        f"run {step.run_id}: {step.title} starts at location {step.location_id}",
        (updated(RunStep, step.id),),
    )


def enter_value(session: Session, run_step_field_id: int, value: str, by: Person) -> Act:
    """A value is entered into a field of a step. Raises ActRefused when there is no such field.

    The value is taken as it is: whether it lies within the field's limits is for others to find out.
    """
    field = session.get(RunStepField, run_step_field_id)
    if field is None:
        raise ActRefused(f"there is no run step field {run_step_field_id}")
    field.value = value
    field.entered_by_id = by.id
    field.entered_at = func.now()
    session.flush()
    unit = f" {field.unit}" if field.unit else ""
    return Act("enter_value", f"{field.name} = {value}{unit}", (updated(RunStepField, field.id),))


def complete_step(session: Session, run_step_id: int) -> Act:
    """A step in progress is complete; with the last one its run. Raises ActRefused unless it is in progress."""
    step = _locked_step(session, run_step_id)
    if step.status != RunStatus.IN_PROGRESS:
        raise ActRefused(f"run step {run_step_id} is {step.status}, not in progress", "start it first")
    step.status = RunStatus.COMPLETE
    session.flush()
    return Act("complete_step", f"run {step.run_id}: {step.title} complete", (updated(RunStep, step.id),))


def complete_run(session: Session, run_id: int) -> Act:
    """All steps of a run that are open are signed off at once. Raises ActRefused when none is, or one is held."""
    run = lock_run(session, run_id)
    if run.status not in OPEN_STEP:
        raise ActRefused(f"run {run_id} is {run.status}", "only a run that is to do or in progress can be completed")
    steps = session.scalars(
        update(RunStep)
        .where(RunStep.run_id == run_id, RunStep.status.in_(OPEN_STEP))
        .values(status=RunStatus.COMPLETE)
        .returning(RunStep.id)
    ).all()
    if not steps:
        raise ActRefused(f"run {run_id} has no open steps")
    changes = (updated(Run, run_id), *(updated(RunStep, step_id) for step_id in sorted(steps)))
    return Act("complete_run", f"run {run_id} complete", changes)


def cancel_run(session: Session, run_id: int) -> Act:
    """A run is canceled, with its open steps; what it built is scrapped. Raises ActRefused when it has ended."""
    run = lock_run(session, run_id)
    if run.status in (RunStatus.COMPLETE, RunStatus.CANCELED):
        raise ActRefused(f"run {run_id} is {run.status} already")
    run.status = RunStatus.CANCELED
    session.flush()
    return Act("cancel_run", f"run {run_id} canceled", (updated(Run, run_id),))


def install_child(session: Session, build_requirement_id: int, by: Person) -> Act:
    """What is still required is installed from available inventory: the oldest that has some, as much as it has.

    Raises ActRefused when nothing is required any more, or none is available.
    """
    run_id = session.scalar(select(BuildRequirement.run_id).where(BuildRequirement.id == build_requirement_id))
    if run_id is not None:
        lock_run(session, run_id)
    required = session.get(BuildRequirement, build_requirement_id, with_for_update={"key_share": True})
    if required is None or required.installed_quantity >= required.quantity:
        raise ActRefused(f"build requirement {build_requirement_id} needs nothing more")
    stock = available_stock(session, required.part_id)
    if stock is None:
        raise ActRefused(f"no inventory of part {required.part_id} is available", "order and receive some")
    installation = AbomInstallation(
        build_requirement_id=required.id,
        parts_inventory_id=stock.id,
        quantity=min(required.quantity - required.installed_quantity, stock.quantity_available),
        installed_by_id=by.id,
    )
    session.add(installation)
    session.flush()
    return Act(
        "install_child",
        f"{installation.quantity} of inventory {stock.id} installed in run {run_id}",
        (created(installation), updated(BuildRequirement, required.id), updated(PartInventory, stock.id)),
    )


def attach_file(session: Session, file_name: str, size_bytes: int, run_step_id: int, by: Person) -> Act:
    """A file is attached to a step of a run."""
    attachment = FileAttachment(
        file_name=file_name,
        content_type="image/jpeg",
        size_bytes=size_bytes,
        resource="RUN_STEPS",
        object_id=run_step_id,
        uploaded_by_id=by.id,
    )
    session.add(attachment)
    session.flush()
    return Act("attach_file", f"{file_name} attached to run step {run_step_id}", (created(attachment),))


def lock_run(session: Session, run_id: int) -> Run:
    """The run, locked until the transaction ends. Raises ActRefused when there is none."""
    run = session.get(Run, run_id, with_for_update={"key_share": True}, populate_existing=True)
    if run is None:
        raise ActRefused(f"there is no run {run_id}")
    return run


def available_stock(session: Session, part_id: int) -> PartInventory | None:
    """The oldest available inventory of a part, locked; None when there is none, or others hold it all."""
    return session.scalar(
        select(PartInventory)
        .where(PartInventory.part_id == part_id, PartInventory.status == InventoryStatus.AVAILABLE)
        .order_by(PartInventory.id)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    )


def _locked_step(session: Session, run_step_id: int) -> RunStep:
    """The step as it is once its run is locked."""
    run_id = session.scalar(select(RunStep.run_id).where(RunStep.id == run_step_id))
    if run_id is None:
        raise ActRefused(f"there is no run step {run_step_id}")
    lock_run(session, run_id)
    return session.get_one(RunStep, run_step_id, populate_existing=True)


def _begin_product(session: Session, part_id: int) -> PartInventory:
    """The piece that a run builds, as work in progress."""
    part = session.get_one(Part, part_id)
    product = PartInventory(part_id=part_id, quantity=Decimal(1), work_in_progress=True, cost=part.cost)
    session.add(product)
    session.flush()
    return product


def _require_items(session: Session, run: Run, product: PartInventory) -> list[Change]:
    """The items of the product's newest released mBOM become requirements of the run."""
    mbom_id = session.scalar(
        select(Mbom.id)
        .where(Mbom.part_id == product.part_id, Mbom.status == ProcedureStatus.RELEASED)
        .order_by(Mbom.version.desc())
        .limit(1)
    )
    if mbom_id is None:
        return []
    items = (
        select(literal(run.id), literal(product.id), MbomItem.part_id, MbomItem.id, MbomItem.quantity)
        .where(MbomItem.mbom_id == mbom_id)
        .order_by(MbomItem.id)
    )
    columns = ["run_id", "parts_inventory_id", "part_id", "mbom_item_id", "quantity"]
    keys = session.scalars(insert(BuildRequirement).from_select(columns, items).returning(BuildRequirement.id))
    return [Change("BUILD_REQUIREMENTS", "CREATE", str(key)) for key in keys]


def _copy_steps(session: Session, run: Run) -> list[Change]:
    """The steps and fields of the run's procedure are copied into it."""
    steps = (
        select(literal(run.id), Step.title, Step.position, Step.content, Step.id, Step.location_id)
        .where(Step.procedure_id == run.procedure_id)
        .order_by(Step.position, Step.id)
    )
    step_columns = ["run_id", "title", "position", "content", "step_id", "location_id"]
    step_keys = session.scalars(insert(RunStep).from_select(step_columns, steps).returning(RunStep.id)).all()
    copied = [
        "name", "type", "position", "unit", "value_min", "value_max", "required", "allow_not_applicable", "options",
        "peer_review_required",
    ]  # fmt: skip
    fields = (
        select(RunStep.id, *(getattr(StepField, name) for name in copied))
        .join(StepField, StepField.step_id == RunStep.step_id)
        .where(RunStep.run_id == run.id)
        .order_by(RunStep.id, StepField.position, StepField.id)
    )
    field_keys = session.scalars(
        insert(RunStepField).from_select(["run_step_id", *copied], fields).returning(RunStepField.id)
    )
    return [
        *(Change("RUN_STEPS", "CREATE", str(key)) for key in step_keys),
        *(Change("RUN_STEPS_FIELDS", "CREATE", str(key)) for key in field_keys),
    ]
