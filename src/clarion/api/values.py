"""Scalars and fixed enums of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NewType

import orjson
import strawberry
from strawberry.types.scalar import ScalarDefinition

from clarion.api import described
from clarion.core.encoding import timestamp
from clarion.records.trail import EventStatus

BigInt = NewType("BigInt", int)
JSONValue = NewType("JSONValue", object)


def json_as_written(text: str) -> JSONValue:
    """JSON text that goes into the answer as it is: numbers keep the digits that a float would lose."""
    return JSONValue(orjson.Fragment(text))


def _moment(value: object) -> datetime:
    """The moment that a text names. Raises ValueError, also for one without its zone: whose clock would it be?"""
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError("a moment needs its zone, as 2026-11-24T01:02:03Z")
    return moment


SCALARS: Mapping[object, ScalarDefinition] = MappingProxyType(
    {
        BigInt: strawberry.scalar(
            name="BigInt",
            description="A whole number of up to 64 bits, as a JSON number.",
            serialize=int,
            parse_value=int,
        ),
        JSONValue: strawberry.scalar(
            name="JSON", description="Any JSON value.", serialize=lambda value: value, parse_value=lambda value: value
        ),
        datetime: strawberry.scalar(
            name="DateTime",
            description="A moment in UTC with microseconds, as `2026-11-24T01:02:03.456789Z`.",
            serialize=timestamp,
            parse_value=_moment,
        ),
    }
)


@strawberry.enum(description="What happened to an object.")
class WebhookSubscriptionActions(Enum):
    CREATE = described.enum_value("CREATE", "The object was created.")
    UPDATE = described.enum_value("UPDATE", "At least one column of the object was changed.")
    DELETE = described.enum_value("DELETE", "The object was deleted.")


@strawberry.enum(description="Why a subscription makes no events.")
class WebhookSubscriptionInactiveReason(Enum):
    MANUAL = described.enum_value("MANUAL", "`active` is false.")
    RIGHT_REVOKED = described.enum_value(
        "RIGHT_REVOKED", "The receiver has no right to the resource any more: see its `readableResources`."
    )
    DELETED = described.enum_value("DELETED", "It was deleted, alone or with its receiver.")


@strawberry.enum(description="In which order a receiver gets the events of one object.")
class WebhookOrdering(Enum):
    PER_OBJECT = described.enum_value("PER_OBJECT", "An object's next event waits until the one before is settled.")
    NONE = described.enum_value("NONE", "Events are sent as soon as they are due, in any order.")


@strawberry.enum(description="How requests are signed.")
class WebhookSignature(Enum):
    V1 = described.enum_value("V1", "Standard Webhooks: HMAC-SHA256 in the header `webhook-signature`.")
    V1A = described.enum_value(
        "V1A", "Standard Webhooks: Ed25519 with a key of this deployment, published at `/.well-known/jwks.json`."
    )
    ION = described.enum_value("ION", "HMAC-SHA256 of the raw body in hexadecimal, in the header `x-ion-signature`.")


@strawberry.enum(description="Why a receiver is inactive.")
class WebhookDisabledReason(Enum):
    MANUAL = described.enum_value("MANUAL", "Somebody set `active` to false.")
    GONE = described.enum_value("GONE", "It answered 410 Gone.")
    NO_SUCCESS = described.enum_value("NO_SUCCESS", "It has not answered with success for days.")


@strawberry.enum(description="Who a client is.")
class ClientKind(Enum):
    PERSON = described.enum_value("PERSON", "Somebody who signs in.")
    MACHINE = described.enum_value("MACHINE", "A program with an API key.")


@strawberry.enum(description="Where an event is.")
class WebhookEventStatus(Enum):
    PENDING = described.enum_value(
        EventStatus.PENDING.value, "In flight, due, or waiting for its object's event before it."
    )
    HELD = described.enum_value(EventStatus.HELD.value, "Its receiver is inactive; sent when it is active again.")
    DELIVERED = described.enum_value(EventStatus.DELIVERED.value, "The receiver answered with success.")
    FAILED = described.enum_value(EventStatus.FAILED.value, "All attempts of the retry schedule are used up.")
    EXPIRED = described.enum_value(
        EventStatus.EXPIRED.value, "It got older than its subscription allows, or was held for 30 days."
    )
    CANCELLED = described.enum_value(EventStatus.CANCELLED.value, "It was called off before it was delivered.")


@strawberry.enum(description="How an attempt ended.")
class WebhookAttemptOutcome(Enum):
    SUCCEEDED = described.enum_value("SUCCEEDED", "The receiver answered with the status that counts as success.")
    UNEXPECTED_STATUS = described.enum_value("UNEXPECTED_STATUS", "The receiver answered with another status.")
    TIMED_OUT = described.enum_value("TIMED_OUT", "No complete answer within the receiver's timeout.")
    CONNECT_FAILED = described.enum_value("CONNECT_FAILED", "No connection could be opened.")
    CONNECTION_CLOSED = described.enum_value("CONNECTION_CLOSED", "The connection ended before the answer did.")
    TLS_FAILED = described.enum_value("TLS_FAILED", "The certificate or the handshake was not acceptable.")
    DNS_FAILED = described.enum_value("DNS_FAILED", "The host's name did not resolve.")
    BLOCKED = described.enum_value("BLOCKED", "Policy forbids the destination.")
    PROTOCOL_ERROR = described.enum_value("PROTOCOL_ERROR", "The answer was not HTTP/1.1.")
    PROXY_FAILED = described.enum_value("PROXY_FAILED", "The egress proxy failed; the receiver is not to blame.")
    OVERLOADED = described.enum_value("OVERLOADED", "Clarion itself was overloaded; the receiver is not to blame.")
