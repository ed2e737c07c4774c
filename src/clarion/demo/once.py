"""`clarion demo --once`: the six uses played, and everything that arrived compared with everything that should have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from clarion.core.errors import CheckFailed
from clarion.demo.audit import check_record, failed_attempt, settled_events
from clarion.demo.delivery import Card, Delivery
from clarion.demo.integration import INTEGRATIONS
from clarion.demo.stage import Stage
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
    cards: list[Card] = field(default_factory=list)

    def of(self, path: str) -> list[Delivery]:
        """Those of one receiver as they arrived. They are reported as they are done with, which may differ."""
        found = [delivery for delivery in self.deliveries if delivery.path == path]
        return sorted(found, key=lambda delivery: delivery.received_at)


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
    _collect_acts(stage, played, inbox)
    recorded = settled_events(stage)
    _collect_events(stage, recorded.keys(), inbox)
    _check_exactly(played, inbox)
    arrived = tuple(_arrived(use, inbox) for use in played.uses)
    _check_followed(played, inbox)
    check_record(stage, recorded, inbox.deliveries)
    tally = Tally()
    for delivery in inbox.deliveries:
        tally.add(delivery)
    return Outcome(arrived, tally, monotonic() - begun)


# ---------------------------------------------------------------- waiting for what must come


def _collect_acts(stage: Stage, played: SixUses, inbox: Inbox) -> None:
    """Fills the inbox until all has come that the acts list as their changes, those of the validation included.

    The last act's change is among them. The router takes changes in the order of their commits, so that whatever else
    the acts changed (the database's roll-ups) is in the audit record by then.
    """
    missing = {due for act in _acts(played) for due in _deliveries_due(_changes(act), act.correlation_id)}
    waited_until = monotonic() + ARRIVED_SECONDS_MAX
    asked_at = monotonic() + _ASK_SECONDS
    while missing:
        report = _take(stage, inbox)
        if report is not None:
            asked_at = monotonic() + _ASK_SECONDS
            if report.opened is not None:
                missing |= _deliveries_due(report.opened.changes, report.opened.correlation_id)
            missing -= {(one.path, one.change, one.correlation_id) for one in inbox.deliveries}
        elif monotonic() > waited_until:
            raise CheckFailed(*_what_is_missing(stage, missing))
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
    if isinstance(report, Card):
        inbox.cards.append(report)
        return None
    if report is not None:
        _check_one(report)
        inbox.deliveries.append(report)
    return report


_VALIDATION: Final = next(one for one in INTEGRATIONS if one.path == "validation")

_Change = tuple[str, str, str]
_Due = tuple[str, _Change, str]
"""Path of the receiver; resource, action and object; correlation id."""


def _acts(played: SixUses) -> list[Act]:
    return [*played.preparation, *(act for use in played.uses for act in use.acts)]


def _changes(act: Act) -> list[_Change]:
    return [(change.resource, change.action, change.object_id) for change in act.changes]


def _deliveries_due(changes: Iterable[_Change], correlation_id: str) -> set[_Due]:
    """What these changes must bring to the six receivers."""
    return {
        (one.path, change, correlation_id)
        for change in changes
        for one in INTEGRATIONS
        if (one.resource, one.action) == change[:2]
    }


def _what_is_missing(stage: Stage, missing: set[_Due]) -> tuple[str, str]:
    hint = f"see {stage.directory / 'serve.log'} and {stage.directory / 'receiver.log'}"
    path, change, _ = min(missing)
    return (
        f"{path} did not get {' '.join(change)} within {ARRIVED_SECONDS_MAX:.0f} s"
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


def _check_exactly(played: SixUses, inbox: Inbox) -> None:
    """All deliveries together: made by these acts, right for their receiver, without gaps, in order per object."""
    known = {act.correlation_id for act in _acts(played)}
    known |= {delivery.opened.correlation_id for delivery in inbox.deliveries if delivery.opened is not None}
    for integration in INTEGRATIONS:
        got = inbox.of(integration.path)
        strangers = [one for one in got if one.correlation_id not in known]
        if strangers:
            raise CheckFailed(
                f"{integration.path} got {len(strangers)} events that the six uses did not make, first"
                f" {' '.join(strangers[0].change)} by {strangers[0].actor.get('name')}",
                _SOMEBODY_ELSE,
            )
        for one in got:
            if (one.resource, one.action) != (integration.resource, integration.action):
                raise CheckFailed(f"{integration.path} got {' '.join(one.change)}, which it never subscribed to")
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
    """What the integrators did in their turn: the validation opened one issue, each issue is on a card."""
    opened = [one for one in inbox.deliveries if one.opened is not None]
    values = [expected for use in played.uses if use.number == _VALIDATION.number for expected in use.expected]
    if len(opened) != 1 or opened[0].data["value"] != values[-1].values["value"]:
        raise CheckFailed(f"the validation opened {len(opened)} issues for {len(values)} values, not one for the last")
    titles = {path: sorted(str(one.data["title"]) for one in inbox.of(path)) for path in ("qa", "teams")}
    cards = sorted(card.title for card in inbox.cards)
    if not titles["qa"] == titles["teams"] == cards:
        raise CheckFailed(
            f"QA list, Teams' receiver and Teams' cards differ: {titles['qa']}, {titles['teams']}, {cards}"
        )
