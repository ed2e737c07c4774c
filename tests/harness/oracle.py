"""What three logs together say: what the application committed, what Clarion's tables hold, what receivers wrote down.

The application's table has a column `version` that every commit raises by one, from 1 on: its last value is the log of
commits. What arrived is compared with that alone; what Clarion recorded is then compared with both.

All three are of one host, so that their times are of one clock.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import NamedTuple

import orjson

from clarion_receive import VerificationError, Webhook
from harness.receiver import Received

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"

_ANSWERED = ("SUCCEEDED", "UNEXPECTED_STATUS")
_NEVER_SENT = ("BLOCKED", "DNS_FAILED", "CONNECT_FAILED", "TLS_FAILED", "PROXY_FAILED")


class Subscription(NamedTuple):
    """What a subscription asks: an action, for a receiver."""

    receiver: int
    action: str


class Change(NamedTuple):
    """A row of the ledger about the application's table."""

    position: int
    change_id: int
    object_id: str
    action: str
    version: int
    first_event_id: int | None
    events_count: int


class Event(NamedTuple):
    """An event of such a change, open (`status` and `settled_at` None) or settled; times in Unix seconds."""

    event_id: int
    round: int
    subscription: int
    position: int
    attempts_count: int
    status: str | None = None
    settled_at: float | None = None
    body_sha256: bytes | None = None


class Attempt(NamedTuple):
    """A recorded attempt."""

    event_id: int
    round: int
    number: int
    outcome: str
    status_code: int | None


@dataclass(frozen=True, slots=True)
class Tables:
    """What Clarion holds: changes by position, attempts by event, round and number.

    `broken_links` counts changes that miss in the numbers or do not hash to their link.
    """

    subscriptions: Mapping[int, Subscription]
    changes: Sequence[Change]
    events: Sequence[Event]
    attempts: Sequence[Attempt]
    broken_links: int = 0


@dataclass(slots=True)
class Verdict:
    """Counts over one run; all but `expected` and what a crash excuses (`unrecorded`, `doubled`) have to be 0."""

    expected: int = 0
    """Committed changes times the subscriptions that ask for them."""
    lost: int = 0
    """Of the expected ones those that never arrived, though no event waits for them any more."""
    open: int = 0
    """Events without an outcome."""
    unexpected: int = 0
    """Arrived though never committed, never asked for, or under a second id."""
    inversions: int = 0
    """Arrived for the first time after a later event of the same object at the same receiver."""
    overtaking: int = 0
    """Sent before the outcome of the event before it, of the same object at the same receiver, was stored."""
    late: int = 0
    """Arrived when the event's outcome was stored."""
    altered: int = 0
    """Requests with other bytes than the event's record or an earlier request with the same id."""
    unverified: int = 0
    """Requests whose signature is not that of their receiver."""
    misledgered: int = 0
    """Objects whose changes in the ledger are not those that were committed, in their order; and broken links."""
    miscounted: int = 0
    """Expected events that there are not exactly once, others that there are, and ids that their change does not know."""
    undelivered: int = 0
    """Events settled as DELIVERED that no receiver answered with success."""
    unknown: int = 0
    """Requests of which there is no event, or whose event is about something else than their body."""
    disagreeing: int = 0
    """Events whose attempts, outcome and requests do not agree, as far as no outcome of a request was lost."""
    unrecorded: int = 0
    """Requests without an attempt: their outcome was lost."""
    doubled: dict[int, int] = field(default_factory=dict)
    """By event id the requests that came beyond the first and beyond the recorded attempts."""

    @property
    def duplicates(self) -> int:
        return sum(self.doubled.values())

    def faults(self) -> dict[str, int]:
        """What no crash excuses, by name; empty if all is well."""
        excused = ("expected", "unrecorded", "doubled")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in excused and getattr(self, f.name)}


