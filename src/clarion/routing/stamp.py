"""Numbers and links for a batch: from captured rows to the columns of the one statement. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from clarion.core.ids import NO_SUBSCRIPTION, TESTS
from clarion.ledger.chain import GENESIS, SALT_BYTES, link, payload_digest, since_1970_us
from clarion.ledger.change import Action, Captured
from clarion.routing.match import Index

Evaluate = Callable[[Captured], object]
"""What is asked of a change that subscriptions match by resource and action. What it answers is not used yet."""


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
    """

    before: Numbers
    after: Numbers
    recorded_at: datetime
    salts: bytes
    outbox_ids: list[int] = field(default_factory=list)
    organisation_ids: list[int] = field(default_factory=list)
    change_ids: list[int] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    queue_organisation_ids: list[int] = field(default_factory=list)
    receiver_ids: list[int] = field(default_factory=list)
    subscription_ids: list[int] = field(default_factory=list)
    queue_positions: list[int] = field(default_factory=list)
    queue_sequences: list[int] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)
    changed_tails: dict[int, Tail] = field(default_factory=dict)
    changed_sequences: dict[int, int] = field(default_factory=dict)


def lane_of(resource: str, object_id: str) -> int:
    """The object's lane within any receiver: 64 bits, signed. Two objects that share one merely wait for each other."""
    digest = blake2b(f"{resource}\0{object_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _add_test(batch: Batch, row: Captured, organisation_id: int, position: int) -> None:
    """The event of a test send, in a lane of its own: it waits for nothing, and nothing waits for it."""
    if row.action != Action.CREATE.value or row.new is None:
        return
    batch.queue_organisation_ids.append(organisation_id)
    batch.receiver_ids.append(int(json.loads(row.new)["receiver_id"]))
    batch.subscription_ids.append(NO_SUBSCRIPTION)
    batch.queue_positions.append(position)
    batch.queue_sequences.append(0)
    batch.lanes.append(lane_of(row.resource, row.object_id))


def stamp(
    rows: Sequence[tuple[Captured, int]],
    numbers: Numbers,
    index: Index,
    recorded_at: datetime,
    salts: bytes,
    evaluate: Evaluate | None = None,
    unevaluated: Collection[int] = (),
) -> Batch:
    """Number and link the rows (each with its organisation's id) in the order given, and make their events.

    `salts` holds SALT_BYTES for each row. Rows whose outbox ids are `unevaluated` are matched by resource and action alone.
    Raises KeyError if a counter of a matched subscription is not in `numbers`.
    """
    batch = Batch(numbers, numbers, recorded_at, salts)
    microseconds = since_1970_us(recorded_at)
    position = numbers.position
    tails, sequences = batch.changed_tails, batch.changed_sequences
    for place, (row, organisation_id) in enumerate(rows):
        position += 1
        tail = tails.get(organisation_id) or numbers.tails.get(organisation_id) or Tail()
        salt = salts[place * SALT_BYTES : (place + 1) * SALT_BYTES]
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
        if row.resource == TESTS:
            _add_test(batch, row, organisation_id, position)
        subscriptions = index.matching(organisation_id, row.resource, row.action)
        if not subscriptions:
            continue
        if evaluate is not None and row.outbox_id not in unevaluated:
            evaluate(row)
        lane = lane_of(row.resource, row.object_id)
        for subscription in subscriptions:
            subscription_id = subscription.subscription_id
            sequence = sequences.get(subscription_id)
            sequence = (numbers.sequences[subscription_id] if sequence is None else sequence) + 1
            sequences[subscription_id] = sequence
            batch.queue_organisation_ids.append(organisation_id)
            batch.receiver_ids.append(subscription.receiver_id)
            batch.subscription_ids.append(subscription_id)
            batch.queue_positions.append(position)
            batch.queue_sequences.append(sequence)
            batch.lanes.append(lane)
    batch.after = replace(
        numbers,
        position=position,
        event_id=numbers.event_id + len(batch.subscription_ids),
        queue_id=numbers.queue_id + len(batch.subscription_ids),
        tails={**numbers.tails, **tails},
        sequences={**numbers.sequences, **sequences},
    )
    return batch
