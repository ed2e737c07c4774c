"""Every input and effect as one line of canonical text, and the hash of all lines of a run.

The one place that must know each kind: an input or effect that is new fails here, loudly, until the world carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from clarion.core.clock import Now
from clarion.delivery.event import Event
from clarion.delivery.health import Failing
from clarion.delivery.step import (
    Commanded,
    Configured,
    Disable,
    Effect,
    Finished,
    Input,
    LaneLoaded,
    Loaded,
    LoadLane,
    LoadReceiver,
    Obeyed,
    ReceiverLoaded,
    Remember,
    Send,
    SendingAllowed,
    Settle,
    Settled,
    ShardsClaimed,
    ShardsDraining,
    ShardsReleased,
    Ticked,
    Unsendable,
)
from clarion.sender.outcome import Attempt

EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UnknownStep(Exception):
    """The engine has an input or an effect that the simulation does not know yet."""


class Trace:
    """The lines of a run, hashed; `show` gets each as it comes."""

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        self._hash = sha256()
        self._show = show

    def line(self, text: str) -> None:
        self._hash.update(text.encode())
        self._hash.update(b"\n")
        if self._show is not None:
            self._show(text)

    def told(self, worker_id: int, happened: Input, now: Now) -> None:
        self.line(f"{now.monotonic_ns} {_moment(now.wall)} w{worker_id} < {input_text(happened)}")

    def wants(self, effect: Effect) -> None:
        self.line(f"  > {effect_text(effect)}")

    def digest(self) -> str:
        """The hash so far, in hex."""
        return self._hash.hexdigest()


def input_text(happened: Input) -> str:
    """Raises UnknownStep."""
    match happened:
        case Finished(event, attempt):
            return f"finished q{event.queue_id} {_attempt(attempt)}"
        case Settled(settlements):
            return f"settled {' '.join(f'q{s.event.queue_id}' for s in settlements)}"
        case Loaded(events):
            return f"loaded {_events(events)}"
        case ReceiverLoaded(receiver_id, events, exhausted):
            return f"receiver loaded r{receiver_id} exhausted={exhausted} {_events(events)}"
        case LaneLoaded(receiver_id, lane, events, exhausted):
            return f"lane loaded r{receiver_id} l{lane} exhausted={exhausted} {_events(events)}"
        case Configured(receivers, subscriptions):
            return f"configured {[receivers[key] for key in sorted(receivers)]} {sorted(subscriptions.items())}"
        case Unsendable(event, reason):
            return f"unsendable q{event.queue_id} {reason.value}"
        case Commanded(commands):
            listed = (f"{c.command_id}:{c.kind.value}:{c.event.queue_id if c.event else '-'}" for c in commands)
            return f"commanded {' '.join(listed)}"
        case SendingAllowed(allowed):
            return f"sending allowed={allowed}"
        case ShardsClaimed(shards, failing):
            return f"claimed {_shards(shards)} failing={[_failing(r, failing[r]) for r in sorted(failing)]}"
        case ShardsDraining(shards):
            return f"draining {_shards(shards)}"
        case ShardsReleased(shards):
            return f"released {_shards(shards)}"
        case Ticked():
            return "ticked"
        case _:
            raise UnknownStep(f"tests/simulation does not know the input {happened!r}")


def effect_text(effect: Effect) -> str:
    """Raises UnknownStep."""
    match effect:
        case Send(event, number):
            return f"send r{event.receiver_id} q{event.queue_id} e{event.event_id}.{event.round} number={number}"
        case Settle(event, attempt, ending, due_at, command_ids):
            end = f"{ending.status.value} {ending.reason.value}" if ending else f"due={_moment(due_at)}"
            counts = f"{event.attempts_count}/{event.spent_count}"
            return f"settle q{event.queue_id} {counts} {end} by={command_ids} {_attempt(attempt) if attempt else '-'}"
        case LoadReceiver(receiver_id, after_queue_id, limit):
            return f"load receiver r{receiver_id} after={after_queue_id} limit={limit}"
        case LoadLane(receiver_id, lane, after_queue_id, upto_queue_id, limit):
            return f"load lane r{receiver_id} l{lane} after={after_queue_id} upto={upto_queue_id} limit={limit}"
        case Disable(receiver_id, reason):
            return f"disable r{receiver_id} {reason}"
        case Remember(receiver_id, failing):
            return f"remember {_failing(receiver_id, failing)}"
        case Obeyed(command_ids):
            return f"obeyed {command_ids}"
        case _:
            raise UnknownStep(f"tests/simulation does not know the effect {effect!r}")


def _moment(moment: datetime | None) -> int | None:
    """Microseconds since the world began."""
    return None if moment is None else (moment - EPOCH) // _MICROSECOND


def _events(events: Collection[Event]) -> str:
    return " ".join(f"q{e.queue_id}:{e.attempts_count}/{e.spent_count}:{_moment(e.due_at)}" for e in events)


def _attempt(attempt: Attempt) -> str:
    began = f"{attempt.outcome.value} at={_moment(attempt.started_at)} took={attempt.duration_ms}"
    return f"{began} status={attempt.status_code} after={attempt.retry_after_s} ours={attempt.ours}"


def _failing(receiver_id: int, failing: Failing | None) -> str:
    return f"r{receiver_id} " + ("well" if failing is None else f"since={_moment(failing.since)} count={failing.count}")


def _shards(shards: Collection[int]) -> str:
    return " ".join(map(str, sorted(shards)))