def judge(
    committed: Mapping[int, Mapping[str, int]], tables: Tables, secrets: Mapping[int, str], log: Iterable[Received]
) -> Verdict:
    """Compare what the application committed, what the tables hold and what each receiver got.

    `committed` maps each receiver to its objects and their last version, `secrets` a receiver to the one secret that may have
    signed for it. Receivers that `committed` does not name are not judged.
    """
    verdict = Verdict(misledgered=tables.broken_links)
    subscriptions = {
        number: subscription
        for number, subscription in tables.subscriptions.items()
        if subscription.receiver in committed
    }
    expected = {
        (number, item, version)
        for number, subscription in subscriptions.items()
        for item, last in committed[subscription.receiver].items()
        for version in _versions(subscription.action, last)
    }
    verdict.expected = len(expected)
    _compare_ledger(verdict, committed, tables.changes)
    verdict.miscounted = unaccounted(tables.changes, tables.events)
    changes = {change.position: change for change in tables.changes}
    events = {
        (event.event_id, event.round): event
        for event in tables.events
        if event.subscription in subscriptions or event.subscription not in tables.subscriptions
    }
    _compare_events(verdict, expected, changes, events)
    requests = _read_requests(verdict, subscriptions, tables.subscriptions, changes, events, secrets, log)
    arrived: defaultdict[tuple[int, str, int], set[int]] = defaultdict(set)
    for request in requests:
        arrived[request.told].add(request.event_id)
    verdict.unexpected = sum(len(ids) - (told in expected) for told, ids in arrived.items())
    waiting = {
        (event.subscription, changes[event.position].object_id, changes[event.position].version)
        for event in events.values()
        if event.status is None and event.position in changes
    }
    verdict.lost = len(expected - arrived.keys() - waiting)
    _compare_order(verdict, subscriptions, events, changes, requests)
    _compare_attempts(verdict, events, tables.attempts, requests)
    every = {(event.event_id, event.round) for event in tables.events}
    verdict.disagreeing += len({(attempt.event_id, attempt.round) for attempt in tables.attempts} - every)
    return verdict


def unaccounted(changes: Iterable[Change], events: Iterable[Event]) -> int:
    """Event ids that a change should have and has not, or that belong to another change."""
    made = {
        change.first_event_id + place: change.position
        for change in changes
        if change.first_event_id is not None
        for place in range(change.events_count)
    }
    there = {event.event_id: event.position for event in events}
    return sum(made.get(event_id) != there.get(event_id) for event_id in made.keys() | there.keys())


def pauses_s(
    log: Iterable[Received], receiver_of: Mapping[int, int], receivers: Iterable[int], since: float
) -> dict[int, float]:
    """For each of the receivers the longest time in seconds without a request, until one of a change made after `since`.

    `since`, in Unix seconds, is when the outage began; infinite where no such change ever arrived. `receiver_of` has a
    subscription's receiver.
    """
    last = dict.fromkeys(receivers, since)
    longest = dict.fromkeys(last, 0.0)
    waiting = set(last)
    for request in log:
        if request.at > since and waiting:
            body = request.json()
            receiver = receiver_of[body["subscription_id"]]
            if receiver in waiting:
                longest[receiver] = max(longest[receiver], request.at - last[receiver])
                last[receiver] = request.at
                if datetime.fromisoformat(body["occurred_at"]).timestamp() > since:
                    waiting.discard(receiver)
    return {receiver: float("inf") if receiver in waiting else pause for receiver, pause in longest.items()}


