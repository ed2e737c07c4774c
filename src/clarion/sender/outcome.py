"""What became of one request: values, never exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    """The receiver answered with the status that counts as success."""
    UNEXPECTED_STATUS = "UNEXPECTED_STATUS"
    """The receiver answered with any other status; redirects are answers like others."""
    TIMED_OUT = "TIMED_OUT"
    """The deadline passed before the answer was complete, and at least half of the time had been the receiver's; or connecting to it
    took longer than its budget."""
    CONNECT_FAILED = "CONNECT_FAILED"
    """No TCP connection: refused, unreachable."""
    CONNECTION_CLOSED = "CONNECTION_CLOSED"
    """The receiver closed or reset the connection before its answer was complete."""
    TLS_FAILED = "TLS_FAILED"
    """No TLS session: the certificate or the protocol."""
    DNS_FAILED = "DNS_FAILED"
    """The name has no address; or it could not be looked up, or not in time (then `Attempt.ours` is true)."""
    BLOCKED = "BLOCKED"
    """Policy forbids the request; nothing was sent and no connection opened."""
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    """The answer is not HTTP/1.1, or larger than any answer may be."""
    PROXY_FAILED = "PROXY_FAILED"
    """The egress proxy refused, could not be reached, or took too long."""
    OVERLOADED = "OVERLOADED"
    """This process could not send: no free connection in time, out of descriptors, stalled or shutting down."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an exchange ended without an answer that can be judged.

    `error` is one short sentence for the receiver's owner. `ours` is true where the cause lies with this
    side (resolver, descriptors, overload, shutdown), so that it must not count against the receiver.
    """

    outcome: Outcome
    error: str
    ours: bool = False


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request made for an event, with its answer.

    `response_headers` and `response_body` come from outside, cut to size but otherwise as they were: whoever
    shows them encodes them. `status_code` may be set although the outcome is a failure (an answer whose body
    never ended). Addresses are numeric, without port. `retry_after_s` is set for 429 and 503 only, in
    [0, 86400]. `ours` as in `Failure`.
    """

    outcome: Outcome
    started_at: datetime
    duration_ms: int
    status_code: int | None
    response_headers: tuple[tuple[str, str], ...]
    response_body: bytes
    error: str | None
    source_address: str | None
    peer_address: str | None
    retry_after_s: int | None
    ours: bool = False
