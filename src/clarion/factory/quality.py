"""Acts of quality: issues, what is decided about them, redlines.

Each takes a session with its transaction open (`clarion.factory.act.perform` gives one), and returns what it did.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from clarion.factory.act import Act, ActRefused, Person, created, updated
from clarion.factory.shop_floor import OPEN_STEP, lock_run
from clarion.factory.states import Disposition, IssueStatus, RunStatus
from clarion.factory.tables import Issue, PartInventory, RunStep


def create_issue(session: Session, title: str, by: Person, *, cause_condition: str = "") -> Act:
    """An issue of its own, tied to no run."""
    issue = Issue(title=title, cause_condition=cause_condition, assigned_to_id=by.id)
    session.add(issue)
    session.flush()
    return Act("create_issue", f"issue {issue.id}: {title}", (created(issue),))


def report_issue(
    session: Session,
    run_step_id: int,
    title: str,
    by: Person,
    *,
    cause_condition: str = "",
    expected_condition: str = "",
) -> Act:
    """A problem found at a step of a run: an issue is opened, the step held, and with it run and product.

    Raises ActRefused when there is no such step, or it has ended.
    """
    run_id = session.scalar(select(RunStep.run_id).where(RunStep.id == run_step_id))
    if run_id is None:
        raise ActRefused(f"there is no run step {run_step_id}")
    run = lock_run(session, run_id)
    step = session.get_one(RunStep, run_step_id, populate_existing=True)
    if step.status not in (*OPEN_STEP, RunStatus.HOLD):
        raise ActRefused(f"run step {run_step_id} is {step.status}", "an issue is found on a step that is open")
    issue = Issue(
        title=title,
        cause_condition=cause_condition,
        expected_condition=expected_condition,
        run_id=run_id,
        run_step_id=run_step_id,
        parts_inventory_id=run.parts_inventory_id,
        assigned_to_id=by.id,
    )
    session.add(issue)
    session.flush()
    changes = [created(issue)]
    if step.status != RunStatus.HOLD:
        step.status = RunStatus.HOLD
        session.flush()
        changes.append(updated(RunStep, run_step_id))
    return Act("report_issue", f"issue {issue.id} on run {run_id}: {title}", tuple(changes))


def work_on_issue(session: Session, issue_id: int, by: Person) -> Act:
    """A pending issue is taken up. Raises ActRefused when it is not pending."""
    issue = _locked_issue(session, issue_id, IssueStatus.PENDING)
    issue.status = IssueStatus.IN_PROGRESS
    issue.assigned_to_id = by.id
    session.flush()
    return Act("work_on_issue", f"issue {issue_id} in progress", (updated(Issue, issue_id),))


def propose_disposition(session: Session, issue_id: int, disposition: Disposition) -> Act:
    """A disposition is put up for review. Raises ActRefused when the issue is not in progress."""
    issue = _locked_issue(session, issue_id, IssueStatus.IN_PROGRESS)
    issue.disposition = disposition
    issue.status = IssueStatus.IN_REVIEW
    session.flush()
    return Act("propose_disposition", f"issue {issue_id}: {disposition}", (updated(Issue, issue_id),))


def add_redline(session: Session, issue_id: int) -> Act:
    """A step is drawn into the issue's run, beside the one it was found on; it is a redline until released.

    Raises ActRefused when the issue is not in review, or was not found on a step of a run.
    """
    run_step_id = _step_of(session, issue_id)
    if run_step_id is None:
        raise ActRefused(f"issue {issue_id} is on no step of a run")
    found_on = session.get_one(RunStep, run_step_id)
    lock_run(session, found_on.run_id)
    _locked_issue(session, issue_id, IssueStatus.IN_REVIEW)
    redline = RunStep(
        run_id=found_on.run_id,
        title=f"Rework for issue {issue_id}",
        status=RunStatus.REDLINE,
        position=found_on.position,
        location_id=found_on.location_id,
    )
    session.add(redline)
    session.flush()
    return Act("add_redline", f"run {found_on.run_id}: redline step {redline.id}", (created(redline),))


def release_redline(session: Session, run_step_id: int) -> Act:
    """A redline is approved and becomes a step to do. Raises ActRefused when it is none."""
    run_id = session.scalar(select(RunStep.run_id).where(RunStep.id == run_step_id))
    if run_id is None:
        raise ActRefused(f"there is no run step {run_step_id}")
    lock_run(session, run_id)
    step = session.get_one(RunStep, run_step_id, populate_existing=True)
    if step.status != RunStatus.REDLINE:
        raise ActRefused(f"run step {run_step_id} is {step.status}, not a redline")
    step.status = RunStatus.TODO
    session.flush()
    return Act(
        "release_redline", f"run {run_id}: redline step {run_step_id} released", (updated(RunStep, run_step_id),)
    )


def resolve_issue(session: Session, issue_id: int) -> Act:
    """An issue in review is resolved. Its step goes on; if its disposition is scrap, run and product fail instead.

    Raises ActRefused when the issue is not in review.
    """
    run_step_id = _step_of(session, issue_id)
    step = None if run_step_id is None else session.get(RunStep, run_step_id)
    if step is not None:
        lock_run(session, step.run_id)
        session.refresh(step)
    issue = _locked_issue(session, issue_id, IssueStatus.IN_REVIEW)
    issue.status = IssueStatus.RESOLVED
    session.flush()
    changes = [updated(Issue, issue_id)]
    if step is not None and step.status == RunStatus.HOLD and not _others_open(session, issue):
        scrapped = issue.disposition == Disposition.SCRAP
        step.status = RunStatus.FAILED if scrapped else RunStatus.IN_PROGRESS
        session.flush()
        changes.append(updated(RunStep, step.id))
        if scrapped:
            _end_failed_run(session, step.run_id, issue.parts_inventory_id)
    return Act("resolve_issue", f"issue {issue_id} resolved: {issue.disposition}", tuple(changes))


def _step_of(session: Session, issue_id: int) -> int | None:
    return session.scalar(select(Issue.run_step_id).where(Issue.id == issue_id))


def _locked_issue(session: Session, issue_id: int, status: IssueStatus) -> Issue:
    """The issue, locked; refused in any other state."""
    issue = session.get(Issue, issue_id, with_for_update={"key_share": True}, populate_existing=True)
    if issue is None or issue.status != status:
        raise ActRefused(f"issue {issue_id} is {issue.status if issue else 'not there'}, not {status}")
    return issue


def _others_open(session: Session, issue: Issue) -> bool:
    """Whether another issue still holds the same step."""
    others = select(Issue.id).where(
        Issue.run_step_id == issue.run_step_id, Issue.id != issue.id, Issue.status != IssueStatus.RESOLVED
    )
    return session.scalar(others.limit(1)) is not None


def _end_failed_run(session: Session, run_id: int, parts_inventory_id: int | None) -> None:
    """What is left to do of a failed run is canceled, and what it built is scrapped."""
    session.execute(
        update(RunStep)
        .where(
            RunStep.run_id == run_id,
            RunStep.status.in_((RunStatus.TODO, RunStatus.IN_PROGRESS, RunStatus.REDLINE, RunStatus.HOLD)),
        )
        .values(status=RunStatus.CANCELED)
    )
    session.execute(
        update(PartInventory)
        .where(PartInventory.id == parts_inventory_id)
        .values(quantity_scrapped=PartInventory.quantity)
    )
