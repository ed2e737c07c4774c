"""What the engine is told and what it wants done: inputs in the past tense, effects in the imperative. Pure values.

Those that come with every delivery are structs of msgspec: a named tuple takes three times as long to make, a frozen
dataclass nine times.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from clarion.delivery.event import Event, Reason, Status
from clarion.delivery.health import Failing
from clarion.sender.outcome import Attempt


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What of a receiver's configuration decides about sending; times in seconds.

    `inactive_since`: when its owner or this engine switched it off, if it is. `readable_resources` are the only ones whose events
    it may be sent; None: all.
    """

    receiver_id: int
    active: bool = True
    inactive_since: datetime | None = None
    concurrency: int = 4
    retry_schedule_s: tuple[int, ...] = (0,)
    ordered_per_object: bool = True
    rate_limit_per_second: int | None = None
    lane_block_max_s: int | None = None
    readable_resources: frozenset[str] | None = None

    def may_be_sent(self, event: Event) -> bool:
        """Whether it has the right to the event's resource; a test holds nothing that it would need one for."""
        readable = self.readable_resources
        return readable is None or event.change.resource in readable or event.is_test


@dataclass(frozen=True, slots=True)
class Configured:
    """The configuration as it is now. A receiver or subscription that is absent was deleted.

    `subscriptions` maps each live subscription to the seconds after which its events expire, or None.
    """

    receivers: Mapping[int, ReceiverSettings]
    subscriptions: Mapping[int, int | None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows read from the end of the queue, by ascending queue id."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class ReceiverLoaded:
    """Rows of one receiver read because the engine asked; `exhausted`: there were no more at that moment."""

    receiver_id: int
    events: Sequence[Event]
    exhausted: bool


@dataclass(frozen=True, slots=True)
class LaneLoaded:
    """Rows of one lane read because the engine asked; `exhausted`: there were no more up to the queue id it named."""

    receiver_id: int
    lane: int
    events: Sequence[Event]
    exhausted: bool


class Finished(msgspec.Struct, frozen=True, gc=False):
    """A request came to its end, one way or the other."""

    event: Event
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Unsendable:
    """The event's body cannot be sent: it differs from what was sent under its id before, or cannot be made."""

    event: Event
    reason: Reason


class CommandKind(StrEnum):
    """What may be ordered about an open event."""

    CANCEL = "CANCEL"
    RETRY_NOW = "RETRY_NOW"


@dataclass(frozen=True, slots=True)
class Command:
    """An order about an event; `event` is its row as read with the order, None if it is not open any more."""

    command_id: int
    kind: CommandKind
    event: Event | None


@dataclass(frozen=True, slots=True)
class Commanded:
    """Orders that came in. An order may come again: what is done stays done."""

    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Settled:
    """These settlements are durable."""

    settlements: Sequence[Settle]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class SendingAllowed:
    """Whether new requests may be made: not while stopping, nor while the ownership of the shards is in doubt."""

    allowed: bool


@dataclass(frozen=True, slots=True)
class ShardsClaimed:
    """These shards are owned from now on. An engine that was told of no shard owns all.

    `failing` has what is stored of their receivers that do not succeed.
    """

    shards: Collection[int]
    failing: Mapping[int, Failing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardsDraining:
    """These shards are about to be given up: no new request is made for them."""

    shards: Collection[int]


@dataclass(frozen=True, slots=True)
class ShardsReleased:
    """These shards are not owned: everything about them is forgotten. None of their requests may be under way."""

    shards: Collection[int]


Input = (
    Configured
    | Loaded
    | ReceiverLoaded
    | LaneLoaded
    | Finished
    | Unsendable
    | Settled
    | Ticked
    | SendingAllowed
    | Commanded
    | ShardsClaimed
    | ShardsDraining
    | ShardsReleased
)


class Send(msgspec.Struct, frozen=True, gc=False):
    """Make the event's request number `number`."""

    event: Event
    number: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How an event ends."""

    status: Status
    reason: Reason


class Settle(msgspec.Struct, frozen=True, gc=False):
    """Store the attempt, if there was one, and either the event's end or when it is due again.

    `command_ids` are the orders that are carried out by it.
    """

    event: Event
    attempt: Attempt | None
    ending: Ending | None
    due_at: datetime | None
    command_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadReceiver:
    """Read up to `limit` rows of the receiver above `after_queue_id`."""

    receiver_id: int
    after_queue_id: int
    limit: int


@dataclass(frozen=True, slots=True)
class LoadLane:
    """Read up to `limit` rows of the lane above `after_queue_id` and not above `upto_queue_id`."""

    receiver_id: int
    lane: int
    after_queue_id: int
    upto_queue_id: int
    limit: int


@dataclass(frozen=True, slots=True)
class Disable:
    """Take the receiver out of service, with a reason that its owner sees."""

    receiver_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Store that the receiver fails, or (None) that it does not; whoever serves it later goes on from there."""

    receiver_id: int
    failing: Failing | None


@dataclass(frozen=True, slots=True)
class Obeyed:
    """These orders have nothing left to do."""

    command_ids: tuple[int, ...]


Effect = Send | Settle | LoadReceiver | LoadLane | Disable | Remember | Obeyed
