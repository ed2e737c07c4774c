"""The oracle itself: it must be able to fail, at whatever place of whatever run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from harness.oracle import (
    CREATE,
    UPDATE,
    Attempt,
    Change,
    Event,
    Subscription,
    Tables,
    Verdict,
    judge,
    pauses_s,
    percentile,
    unaccounted,
)
from harness.receiver import Received

RECEIVERS = (1, 2, 3)
SECRETS = {number: "whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in RECEIVERS}
SEEDS = range(8)


@dataclass
class Run:
    """The three logs of a small run, made from a seed: nothing in them is wrong unless a test makes it so."""

    dice: random.Random
    committed: dict[int, dict[str, int]]
    subscriptions: dict[int, Subscription]
    changes: list[Change]
    events: list[Event]
    attempts: list[Attempt]
    log: list[Received]

    def judged(self) -> Verdict:
        tables = Tables(self.subscriptions, self.changes, self.events, self.attempts)
        return judge(self.committed, tables, SECRETS, self.log)

    def pick(self) -> int:
        """Where some event stands in `events`."""
        return self.dice.randrange(len(self.events))

    def requests_of(self, event: Event) -> list[int]:
        return [place for place, request in enumerate(self.log) if request.json()["event_id"] == event.event_id]

    def attempts_of(self, event: Event) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.event_id == event.event_id]


def made(seed: int) -> Run:
    """Objects with up to five versions, receivers with up to three subscriptions for one action, a failure now and then."""
    dice = random.Random(seed)
    objects = {str(number): dice.randint(1, 5) for number in range(1, 5)}
    numbers = itertools.count(10)
    subscriptions = {
        next(numbers): Subscription(receiver, action)
        for receiver in RECEIVERS
        for action in (CREATE, UPDATE)
        for _ in range(dice.randint(1, 3))
    }
    run = Run(dice, {receiver: dict(objects) for receiver in RECEIVERS}, subscriptions, [], [], [], [])
    versions = [item for item, last in objects.items() for _ in range(last)]
    dice.shuffle(versions)
    at = float(int(time.time()))
    for position, item in enumerate(versions, 1):
        version = versions[:position].count(item)
        action = CREATE if version == 1 else UPDATE
        asking = [number for number, subscription in subscriptions.items() if subscription.action == action]
        change = Change(position, position, item, action, version, len(run.events) + 1, len(asking))
        run.changes.append(change)
        for number in asking:
            at += 1
            _deliver(run, change, number, at)
    return run


def _deliver(run: Run, change: Change, number: int, at: float) -> None:
    event_id = len(run.events) + 1
    failures = run.dice.choice([0, 0, 0, 1, 2])
    for place in range(failures + 1):
        status = 200 if place == failures else 503
        request = request_of(event_id, number, change, SECRETS[run.subscriptions[number].receiver], status, at)
        run.log.append(request)
        outcome = "SUCCEEDED" if status == 200 else "UNEXPECTED_STATUS"
        run.attempts.append(Attempt(event_id, 0, place + 1, outcome, status))
        at += 0.1
    digest = hashlib.sha256(run.log[-1].body).digest()
    run.events.append(Event(event_id, 0, number, change.position, failures + 1, "DELIVERED", at, digest))


def request_of(event_id: int, number: int, change: Change, secret: str, status: int | None, at: float) -> Received:
    body = json.dumps(
        {
            "event_id": event_id,
            "subscription_id": number,
            "resource": "items",
            "action": change.action.lower(),
            "object_id": change.object_id,
            "change_id": change.change_id,
            "sequence": event_id,
            "occurred_at": "2026-01-01T00:00:00.000000Z",
            "recorded_at": "2026-01-01T00:00:00.000000Z",
            "actor": None,
            "correlation_id": None,
            "changed": [],
            "data": {"version": change.version},
            "previous": {},
        }
    ).encode()
    signed_at = int(time.time())
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"evt_{event_id}.{signed_at}.".encode() + body, hashlib.sha256)
    headers = {
        "webhook-id": f"evt_{event_id}",
        "webhook-timestamp": str(signed_at),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
    return Received(at, "/ok", headers, body, status)


# ---------------------------------------------------------------- what goes wrong, and what the oracle has to call it


def _settled_but_never_sent(run: Run) -> None:
    gone = run.requests_of(run.events[run.pick()])
    run.log = [request for place, request in enumerate(run.log) if place not in gone]


def _settled_though_refused(run: Run) -> None:
    place = run.requests_of(run.events[run.pick()])[-1]
    run.log[place] = replace(run.log[place], status=503)


def _sent_without_an_event(run: Run) -> None:
    place = run.pick()
    event = run.events.pop(place)
    run.attempts = [attempt for attempt in run.attempts if attempt.event_id != event.event_id]


def _sent_with_anothers_id(run: Run) -> None:
    one, other = run.dice.sample(run.events, 2)
    number = other.subscription
    secret = SECRETS[run.subscriptions[number].receiver]
    forged = request_of(one.event_id, number, run.changes[other.position - 1], secret, 200, run.log[0].at)
    run.log[run.requests_of(one)[0]] = forged


def _sent_without_an_attempt(run: Run) -> None:
    place = run.pick()
    event = run.events[place]
    last = run.attempts_of(event)[-1]
    run.attempts.remove(last)
    run.events[place] = event._replace(attempts_count=event.attempts_count - 1)


def _no_outcome(run: Run) -> None:
    place = run.pick()
    run.events[place] = run.events[place]._replace(status=None, settled_at=None)


def _a_success_that_is_recorded_as_none(run: Run) -> None:
    event = run.events[run.pick()]
    last = run.attempts_of(event)[-1]
    run.attempts[run.attempts.index(last)] = last._replace(outcome="TIMED_OUT", status_code=None)


def _two_successes(run: Run) -> None:
    place = run.pick()
    event = run.events[place]
    last = run.attempts_of(event)[-1]
    run.attempts.insert(run.attempts.index(last) + 1, last._replace(number=last.number + 1))
    run.events[place] = event._replace(attempts_count=event.attempts_count + 1)
    again = run.requests_of(event)[-1]
    run.log.insert(again + 1, run.log[again])


def _more_attempts_than_requests(run: Run) -> None:
    place = run.pick()
    event = run.events[place]
    first = run.attempts_of(event)[0]
    rest = [attempt._replace(number=attempt.number + 1) for attempt in run.attempts_of(event)]
    where = run.attempts.index(first)
    run.attempts[where : where + len(rest)] = [first._replace(outcome="UNEXPECTED_STATUS", status_code=500), *rest]
    run.events[place] = event._replace(attempts_count=event.attempts_count + 1)


def _attempts_counted_wrong(run: Run) -> None:
    place = run.pick()
    run.events[place] = run.events[place]._replace(attempts_count=run.events[place].attempts_count + 1)


def _attempts_without_an_event(run: Run) -> None:
    run.attempts.append(Attempt(len(run.events) + 7, 0, 1, "TIMED_OUT", None))


def _other_bytes_again(run: Run) -> None:
    event = run.events[run.pick()]
    place = run.requests_of(event)[0]
    body = run.log[place].body.replace(b'"changed": []', b'"changed": ["x"]')
    secret = base64.b64decode(SECRETS[run.subscriptions[event.subscription].receiver].removeprefix("whsec_"))
    headers = dict(run.log[place].headers)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    headers["webhook-signature"] = "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    run.log.insert(place + 1, replace(run.log[place], body=body, headers=headers))


def _a_change_that_never_arrives(run: Run) -> None:
    """Nor is anything of it recorded: the router forgot it."""
    change = run.changes[run.dice.randrange(len(run.changes))]
    ids = {event.event_id for event in run.events if event.position == change.position}
    run.changes.remove(change)
    run.events = [event for event in run.events if event.event_id not in ids]
    run.attempts = [attempt for attempt in run.attempts if attempt.event_id not in ids]
    run.log = [request for request in run.log if request.json()["event_id"] not in ids]


def _a_change_that_was_rolled_back(run: Run) -> None:
    item = run.dice.choice(list(run.committed[1]))
    for items in run.committed.values():
        items[item] -= 1


def _an_event_twice(run: Run) -> None:
    """The same change for the same subscription, under another id."""
    event = run.events[run.pick()]
    change = run.changes[event.position - 1]
    at = run.events[-1].settled_at
    assert at is not None
    _deliver(run, change, event.subscription, at + 1)


def _no_event_for_a_subscription(run: Run) -> None:
    event = run.events.pop(run.pick())
    run.attempts = [attempt for attempt in run.attempts if attempt.event_id != event.event_id]
    run.log = [request for request in run.log if request.json()["event_id"] != event.event_id]


def _lane(run: Run) -> tuple[list[int], list[int]]:
    """Where the requests of two events of one object at one receiver stand in the log, one right after the other."""
    lanes: dict[tuple[int, str], list[Event]] = {}
    for event in run.events:
        place = (run.subscriptions[event.subscription].receiver, run.changes[event.position - 1].object_id)
        lanes.setdefault(place, []).append(event)
    lane = run.dice.choice([lane for lane in lanes.values() if len(lane) > 1])
    place = run.dice.randrange(len(lane) - 1)
    return run.requests_of(lane[place]), run.requests_of(lane[place + 1])


def _an_objects_events_in_the_wrong_order(run: Run) -> None:
    earlier, later = _lane(run)
    run.log[earlier[0]], run.log[later[0]] = run.log[later[0]], run.log[earlier[0]]


def _sent_before_the_one_before_was_settled(run: Run) -> None:
    earlier, later = _lane(run)
    run.log[later[0]] = replace(run.log[later[0]], at=run.log[earlier[0]].at)


def _sent_again_after_it_was_settled(run: Run) -> None:
    event = run.events[run.pick()]
    assert event.settled_at is not None
    place = run.requests_of(event)[-1]
    run.log.insert(place + 1, replace(run.log[place], at=event.settled_at + 0.001))


def _signed_for_another(run: Run) -> None:
    event = run.events[run.pick()]
    receiver = run.subscriptions[event.subscription].receiver
    for place in run.requests_of(event):
        change = run.changes[event.position - 1]
        secret = SECRETS[receiver % len(RECEIVERS) + 1]
        run.log[place] = request_of(event.event_id, event.subscription, change, secret, 200, run.log[place].at)


def _ledgered_in_the_wrong_order(run: Run) -> None:
    item = run.dice.choice([item for item, last in run.committed[1].items() if last > 1])
    one, other = [place for place, change in enumerate(run.changes) if change.object_id == item][:2]
    run.changes[one], run.changes[other] = run.changes[other], run.changes[one]


FAULTS: list[tuple[Callable[[Run], None], str]] = [
    (_settled_but_never_sent, "undelivered"),
    (_settled_but_never_sent, "lost"),
    (_settled_though_refused, "undelivered"),
    (_sent_without_an_event, "unknown"),
    (_sent_with_anothers_id, "unknown"),
    (_sent_without_an_attempt, "unrecorded"),
    (_sent_without_an_attempt, "disagreeing"),
    (_no_outcome, "open"),
    (_no_outcome, "disagreeing"),
    (_a_success_that_is_recorded_as_none, "disagreeing"),
    (_two_successes, "disagreeing"),
    (_more_attempts_than_requests, "disagreeing"),
    (_attempts_counted_wrong, "disagreeing"),
    (_attempts_without_an_event, "disagreeing"),
    (_other_bytes_again, "altered"),
    (_a_change_that_never_arrives, "lost"),
    (_a_change_that_never_arrives, "misledgered"),
    (_a_change_that_was_rolled_back, "unexpected"),
    (_a_change_that_was_rolled_back, "misledgered"),
    (_an_event_twice, "unexpected"),
    (_an_event_twice, "miscounted"),
    (_no_event_for_a_subscription, "lost"),
    (_no_event_for_a_subscription, "miscounted"),
    (_an_objects_events_in_the_wrong_order, "inversions"),
    (_sent_before_the_one_before_was_settled, "overtaking"),
    (_sent_again_after_it_was_settled, "late"),
    (_signed_for_another, "unverified"),
    (_ledgered_in_the_wrong_order, "misledgered"),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_without_a_flaw_has_none(seed: int) -> None:
    verdict = made(seed).judged()
    assert verdict == Verdict(expected=verdict.expected)
    assert verdict.expected > 0
    assert verdict.faults() == {}


@pytest.mark.parametrize(("spoil", "name"), FAULTS, ids=[f"{spoil.__name__[1:]}-{name}" for spoil, name in FAULTS])
def test_a_run_with_one_flaw_is_told_by_its_name(spoil: Callable[[Run], None], name: str) -> None:
    for seed in SEEDS:
        run = made(seed)
        spoil(run)
        verdict = run.judged()
        assert getattr(verdict, name) > 0, (seed, verdict)
        assert name == "unrecorded" or name in verdict.faults()


def test_a_request_whose_outcome_was_lost_is_a_duplicate_and_no_fault() -> None:
    for seed in SEEDS:
        run = made(seed)
        event = run.events[run.pick()]
        place = run.requests_of(event)[0]
        # A process was killed with its request under way; it was answered all the same.
        run.log.insert(place, replace(run.log[place], status=200))
        verdict = run.judged()
        assert verdict.faults() == {}
        assert (verdict.doubled, verdict.unrecorded, verdict.duplicates) == ({event.event_id: 1}, 1, 1)


def test_what_waits_without_an_outcome_is_open_and_not_lost() -> None:
    run = made(1)
    last = run.events[-1]
    run.log = [request for request in run.log if request.json()["event_id"] != last.event_id]
    run.attempts = [attempt for attempt in run.attempts if attempt.event_id != last.event_id]
    run.events[-1] = Event(last.event_id, 0, last.subscription, last.position, 0)
    assert run.judged().faults() == {"open": 1}


def test_receivers_that_are_not_asked_about_are_not_judged() -> None:
    run = made(2)
    run.committed = {1: run.committed[1]}
    others = {number for number, subscription in run.subscriptions.items() if subscription.receiver != 1}
    run.log = [request for request in run.log if request.json()["subscription_id"] not in others]
    assert run.judged().faults() == {}


def test_a_broken_link_is_told() -> None:
    run = made(3)
    tables = Tables(run.subscriptions, run.changes, run.events, run.attempts, broken_links=1)
    assert judge(run.committed, tables, SECRETS, run.log).faults() == {"misledgered": 1}


def test_an_id_that_no_change_knows_and_one_that_is_missing_are_unaccounted_for() -> None:
    run = made(4)
    assert unaccounted(run.changes, run.events) == 0
    assert unaccounted(run.changes, run.events[1:]) == 1
    assert unaccounted(run.changes, [*run.events, Event(999, 0, 10, 1, 0)]) == 1


def test_a_pause_lasts_until_a_change_arrives_that_was_made_after_it_began() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    before = Change(1, 1, "7", CREATE, 1, 1, 1)
    log = []
    for at, number, occurred in ((-1, 10, -1), (0.5, 10, -1), (4, 10, 3), (90, 10, 80), (1, 20, -1)):
        request = request_of(1, number, before, SECRETS[1], 200, since + at)
        told = datetime.fromtimestamp(since + occurred, UTC).isoformat()
        log.append(replace(request, body=json.dumps(request.json() | {"occurred_at": told}).encode()))
    assert pauses_s(log, {10: 1, 20: 2}, [1, 2], since) == {1: 3.5, 2: float("inf")}


def test_a_percentile_is_a_value_that_was_there() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(map(float, range(100)), 0.99) == 99.0
