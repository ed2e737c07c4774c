"""Numbers and links for a batch: from captured rows to the columns of the one statement. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from math import inf
from typing import NamedTuple

from clarion.core.ids import NO_SUBSCRIPTION, STANDARD_BODY, TESTS
from clarion.ledger.chain import GENESIS, SALT_BYTES, link, payload_digest, since_1970_us
from clarion.ledger.change import Action, Captured
from clarion.routing.evaluation import Evaluator, Failure, Firing
from clarion.routing.match import Index, Subscription


class Shaped(NamedTuple):
    """What few events have beside their numbers."""

    render_version: int
    fields: str | None
    body: bytes | None


class Failed(NamedTuple):
    """A subscription's expressions that had no result on changes of a batch: how many of each kind, and the last."""

    organisation_id: int
    conditions_count: int
    templates_count: int
    change_id: int
    message: str


class Limit(NamedTuple):
    """Where a batch ends though more rows wait: so many events, or a time by this clock, looked at after each evaluation.

    It ends with the row before the first whose organisation has one in it already.
    """

    events_max: float
    ends_ns: float
    clock_ns: Callable[[], int]


NO_LIMIT = Limit(inf, inf, lambda: 0)


class Tail(NamedTuple):
    """Where an organisation's chain ends: the number and the link of its last change."""

    change_id: int = 0
    link: bytes = GENESIS


@dataclass(frozen=True, slots=True)
class Numbers:
    """The counters as the router last wrote them; the statement compares them with the table."""

    position: int
    event_id: int
    queue_id: int
    tails: dict[int, Tail]
    sequences: dict[int, int]


@dataclass(slots=True)
class Batch:
    """Columns of the batch statement, and the counters as they will stand after it.

    Positions, event ids and queue ids follow from those before by a row's place. `salts` holds SALT_BYTES for each row.
    `events_before` has for each row how many events those before it made, and one entry more for all; `queue_places` for each
    event the place of its row, from 1 on. `shaped` is keyed by an event's place in the columns of the queue, `failed` by subscription.
    """

    before: Numbers
    after: Numbers
    recorded_at: datetime
    salts: bytes
    outbox_ids: list[int] = field(default_factory=list)
    organisation_ids: list[int] = field(default_factory=list)
    change_ids: list[int] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    events_before: list[int] = field(default_factory=list)
    queue_organisation_ids: list[int] = field(default_factory=list)
    receiver_ids: list[int] = field(default_factory=list)
    subscription_ids: list[int] = field(default_factory=list)
    queue_places: list[int] = field(default_factory=list)
    queue_sequences: list[int] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)
    changed_tails: dict[int, Tail] = field(default_factory=dict)
    changed_sequences: dict[int, int] = field(default_factory=dict)
    shaped: dict[int, Shaped] = field(default_factory=dict)
    failed: dict[int, Failed] = field(default_factory=dict)


def lane_of(resource: str, object_id: str) -> int:
    """The object's lane within any receiver: 64 bits, signed. Two objects that share one merely wait for each other."""
    digest = _lanes_of(resource).copy()
    digest.update(object_id.encode())
    return int.from_bytes(digest.digest(), "big", signed=True)


@lru_cache(maxsize=4096)
def _lanes_of(resource: str) -> blake2b:
    """Begun with what the resource's lanes have in common; to be copied."""
    return blake2b(f"{resource}\0".encode(), digest_size=8)


def _add_test(batch: Batch, row: Captured, organisation_id: int, place: int) -> None:
    """The event of a test send, in a lane of its own: it waits for nothing, and nothing waits for it."""
    if row.action != Action.CREATE.value or row.new is None:
        return
    batch.queue_organisation_ids.append(organisation_id)
    batch.receiver_ids.append(int(json.loads(row.new)["receiver_id"]))
    batch.subscription_ids.append(NO_SUBSCRIPTION)
    batch.queue_places.append(place)
    batch.queue_sequences.append(0)
    batch.lanes.append(lane_of(row.resource, row.object_id))


