"""Names for the numbers that cross module borders, so that a checker keeps them apart."""

from __future__ import annotations

from typing import NewType

OrganisationId = NewType("OrganisationId", int)
ClientId = NewType("ClientId", int)
ReceiverId = NewType("ReceiverId", int)
SubscriptionId = NewType("SubscriptionId", int)
EventId = NewType("EventId", int)
QueueId = NewType("QueueId", int)
Position = NewType("Position", int)
ResourceName = NewType("ResourceName", str)
Lane = NewType("Lane", int)

TESTS = ResourceName("WEBHOOK_TESTS")
"""The resource whose changes are test sends: each is an event for the receiver that it names."""

NO_SUBSCRIPTION = SubscriptionId(0)
"""The subscription of an event that none has fired: of a test send."""

STANDARD_BODY, TEMPLATE_BODY = 1, 2
"""How an event's body is made (`render_version`): from the change each time it is sent, or once, by a template."""

SHARDS_COUNT = 64
"""Hash slices of receivers; fixed, because the shard is stored with each queue row."""


def shard_of(receiver_id: int) -> int:
    """The receiver's shard, in [0, SHARDS_COUNT)."""
    return receiver_id % SHARDS_COUNT