def percentile(values: Iterable[float], share: float) -> float:
    """The value above which at most 1 - `share` (0 to 1) of the values lie; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# ---------------------------------------------------------------- one log against another


@dataclass(frozen=True, slots=True)
class _Request:
    """A verified request: its event, and the subscription, object and version that its body tells of."""

    event_id: int
    round: int
    told: tuple[int, str, int]
    at: float
    status: int | None


def _versions(action: str, last: int) -> range:
    """The versions that a change of this action made, of an object that ended as `last`."""
    return {CREATE: range(1, min(last, 1) + 1), UPDATE: range(2, last + 1), DELETE: range(0)}[action]


def _compare_ledger(verdict: Verdict, committed: Mapping[int, Mapping[str, int]], changes: Sequence[Change]) -> None:
    told: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for change in changes:
        told[change.object_id].append((change.action, change.version))
    objects = {item: last for items in committed.values() for item, last in items.items()}
    for item, last in objects.items():
        wanted = [(CREATE if version == 1 else UPDATE, version) for version in range(1, last + 1)]
        verdict.misledgered += told.get(item, []) != wanted


def _compare_events(
    verdict: Verdict,
    expected: set[tuple[int, str, int]],
    changes: Mapping[int, Change],
    events: Mapping[tuple[int, int], Event],
) -> None:
    there: Counter[tuple[int, str, int]] = Counter()
    for event in events.values():
        verdict.open += event.status is None
        if event.round == 0 and (change := changes.get(event.position)):
            there[(event.subscription, change.object_id, change.version)] += 1
        else:
            verdict.miscounted += event.position not in changes
    verdict.miscounted += sum(
        abs(there[place] - (place in expected))
        for place in expected | there.keys()
        if there[place] != (place in expected)
    )


def _read_requests(
    verdict: Verdict,
    judged: Mapping[int, Subscription],
    known: Mapping[int, Subscription],
    changes: Mapping[int, Change],
    events: Mapping[tuple[int, int], Event],
    secrets: Mapping[int, str],
    log: Iterable[Received],
) -> list[_Request]:
    """The requests to the judged receivers that verify and that there is an event of, in their order."""
    verifiers = {receiver: Webhook(secret, tolerance_s=24 * 3600) for receiver, secret in secrets.items()}
    bodies: dict[str, bytes] = {}
    found = []
    for request in log:
        body = orjson.loads(request.body)
        number = body["subscription_id"]
        if number not in judged:
            verdict.unknown += number not in known
            continue
        try:
            verifiers[judged[number].receiver].verify(request.body, request.headers)
        except VerificationError:
            verdict.unverified += 1
            continue
        event_id = int(request.message_id.rpartition("_")[2])
        told = (number, body["object_id"], body["data"]["version"])
        event = events.get((event_id, int(request.headers.get("clarion-retry", 0))))
        change = changes.get(event.position) if event else None
        if event is None or change is None:
            verdict.unknown += 1
        else:
            of_event = (event.subscription, change.object_id, change.version)
            verdict.unknown += (told, body["change_id"], body["event_id"]) != (of_event, change.change_id, event_id)
            settled_body = event.body_sha256
            same = settled_body is None or hashlib.sha256(request.body).digest() == settled_body
            verdict.altered += not same or bodies.setdefault(request.message_id, request.body) != request.body
            verdict.late += event.settled_at is not None and request.at > event.settled_at
        found.append(_Request(event_id, event.round if event else 0, told, request.at, request.status))
    return found


def _compare_order(
    verdict: Verdict,
    subscriptions: Mapping[int, Subscription],
    events: Mapping[tuple[int, int], Event],
    changes: Mapping[int, Change],
    requests: Sequence[_Request],
) -> None:
    """What came when, and in which order, as the application's versions and the events' settling say."""
    first_at: dict[int, float] = {}
    seen: defaultdict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for request in requests:
        number, item, version = request.told
        if request.round == 0 and request.event_id not in first_at:
            first_at[request.event_id] = request.at
            seen[(subscriptions[number].receiver, item)].append((version, request.event_id))
    verdict.inversions = sum(
        later < earlier for arrived in seen.values() for earlier, later in itertools.pairwise(arrived)
    )
    lanes: defaultdict[tuple[int, str], list[Event]] = defaultdict(list)
    for event in events.values():
        if event.round == 0 and event.position in changes and event.subscription in subscriptions:
            lanes[(subscriptions[event.subscription].receiver, changes[event.position].object_id)].append(event)
    for lane in lanes.values():
        for earlier, later in itertools.pairwise(sorted(lane)):
            if (at := first_at.get(later.event_id)) is not None:
                verdict.overtaking += earlier.settled_at is None or at < earlier.settled_at


def _compare_attempts(
    verdict: Verdict,
    events: Mapping[tuple[int, int], Event],
    attempts: Iterable[Attempt],
    requests: Iterable[_Request],
) -> None:
    made: defaultdict[tuple[int, int], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        made[(attempt.event_id, attempt.round)].append(attempt)
    came: defaultdict[tuple[int, int], list[int | None]] = defaultdict(list)
    for request in requests:
        came[(request.event_id, request.round)].append(request.status)
    for place, event in events.items():
        recorded, statuses = made.get(place, []), came.get(place, [])
        possible = sum(attempt.outcome not in _NEVER_SENT for attempt in recorded)
        unrecorded = max(0, len(statuses) - possible)
        verdict.unrecorded += unrecorded
        if (extra := len(statuses) - max(1, possible)) > 0:
            verdict.doubled[event.event_id] = verdict.doubled.get(event.event_id, 0) + extra
        well_answered = sum(status is not None and 200 <= status < 300 for status in statuses)
        verdict.undelivered += event.status == "DELIVERED" and not well_answered
        verdict.disagreeing += not _agree(event, recorded, statuses, well_answered - unrecorded)


def _agree(event: Event, recorded: Sequence[Attempt], statuses: Sequence[int | None], well_answered_min: int) -> bool:
    """Whether an event's attempts are numbered, end as its outcome says, and are of requests that came.

    `well_answered_min` of the requests were answered with success and their outcome was not lost.
    """
    successes = [attempt.outcome == "SUCCEEDED" for attempt in recorded]
    answers = Counter(attempt.status_code for attempt in recorded if attempt.outcome in _ANSWERED)
    return (
        [attempt.number for attempt in recorded] == list(range(1, event.attempts_count + 1))
        and sum(successes) == (event.status == "DELIVERED")
        and not any(successes[:-1])
        and sum(successes) >= well_answered_min
        and answers <= Counter(statuses)
    )
