"""`clarion demo --once`: the six uses played, and everything that arrived compared with everything that should have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from clarion.core.errors import CheckFailed
from clarion.demo.audit import check_record, completed, failed_attempt, settled_events
from clarion.demo.changes import LedgerChange, changes_of_acts, strangers_among
from clarion.demo.delivery import Delivery
from clarion.demo.integration import INTEGRATIONS
from clarion.demo.stage import Stage, wait_until_routed
from clarion.demo.words import Tally
from clarion.factory.act import Act, ActRefused, open_engine
from clarion.factory.uses import SixUses, Use, play_six_uses

ARRIVED_SECONDS_MAX: Final = 20.0
_REPORTED_SECONDS_MAX: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_SOMEBODY_ELSE: Final = "another program changes the same factory; end it, or choose another CLARION_DATA_DIR"
_ASK_SECONDS: Final = 1.0
"""When nothing arrives for so long, the audit record is asked for the reason."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One of the six uses, as its integrator got it: the deliveries that it is about, in their order."""

    use: Use
    deliveries: tuple[Delivery, ...]

    @property
    def did(self) -> str:
        """What the integrator did, in words."""
        return "; ".join(delivery.did for delivery in self.deliveries)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The uses in the order of their numbers; `tally` is over all receivers; `seconds` from first act to proof."""

    arrived: tuple[Arrived, ...]
    tally: Tally
    seconds: float


@dataclass(slots=True)
class Inbox:
    """What the receiver reported, in the order of its reports."""

    deliveries: list[Delivery] = field(default_factory=list)

    def of(self, path: str) -> list[Delivery]:
        """Those of one receiver as they arrived. They are reported as they are done with, which may differ."""
        found = [delivery for delivery in self.deliveries if delivery.path == path]
        return sorted(found, key=lambda delivery: delivery.received_at)

    def arrived(self) -> set[tuple[str, int]]:
        """Path of the receiver and number of the change, of each."""
        return {(delivery.path, delivery.change_id) for delivery in self.deliveries}


def run_once(stage: Stage) -> Outcome:
    """The six uses, played and proven. Raises CheckFailed with the first thing that is not as it should be."""
    begun = monotonic()
    engine = open_engine(stage.address)
    try:
        played = play_six_uses(engine)
    except ActRefused as error:
        raise CheckFailed(f"the six uses could not be played: {error.message}", _SOMEBODY_ELSE) from error
    finally:
        engine.dispose()
    inbox = Inbox()
    changes = _collect_changes(stage, played, inbox)
    recorded = settled_events(stage)
    _collect_events(stage, recorded.keys(), inbox)
    _check_changes(stage, played, inbox, changes)
    _check_exactly(inbox, changes)
    arrived = tuple(_arrived(use, inbox) for use in played.uses)
    _check_followed(played, inbox)
    _check_cards(inbox)
    check_record(stage, recorded, inbox.deliveries)
    tally = Tally()
    for delivery in inbox.deliveries:
        tally.add(delivery)
    return Outcome(arrived, tally, monotonic() - begun)


# ---------------------------------------------------------------- waiting for what must come


def _collect_changes(stage: Stage, played: SixUses, inbox: Inbox) -> list[LedgerChange]:
    """Fills the inbox until all has come that must, and gives the changes that it comes from.

    These are all that the acts changed, by the ledger, roll-ups and the issue of the validation included.
    """
    known = {act.correlation_id for act in _acts(played)}
    while True:
        wait_until_routed(stage.address, stage.serve)
        changes = changes_of_acts(stage.address, known)
        _collect(stage, _deliveries_due(changes), inbox)
        opened = {one.opened.correlation_id for one in inbox.deliveries if one.opened is not None}
        if opened <= known:
            return changes
        known |= opened


def _collect(stage: Stage, due: dict[_Due, LedgerChange], inbox: Inbox) -> None:
    """Fills the inbox until these have come. Raises CheckFailed when they do not in time."""
    waited_until = monotonic() + ARRIVED_SECONDS_MAX
    asked_at = monotonic() + _ASK_SECONDS
    while missing := due.keys() - inbox.arrived():
        if _take(stage, inbox) is not None:
            asked_at = monotonic() + _ASK_SECONDS
        elif monotonic() > waited_until:
            raise CheckFailed(*_what_is_missing(stage, missing, due))
        elif monotonic() > asked_at:
            asked_at = monotonic() + _ASK_SECONDS
            if reason := failed_attempt(stage):
                raise CheckFailed(reason, f"see {stage.directory / 'serve.log'} and {stage.directory / 'receiver.log'}")


def _collect_events(stage: Stage, event_ids: Collection[int], inbox: Inbox) -> None:
    """Fills the inbox until it has these events. What does not come in time is found missing later."""
    waited_until = monotonic() + _REPORTED_SECONDS_MAX
    while monotonic() < waited_until and set(event_ids) - {delivery.event_id for delivery in inbox.deliveries}:
        _take(stage, inbox)


def _take(stage: Stage, inbox: Inbox) -> Delivery | None:
    """The next delivery, put into the inbox; None when none came for a moment."""
    stage.serve.assert_alive()
    report = stage.receiver.next_report(_LOOK_SECONDS)
    if report is None:
        return None
    _check_one(report)
    inbox.deliveries.append(completed(stage, report))
    return report


_VALIDATION: Final = next(one for one in INTEGRATIONS if one.path == "validation")

_WANTED: Final[dict[str, Callable[[dict[str, Any], dict[str, Any]], bool]]] = {
    "qa": lambda _old, new: new["run_id"] is not None,
    "monitoring": lambda old, new: (old["status"] == "in_progress") != (new["status"] == "in_progress"),
    "erp": lambda old, new: new["status"] == "ordered" != old["status"],
    "validation": lambda old, new: new["type"] == "number" and new["value"] not in (None, old["value"]),
}
"""Each condition once more, in Python: what Clarion sends is compared with what somebody else makes of the same rows."""

_Due = tuple[str, int]
"""Path of the receiver; number of the change."""


def _acts(played: SixUses) -> list[Act]:
    return [*played.preparation, *(act for use in played.uses for act in use.acts)]


def _deliveries_due(changes: Iterable[LedgerChange]) -> dict[_Due, LedgerChange]:
    """What these changes must bring to the six receivers."""
    return {
        (one.path, change.change_id): change
        for change in changes
        for one in INTEGRATIONS
        if (one.resource, one.action) == (change.resource, change.action)
        and (one.path not in _WANTED or _WANTED[one.path](change.old, change.new))
    }


def _what_is_missing(stage: Stage, missing: set[_Due], due: dict[_Due, LedgerChange]) -> tuple[str, str]:
    hint = f"see {stage.directory / 'serve.log'} and {stage.directory / 'receiver.log'}"
    first = min(missing)
    return (
        f"{first[0]} did not get {' '.join(due[first].change)} within {ARRIVED_SECONDS_MAX:.0f} s"
        + (f", nor {len(missing) - 1} others" if len(missing) > 1 else ""),
        hint,
    )


# ---------------------------------------------------------------- comparing what came


def _check_one(delivery: Delivery) -> None:
    """A delivery by itself: verified, dealt with, the first of its event."""
    if not delivery.is_verified:
        raise CheckFailed(f"{delivery.path} could not verify a request: {delivery.did}", "is another sender at work?")
    where = f"event {delivery.event_id} ({' '.join(delivery.change)}) at {delivery.path}"
    if delivery.is_failed:
        raise CheckFailed(f"{where}: {delivery.did}")
    if delivery.is_repeated:
        raise CheckFailed(f"{where} came twice, although its first request was answered")
    if not delivery.webhook_id.startswith("evt_") or not delivery.webhook_id.endswith(f"_{delivery.event_id}"):
        raise CheckFailed(f"{where} has the webhook-id {delivery.webhook_id!r}")


def _check_changes(stage: Stage, played: SixUses, inbox: Inbox, changes: list[LedgerChange]) -> None:
    """The ledger has every change that an act says it made, and nobody else's among them."""
    if strangers := strangers_among(stage.address, changes):
        raise CheckFailed(
            f"the factory was changed {len(strangers)} times beside the six uses, first"
            f" {' '.join(strangers[0].change)} by {strangers[0].actor['name']}",
            _SOMEBODY_ELSE,
        )
    made = [(change, act.correlation_id) for act in _acts(played) for change in act.changes]
    told = {((one.resource, str(one.action), one.object_id), correlation_id) for one, correlation_id in made}
    for opened in [one.opened for one in inbox.deliveries if one.opened is not None]:
        told |= {(change, opened.correlation_id) for change in opened.changes}
    if lost := told - {(one.change, one.correlation_id) for one in changes}:
        raise CheckFailed(f"{' '.join(min(lost)[0])} is not in the ledger", f"see {stage.directory / 'serve.log'}")


