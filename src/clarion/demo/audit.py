"""The audit record, as the API shows it, against what the receiver really got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from time import monotonic, sleep
from typing import Any, Final

from clarion.core.errors import CheckFailed
from clarion.demo.changes import change_of_id
from clarion.demo.delivery import Delivery, milliseconds
from clarion.demo.stage import Stage

_SETTLED_SECONDS_MAX: Final = 10.0
_POLL_SECONDS: Final = 0.05
_EVENTS: Final = """
query Events($after: String, $subscriptions: [ID!]) {
  webhookEvents(first: 100, after: $after, sort: [ID_ASC], filters: {subscriptionId: {in: $subscriptions}}) {
    edges { node {
      id status resource action objectId changeId sequence subscription { id } receiver { id name }
      attempts { number outcome statusCode startedAt durationMs error }
    } }
    pageInfo { hasNextPage endCursor }
  }
}"""

_EVENT: Final = """
query Event($id: ID!) {
  webhookEvent(id: $id) { resource action objectId changeId sequence subscription { id } }
}"""


Recorded = dict[int, dict[str, Any]]
"""Events of the demo's subscriptions as the API shows them, by their id."""


def recorded_events(stage: Stage) -> Recorded:
    """The record as it is now. Raises ApiRefused."""
    subscriptions = [str(one.subscription_id) for one in stage.registered.values()]
    events = stage.api.nodes(_EVENTS, "webhookEvents", subscriptions=subscriptions)
    return {int(event["id"]): event for event in events}


def completed(stage: Stage, delivery: Delivery) -> Delivery:
    """The delivery with the change that it is about: a card does not say, so the record is asked by the event's id.

    Any other is as it was. Raises ApiRefused.
    """
    if not delivery.card:
        return delivery
    event = stage.api.run(_EVENT, id=str(delivery.event_id))["webhookEvent"]
    change = change_of_id(stage.address, int(event["changeId"]))
    return replace(
        delivery,
        ms=milliseconds(change.occurred_at, datetime.fromisoformat(delivery.received_at)),
        subscription_id=int(event["subscription"]["id"]),
        resource=event["resource"],
        action=event["action"],
        object_id=event["objectId"],
        change_id=change.change_id,
        sequence=int(event["sequence"]),
        occurred_at=change.occurred_at,
        correlation_id=change.correlation_id,
        actor=change.actor,
        data=change.new or change.old,
    )


def settled_events(stage: Stage) -> Recorded:
    """The record, once nothing in it is open: an attempt is recorded a moment after its answer.

    Raises CheckFailed when something still is after ten seconds.
    """
    waited_until = monotonic() + _SETTLED_SECONDS_MAX
    while True:
        recorded = recorded_events(stage)
        pending = [event for event in recorded.values() if event["status"] == "PENDING"]
        if not pending:
            return recorded
        if monotonic() > waited_until:
            raise CheckFailed(
                f"{_named(pending[0])} was not settled within {_SETTLED_SECONDS_MAX:.0f} s: {_tried(pending[0])}",
                f"see {stage.directory / 'serve.log'}",
            )
        sleep(_POLL_SECONDS)


def failed_attempt(stage: Stage) -> str:
    """The first attempt in the record that did not succeed, in words; empty when there is none."""
    for event in recorded_events(stage).values():
        if any(attempt["outcome"] != "SUCCEEDED" for attempt in event["attempts"]):
            return f"{_named(event)} could not be delivered: {_tried(event)}"
    return ""


def check_record(stage: Stage, recorded: Recorded, deliveries: Sequence[Delivery]) -> None:
    """Comes back when the record holds just what arrived, each event delivered at its first attempt.

    Raises CheckFailed for the first difference.
    """
    received = {delivery.event_id: delivery for delivery in deliveries}
    for ids, words in (
        (recorded.keys() - received.keys(), "was recorded, and no receiver got it"),
        (received.keys() - recorded.keys(), "was received, and the audit record does not show it"),
    ):
        if ids:
            raise CheckFailed(f"event {min(ids)} {words}", f"see {stage.directory / 'serve.log'}")
    for event_id, delivery in received.items():
        if difference := _difference(recorded[event_id], delivery, stage):
            raise CheckFailed(f"the audit record of {_named(recorded[event_id])}: {difference}")


def _difference(event: dict[str, Any], delivery: Delivery, stage: Stage) -> str:
    """The first thing that record and delivery do not agree on; empty when they do."""
    registered = stage.registered[delivery.path]
    for name, said, wanted in (
        ("status", event["status"], "DELIVERED"),
        ("resource", event["resource"], delivery.resource),
        ("action", event["action"], delivery.action),
        ("objectId", event["objectId"], delivery.object_id),
        ("changeId", int(event["changeId"]), delivery.change_id),
        ("sequence", int(event["sequence"]), delivery.sequence),
        ("subscription", int(event["subscription"]["id"]), delivery.subscription_id),
        ("subscription", int(event["subscription"]["id"]), registered.subscription_id),
        ("receiver", event["receiver"]["id"], registered.receiver_id),
        ("attempts", len(event["attempts"]), 1),
    ):
        if said != wanted:
            return f"{name} is {said}, not {wanted}"
    attempt = event["attempts"][0]
    if attempt["outcome"] != "SUCCEEDED" or attempt["statusCode"] not in range(200, 300):
        return f"its attempt is {attempt['outcome']} with {attempt['statusCode']}: {attempt['error']}"
    return ""


def _tried(event: dict[str, Any]) -> str:
    attempts = [f"{one['outcome']} {one['error'] or one['statusCode']}" for one in event["attempts"]]
    return "; ".join(attempts) or "no attempt was made yet"


def _named(event: dict[str, Any]) -> str:
    change = f"{event['resource']} {event['action']} {event['objectId']}"
    return f"event {event['id']} ({change} for {event['receiver']['name']})"