def _shape(batch: Batch, firings: Sequence[Firing]) -> tuple[Subscription, ...]:
    """Note how the bodies of the events to be added next are made, where not as usual; the subscriptions fired."""
    place = len(batch.subscription_ids)
    for subscription, render_version, body in firings:
        if render_version != STANDARD_BODY or subscription.fields is not None:
            batch.shaped[place] = Shaped(render_version, subscription.fields, body)
        place += 1
    return tuple(firing.subscription for firing in firings)


def _count(batch: Batch, failures: Sequence[Failure], change_id: int) -> None:
    for subscription, of_template, message in failures:
        before = batch.failed.get(subscription.subscription_id)
        batch.failed[subscription.subscription_id] = Failed(
            subscription.organisation_id,
            (before.conditions_count if before else 0) + (not of_template),
            (before.templates_count if before else 0) + of_template,
            change_id,
            message,
        )


def stamp(
    rows: Sequence[tuple[Captured, int]],
    numbers: Numbers,
    index: Index,
    recorded_at: datetime,
    salts: bytes,
    evaluator: Evaluator,
    unevaluated: Collection[int] = (),
    limit: Limit = NO_LIMIT,
) -> Batch:
    """Number and link the rows (each with its organisation's id) in the order given, and make their events.

    `salts` holds SALT_BYTES for each row. The batch may end before the last row, where it reaches its `limit`. Of rows whose
    outbox ids are `unevaluated` nothing is asked: who asks counts as failed.
    Raises KeyError if a counter of a matched subscription is not in `numbers`.
    """
    batch = Batch(numbers, numbers, recorded_at, salts)
    microseconds = since_1970_us(recorded_at)
    tails, sequences = batch.changed_tails, batch.changed_sequences
    for place, (row, organisation_id) in enumerate(rows, start=1):
        tail = tails.get(organisation_id) or numbers.tails.get(organisation_id) or Tail()
        salt = salts[(place - 1) * SALT_BYTES : place * SALT_BYTES]
        payload = payload_digest(salt, row.old, row.new, row.actor_id, row.actor_name, row.correlation_id)
        change_id = tail.change_id + 1
        tail = Tail(
            change_id,
            link(tail.link, organisation_id, change_id, microseconds, row.resource, row.action, row.object_id, payload),
        )
        tails[organisation_id] = tail
        batch.outbox_ids.append(row.outbox_id)
        batch.organisation_ids.append(organisation_id)
        batch.change_ids.append(change_id)
        batch.links.append(tail.link)
        batch.events_before.append(len(batch.subscription_ids))
        if row.resource == TESTS:
            _add_test(batch, row, organisation_id, place)
        subscriptions, are_plain = index.listening(organisation_id, row.resource, row.action)
        if not subscriptions:
            continue
        if not are_plain:
            firings, failures = evaluator.evaluate(row, subscriptions, alive=row.outbox_id not in unevaluated)
            _count(batch, failures, change_id)
            subscriptions = _shape(batch, firings)
        lane = lane_of(row.resource, row.object_id)
        for subscription in subscriptions:
            subscription_id = subscription.subscription_id
            sequence = sequences.get(subscription_id)
            sequence = (numbers.sequences[subscription_id] if sequence is None else sequence) + 1
            sequences[subscription_id] = sequence
            batch.queue_organisation_ids.append(organisation_id)
            batch.receiver_ids.append(subscription.receiver_id)
            batch.subscription_ids.append(subscription_id)
            batch.queue_places.append(place)
            batch.queue_sequences.append(sequence)
            batch.lanes.append(lane)
        is_reached = len(batch.subscription_ids) >= limit.events_max or (
            not are_plain and limit.clock_ns() > limit.ends_ns
        )
        # Each organisation has one row in the batch, however dear another's are.
        if is_reached and place < len(rows) and rows[place][1] in tails:
            break
    batch.events_before.append(len(batch.subscription_ids))
    batch.salts = salts[: len(batch.outbox_ids) * SALT_BYTES]
    batch.after = replace(
        numbers,
        position=numbers.position + len(batch.outbox_ids),
        event_id=numbers.event_id + len(batch.subscription_ids),
        queue_id=numbers.queue_id + len(batch.subscription_ids),
        tails={**numbers.tails, **tails},
        sequences={**numbers.sequences, **sequences},
    )
    return batch