def _check_exactly(inbox: Inbox, changes: list[LedgerChange]) -> None:
    """All deliveries together: those that the changes must bring and no others, without gaps, in order per object."""
    due = _deliveries_due(changes)
    for integration in INTEGRATIONS:
        got = inbox.of(integration.path)
        for one in got:
            if (integration.path, one.change_id) not in due:
                raise CheckFailed(f"{integration.path} got {' '.join(one.change)}, which it did not subscribe to")
            if due[integration.path, one.change_id].change != one.change:
                raise CheckFailed(f"{integration.path} got {' '.join(one.change)} as change {one.change_id}")
        numbers = sorted(one.sequence for one in got)
        if numbers != list(range(1, len(got) + 1)):
            raise CheckFailed(f"{integration.path} got the numbers {numbers} of its subscription: one is missing")
        last: dict[str, int] = {}
        for one in got:
            if one.change_id < last.get(one.object_id, 0):
                raise CheckFailed(f"{integration.path} got the changes of {' '.join(one.change)} in the wrong order")
            last[one.object_id] = one.change_id


def _arrived(use: Use, inbox: Inbox) -> Arrived:
    """The use's own deliveries, each with the values that the act has set, in the order of the acts."""
    integration = INTEGRATIONS[use.number - 1]
    correlation_ids = {act.correlation_id for act in use.acts}
    got = [one for one in inbox.of(integration.path) if one.correlation_id in correlation_ids]
    found: list[Delivery] = []
    for expected in use.expected:
        change = (expected.change.resource, expected.change.action, expected.change.object_id)
        match = next(
            (one for one in got if one.change == change and one not in found and _has(one.data, expected.values)), None
        )
        if match is None:
            raise CheckFailed(f"{integration.path} got {' '.join(change)} without the values {expected.values}")
        found.append(match)
    if [one.change_id for one in found] != sorted(one.change_id for one in found):
        raise CheckFailed(f"{integration.path}: {use.name}: the changes came in another order than they were made")
    return Arrived(use, tuple(found))


def _has(data: dict[str, Any], values: dict[str, str | int | None]) -> bool:
    return all(name in data and data[name] == value for name, value in values.items())


def _check_followed(played: SixUses, inbox: Inbox) -> None:
    """What the integrators did in their turn: the validation opened one issue."""
    opened = [one for one in inbox.deliveries if one.opened is not None]
    values = [expected for use in played.uses if use.number == _VALIDATION.number for expected in use.expected]
    if len(opened) != 1 or opened[0].data["value"] != values[-1].values["value"]:
        raise CheckFailed(f"the validation opened {len(opened)} issues for {len(values)} values, not one for the last")


def _check_cards(inbox: Inbox) -> None:
    """Each card shows the issue that the audit record names for its event."""
    for one in inbox.of("teams"):
        if one.card[1] != one.data["title"] or f"Issue: {one.object_id}" not in one.card:
            raise CheckFailed(f"the card of event {one.event_id} does not show {' '.join(one.change)}: {one.card}")
