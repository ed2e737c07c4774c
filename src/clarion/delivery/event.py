"""The Event value as the engine holds it, and the table of its states. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, StrEnum

import msgspec

from clarion.core.ids import NO_SUBSCRIPTION, STANDARD_BODY
from clarion.ledger.change import Change


class State(Enum):
    """Where an open event stands in memory."""

    WAITING = "behind its lane's head, or due later, or its receiver is not taking requests"
    READY = "may be sent as soon as its receiver and this worker have room"
    IN_FLIGHT = "a request for it is under way"
    SETTLING = "its outcome is being stored"
    GONE = "its end is stored"

    # Its members are the only ones, so identity will do; Enum would hash the name anew, in Python, at every step.
    __hash__ = object.__hash__


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.WAITING: (State.READY, State.SETTLING),  # became head and due; ended while it waited: expired or cancelled
    State.READY: (State.IN_FLIGHT, State.SETTLING),  # sent; ended without a request, likewise
    State.IN_FLIGHT: (State.SETTLING,),  # answered, or failed
    State.SETTLING: (State.GONE, State.WAITING),  # ended; to be tried again
    State.GONE: (),
}
"""Every step that an event may take; the engine refuses all others as a bug of its own."""


class Status(StrEnum):
    """How an event ended."""

    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class Reason(StrEnum):
    """Why it ended so."""

    SUCCEEDED = "SUCCEEDED"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    TEST_FAILED = "TEST_FAILED"
    BODY_CHANGED = "BODY_CHANGED"
    BODY_FAILED = "BODY_FAILED"
    TEMPLATE_FAILED = "TEMPLATE_FAILED"
    EXPIRED = "EXPIRED"
    HELD_TOO_LONG = "HELD_TOO_LONG"
    RECEIVER_DELETED = "RECEIVER_DELETED"
    SUBSCRIPTION_DELETED = "SUBSCRIPTION_DELETED"
    RIGHT_REVOKED = "RIGHT_REVOKED"
    CANCELLED_BY_REQUEST = "CANCELLED_BY_REQUEST"


class Event(msgspec.Struct, eq=False, gc=False):
    """One open event with its change. Most of what has a default changes as it is tried.

    `fields` is a JSON array of the only fields that the body shows; `body` what a template made, None if it failed.
    `shares_change`: another event of the same change was read together with it.
    `cancelled_by` has the ids of the commands that want it cancelled, `hurried_by` of those that want it tried at once.
    """

    queue_id: int
    event_id: int
    round: int
    organisation_id: int
    receiver_id: int
    subscription_id: int
    sequence: int
    lane: int
    change: Change
    attempts_count: int = 0
    spent_count: int = 0
    due_at: datetime | None = None
    first_failed_at: datetime | None = None
    body_sha256: bytes | None = None
    render_version: int = STANDARD_BODY
    fields: str | None = None
    body: bytes | None = None
    shares_change: bool = False
    overtaken: bool = False
    cancelled_by: tuple[int, ...] = ()
    hurried_by: tuple[int, ...] = ()
    state: State = State.WAITING

    @property
    def is_test(self) -> bool:
        """Whether it is a test send, which is tried once."""
        return self.subscription_id == NO_SUBSCRIPTION
