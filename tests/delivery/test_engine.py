"""The scheduler under a seeded world: virtual time, a model of the queue, receivers that do as they please."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from clarion.core.clock import Now
from clarion.core.ids import NO_SUBSCRIPTION, TESTS
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event, Reason, State, Status
from clarion.delivery.step import (
    Command,
    Commanded,
    CommandKind,
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
    ReceiverSettings,
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
from clarion.ledger.change import Change
from clarion.sender.outcome import Attempt, Outcome

EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
WINDOW = 8


class Dice:
    """A seeded Random."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        return self.generator.uniform(low, high)

    def token(self, bytes_count: int) -> bytes:
        return self.generator.randbytes(bytes_count)


def attempt(
    outcome: Outcome, status: int | None = None, retry_after_s: int | None = None, *, ours: bool = False
) -> Attempt:
    return Attempt(outcome, EPOCH, 1, status, (), b"", None, None, None, retry_after_s, ours)


OK = attempt(Outcome.SUCCEEDED, 200)
FAILED = attempt(Outcome.UNEXPECTED_STATUS, 500)


@dataclass
class World:
    """What surrounds the engine: the queue table, the wire, the clock. Its checks run after every step."""

    engine: Engine
    receivers: dict[int, ReceiverSettings]
    subscriptions: dict[int, int | None]
    now_ns: int = 0
    table: list[Event] = field(default_factory=list)
    in_flight: list[Event] = field(default_factory=list)
    settling: list[Settle] = field(default_factory=list)
    wanted: list[LoadReceiver | LoadLane] = field(default_factory=list)
    disabled: list[Disable] = field(default_factory=list)
    remembered: list[Remember] = field(default_factory=list)
    obeyed: list[int] = field(default_factory=list)
    sent: list[Event] = field(default_factory=list)
    ended: dict[int, Settle] = field(default_factory=dict)
    tail: int = 0
    disordered: bool = False

    def now(self) -> Now:
        return Now(self.now_ns, EPOCH + timedelta(microseconds=self.now_ns / 1000))

    def tell(self, happened: Input) -> list[Effect]:
        effects = self.engine.handle(happened, self.now())
        for effect in effects:
            match effect:
                case Send(event, number):
                    assert number == event.attempts_count + 1
                    self._check_may_send(event)
                    self.in_flight.append(event)
                    self.sent.append(event)
                case Settle():
                    self.settling.append(effect)
                case LoadReceiver() | LoadLane():
                    self.wanted.append(effect)
                case Disable():
                    self.disabled.append(effect)
                case Remember():
                    self.remembered.append(effect)
                case Obeyed(command_ids):
                    self.obeyed.extend(command_ids)
        for receiver_id, settings in self.receivers.items():
            under_way = sum(event.receiver_id == receiver_id for event in self.in_flight)
            assert under_way <= settings.concurrency
        return effects

    def _check_may_send(self, event: Event) -> None:
        settings = self.receivers[event.receiver_id]
        assert settings.active
        assert event.due_at is None or event.due_at <= self.now().wall
        if settings.ordered_per_object and not self.disordered:
            before = [e for e in self.table if e.queue_id < event.queue_id and e.lane == event.lane]
            before = [e for e in before if e.receiver_id == event.receiver_id and not e.overtaken]
            assert not before or event.overtaken, "sent before its predecessor's end was stored"

    def configure(self) -> None:
        self.tell(Configured(self.receivers, self.subscriptions))

    def add(self, receiver_id: int = 1, lane: int = 1, subscription_id: int = 1, resource: str = "RUNS") -> Event:
        queue_id = self.tail_of_table() + 1
        change = Change(
            queue_id, queue_id, resource, "u", str(lane), self.now().wall, self.now().wall, None, None, None, "{}", "{}"
        )
        event = Event(queue_id, queue_id, 0, 1, receiver_id, subscription_id, queue_id, lane, change)
        self.table.append(event)
        self._last = queue_id
        return event

    _last: int = 0

    def tail_of_table(self) -> int:
        return self._last

    def load(self) -> None:
        skipped = set(self.engine.overflowing())
        rows = [e for e in self.table if e.queue_id > self.tail and e.receiver_id not in skipped]
        if rows:
            self.tail = rows[-1].queue_id
            self.tell(Loaded(rows))
        while self.wanted:
            want = self.wanted.pop()
            if isinstance(want, LoadLane):
                self.tell(self.read_lane(want))
                continue
            rows = [e for e in self.table if e.receiver_id == want.receiver_id and e.queue_id > want.after_queue_id]
            for event in rows:  # the engine has forgotten it, and the table knows no states
                event.state = State.WAITING if event.state is State.READY else event.state
            self.tell(ReceiverLoaded(want.receiver_id, rows[: want.limit], len(rows) < want.limit))

    def read_lane(self, want: LoadLane) -> LaneLoaded:
        rows = [e for e in self.table if e.receiver_id == want.receiver_id and e.lane == want.lane]
        rows = [e for e in rows if want.after_queue_id < e.queue_id <= want.upto_queue_id]
        return LaneLoaded(want.receiver_id, want.lane, rows[: want.limit], len(rows) < want.limit)

    def settle(self) -> None:
        settled, self.settling = self.settling, []
        for settlement in settled:
            if settlement.ending is not None:
                assert settlement.event.queue_id not in self.ended, "ended twice"
                self.ended[settlement.event.queue_id] = settlement
                self.table = [e for e in self.table if e.queue_id != settlement.event.queue_id]
        self.tell(Settled(settled))

    def answer(self, event: Event, result: Attempt = OK) -> None:
        self.in_flight.remove(event)
        self.tell(Finished(event, result))

    def cancel(self, event: Event, command_id: int = 1) -> None:
        self.order(CommandKind.CANCEL, event, command_id)

    def order(self, kind: CommandKind, event: Event, command_id: int = 1) -> None:
        row = structs.replace(event, state=State.WAITING) if event in self.table else None
        self.tell(Commanded([Command(command_id, kind, row)]))

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        self.tell(Ticked())

    def status(self, event: Event) -> tuple[Status, Reason]:
        ending = self.ended[event.queue_id].ending
        assert ending is not None
        return ending.status, ending.reason


def world(*, seed: int = 1, window: int = WINDOW, **settings: Any) -> World:
    receiver = ReceiverSettings(1, **settings)
    made = World(Engine(Dice(seed), window=window, in_flight_max=32), {1: receiver}, {1: None})
    made.configure()
    return made


def test_the_next_event_of_an_object_waits_until_the_one_before_is_stored() -> None:
    w = world()
    first, second = w.add(), w.add()
    w.load()
    assert w.in_flight == [first]
    w.answer(first)
    assert w.in_flight == [], "answered, but not yet stored"
    w.settle()
    assert w.in_flight == [second]


def test_a_failing_head_blocks_only_its_own_lane() -> None:
    w = world(retry_schedule_s=(0, 60))
    bad, behind, other = w.add(lane=1), w.add(lane=1), w.add(lane=2)
    w.load()
    w.answer(bad, FAILED)
    w.settle()
    w.answer(other)
    w.settle()
    assert other.queue_id in w.ended
    assert w.in_flight == []
    w.wait(91)
    w.answer(bad)
    w.settle()
    w.load()
    assert w.in_flight == [behind]


def test_attempts_follow_the_schedule_within_its_jitter_and_then_the_event_fails() -> None:
    schedule = (0, 5, 300, 1800)
    w = world(retry_schedule_s=schedule)
    event = w.add()
    w.load()
    for step in schedule[1:]:
        failed_at = w.now_ns
        w.answer(event, FAILED)
        w.settle()
        due = w.engine.wake_ns()
        assert due is not None
        assert 0.5 * step - 0.01 <= (due - failed_at) / 1e9 <= 1.5 * step + 0.01
        w.now_ns = due
        w.tell(Ticked())
    w.answer(event, FAILED)
    w.settle()
    assert w.status(event) == (Status.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    assert event.attempts_count == len(schedule)


def test_an_exhausted_head_lets_its_lane_go_on() -> None:
    w = world(retry_schedule_s=(0,))
    first, second = w.add(), w.add()
    w.load()
    w.answer(first, FAILED)
    w.settle()
    assert w.in_flight == [second]


def test_retry_after_is_obeyed_when_it_is_longer_than_the_schedule() -> None:
    w = world(retry_schedule_s=(0, 5))
    event = w.add()
    w.load()
    w.answer(event, attempt(Outcome.UNEXPECTED_STATUS, 429, 3600))
    w.settle()
    w.wait(3599)
    assert w.in_flight == []
    w.wait(2)
    assert w.in_flight == [event]


def test_a_fault_of_our_own_spends_no_attempt_of_the_schedule() -> None:
    w = world(retry_schedule_s=(0, 0))
    event = w.add()
    w.load()
    for _ in range(5):
        w.answer(event, attempt(Outcome.DNS_FAILED, ours=True))
        w.settle()
        w.wait(500)
    w.answer(event, FAILED)
    w.settle()
    w.wait(1)
    w.answer(event, OK)
    w.settle()
    assert w.status(event) == (Status.DELIVERED, Reason.SUCCEEDED)
    assert (event.attempts_count, event.spent_count) == (7, 1)


def test_410_takes_the_receiver_out_of_service() -> None:
    w = world(retry_schedule_s=(0, 5))
    w.add()
    w.load()
    w.answer(w.in_flight[0], attempt(Outcome.UNEXPECTED_STATUS, 410))
    assert w.disabled == [Disable(1, "GONE")]


def test_an_inactive_receiver_gets_nothing_and_then_all_in_order() -> None:
    w = world(active=False)
    events = [w.add(lane=n % 2) for n in range(6)]
    w.load()
    assert w.in_flight == []
    w.receivers[1] = ReceiverSettings(1, active=True)
    w.configure()
    while w.in_flight:
        w.answer(w.in_flight[0])
        w.settle()
        w.load()
    assert sorted(w.ended) == [e.queue_id for e in events]


@pytest.mark.parametrize("what", ["receiver", "subscription"])
def test_open_events_of_a_deleted_one_are_cancelled_with_the_reason(what: str) -> None:
    w = world()
    under_way, behind = w.add(), w.add()
    w.load()
    if what == "receiver":
        del w.receivers[1]
    else:
        del w.subscriptions[1]
    w.configure()
    later = w.add()
    w.load()
    w.answer(under_way, FAILED)
    for _ in range(3):
        w.settle()
        w.load()
    expected = Reason.RECEIVER_DELETED if what == "receiver" else Reason.SUBSCRIPTION_DELETED
    for event in (under_way, behind, later):
        assert w.status(event) == (Status.CANCELLED, expected)


def test_open_events_of_a_resource_are_cancelled_as_their_receiver_loses_the_right_to_it_and_others_go_on() -> None:
    w = world(retry_schedule_s=(0, 60))
    under_way, failing, behind, other = w.add(lane=1), w.add(lane=2), w.add(lane=2), w.add(lane=3, resource="ISSUES")
    w.load()
    w.answer(failing, FAILED)
    w.settle()
    w.receivers[1] = replace(w.receivers[1], readable_resources=frozenset({"ISSUES"}))
    w.configure()
    sent_before = len(w.sent)
    w.settle()
    w.load()
    w.answer(under_way, OK)
    w.answer(other, OK)
    w.settle()
    w.load()
    w.settle()
    assert len(w.sent) == sent_before
    revoked = (Status.CANCELLED, Reason.RIGHT_REVOKED)
    assert [w.status(event) for event in (failing, behind)] == [revoked, revoked]
    assert [w.status(event) for event in (under_way, other)] == [(Status.DELIVERED, Reason.SUCCEEDED)] * 2


def test_a_request_under_way_as_the_right_is_taken_ends_its_event_if_it_fails() -> None:
    w = world()
    under_way = w.add()
    w.load()
    w.receivers[1] = replace(w.receivers[1], readable_resources=frozenset())
    w.configure()
    w.answer(under_way, FAILED)
    w.settle()
    assert w.status(under_way) == (Status.CANCELLED, Reason.RIGHT_REVOKED)


def test_a_test_is_sent_whatever_its_receiver_has_a_right_to() -> None:
    w = world(readable_resources=frozenset[str]())
    w.subscriptions[NO_SUBSCRIPTION] = None
    w.configure()
    test = w.add(subscription_id=NO_SUBSCRIPTION, resource=TESTS)
    w.load()
    w.answer(test, OK)
    w.settle()
    assert w.status(test) == (Status.DELIVERED, Reason.SUCCEEDED)


def test_events_expire_even_while_their_receiver_is_held() -> None:
    w = world(active=False)
    w.subscriptions[1] = 60
    w.configure()
    head, behind = w.add(), w.add()
    w.load()
    w.wait(59)
    assert w.settling == []
    w.wait(2)
    w.settle()
    w.settle()
    for event in (head, behind):
        assert w.status(event) == (Status.EXPIRED, Reason.EXPIRED)


def test_events_are_held_for_thirty_days_and_no_longer() -> None:
    w = world(active=False, inactive_since=EPOCH - timedelta(days=10), retry_schedule_s=(0, 36_000))
    early, behind = w.add(), w.add()
    w.load()
    assert w.engine.wake_ns() is not None
    w.wait(20 * 86_400)
    late = w.add(lane=2)
    w.load()
    w.wait(10 * 86_400 - 1)
    assert w.settling == []
    w.wait(2)
    w.settle()
    w.settle()
    assert w.status(early) == w.status(behind) == (Status.EXPIRED, Reason.HELD_TOO_LONG)
    assert late.queue_id not in w.ended, "it is held for 30 days of its own"
    w.receivers[1] = replace(w.receivers[1], active=True, inactive_since=None)
    w.configure()
    w.wait(40 * 86_400)
    assert w.in_flight == [late]


def test_a_hold_begins_for_a_head_that_waits_for_its_next_attempt() -> None:
    w = world(retry_schedule_s=(0, 36_000))
    head = w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    w.receivers[1] = replace(w.receivers[1], active=False, inactive_since=w.now().wall)
    w.configure()
    w.wait(30 * 86_400 + 1)
    w.settle()
    assert w.status(head) == (Status.EXPIRED, Reason.HELD_TOO_LONG)


def test_a_body_that_changed_is_never_sent_again() -> None:
    w = world()
    event = w.add()
    w.load()
    w.in_flight.remove(event)
    w.tell(Unsendable(event, Reason.BODY_CHANGED))
    w.settle()
    assert w.status(event) == (Status.FAILED, Reason.BODY_CHANGED)


def test_after_the_longest_block_the_lane_overtakes_its_head() -> None:
    w = world(retry_schedule_s=(0, 1000, 1000), lane_block_max_s=100)
    head, behind = w.add(), w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    w.wait(99)
    assert w.in_flight == []
    w.wait(2)
    w.load()
    assert w.in_flight == [behind]
    assert head.overtaken
    w.answer(behind)
    w.settle()
    w.wait(1500)
    assert w.in_flight == [head]


def test_a_shorter_block_counts_for_a_head_that_waits_already() -> None:
    w = world(retry_schedule_s=(0, 36_000))
    head, behind = w.add(), w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    w.load()
    w.wait(100)
    assert w.in_flight == []
    w.disordered = True
    w.receivers[1] = replace(w.receivers[1], lane_block_max_s=60)
    w.configure()
    w.load()
    assert w.in_flight == [behind]
    assert head.overtaken


def test_an_expiry_counts_for_a_head_that_waits_already() -> None:
    w = world(retry_schedule_s=(0, 36_000))
    head = w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    w.wait(100)
    w.subscriptions[1] = 200
    w.configure()
    assert w.settling == []
    w.wait(101)
    w.settle()
    assert w.status(head) == (Status.EXPIRED, Reason.EXPIRED)


def test_faults_of_our_own_do_not_end_a_block() -> None:
    w = world(retry_schedule_s=(0, 36_000), lane_block_max_s=60)
    head, behind = w.add(), w.add()
    w.load()
    for _ in range(4):
        w.answer(head, attempt(Outcome.DNS_FAILED, ours=True))
        w.settle()
        w.wait(500)
        w.load()
    assert w.in_flight == [head]
    w.answer(head, FAILED)
    w.settle()
    w.load()
    w.wait(59)
    w.load()
    assert w.in_flight == []
    w.disordered = True
    w.wait(2)
    w.load()
    assert w.in_flight == [behind]


def test_nothing_is_sent_while_too_many_outcomes_are_not_stored() -> None:
    made = World(
        Engine(Dice(1), window=100, in_flight_max=32, unstored_max=10),
        {1: ReceiverSettings(1, concurrency=4)},
        {1: None},
    )
    made.configure()
    for lane in range(40):
        made.add(lane=lane)
    made.load()
    while made.in_flight:
        made.answer(made.in_flight[0])
    assert 10 <= len(made.settling) <= 13
    made.settle()
    assert len(made.in_flight) == 4


def test_shards_are_drained_one_by_one() -> None:
    receivers = {n: ReceiverSettings(n) for n in (1, 2)}
    w = World(Engine(Dice(1), window=8, in_flight_max=8), receivers, {1: None})
    w.configure()
    hanging, quick = w.add(1), w.add(2)
    w.load()
    w.tell(ShardsDraining({1, 2, 3}))
    assert w.engine.drained({1, 2, 3}) == {3}
    w.answer(quick)
    w.settle()
    assert w.engine.drained({1, 2, 3}) == {2, 3}
    w.tell(ShardsReleased({2, 3}))
    assert w.in_flight == [hanging]


def test_the_rate_limit_spaces_requests() -> None:
    w = world(rate_limit_per_second=10, concurrency=64, window=100)
    for lane in range(50):
        w.add(lane=lane)
    w.load()
    for _ in range(300):
        for event in list(w.in_flight):
            w.answer(event)
        w.settle()
        w.wait(0.01)
    assert 29 <= len(w.sent) <= 32


def test_without_order_events_of_one_object_go_out_together() -> None:
    w = world(ordered_per_object=False)
    events = [w.add() for _ in range(3)]
    w.load()
    assert w.in_flight == events


def test_receivers_with_work_take_turns() -> None:
    w = World(
        Engine(Dice(1), window=100, in_flight_max=4), {n: ReceiverSettings(n, concurrency=4) for n in (1, 2)}, {1: None}
    )
    w.configure()
    for receiver_id in (1, 2):
        w.add(receiver_id, 100)
    w.load()
    for _ in range(2):  # both have shown that they answer
        w.answer(w.in_flight[0])
    for lane in range(20):
        w.add(1, lane)
    for lane in range(20):
        w.add(2, lane)
    w.load()
    for _ in range(8):
        w.answer(w.in_flight[0])
    assert [e.receiver_id for e in w.sent] == [1, 2] * 7


def test_nothing_is_sent_while_ownership_is_in_doubt() -> None:
    w = world()
    w.tell(SendingAllowed(allowed=False))
    event = w.add()
    w.load()
    assert w.in_flight == []
    w.tell(SendingAllowed(allowed=True))
    assert w.in_flight == [event]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_event_ends_once_and_lanes_keep_their_order(seed: int) -> None:
    dice = random.Random(seed)
    receivers = {
        n: ReceiverSettings(
            n,
            concurrency=dice.randint(1, 3),
            retry_schedule_s=(0, 1, 5, 0)[: dice.randint(1, 4)],
            ordered_per_object=dice.random() < 0.8,
            rate_limit_per_second=dice.choice([None, None, 50]),
        )
        for n in (1, 2, 3)
    }
    w = World(Engine(Dice(seed), window=WINDOW, in_flight_max=6), receivers, {1: None, 2: None})
    w.configure()
    made: list[Event] = []
    for _ in range(400):
        match dice.randrange(8):
            case 0 | 1:
                made += [
                    w.add(dice.randint(1, 3), dice.randint(1, 4), dice.randint(1, 2)) for _ in range(dice.randint(1, 9))
                ]
            case 2:
                w.load()
            case 3 | 4 if w.in_flight:
                event = dice.choice(w.in_flight)
                w.answer(event, OK if dice.random() < 0.7 else FAILED)
            case 5:
                w.settle()
            case 6:
                w.wait(dice.choice([0.001, 0.1, 3]))
            case 7 if dice.random() < 0.1:
                chosen = dice.randint(1, 3)
                w.receivers[chosen] = replace(w.receivers[chosen], active=not w.receivers[chosen].active)
                w.configure()
    w.receivers = {n: replace(settings, active=True) for n, settings in w.receivers.items()}
    w.configure()
    for _ in range(5000):
        if len(w.ended) == len(made):
            break
        w.load()
        for event in list(w.in_flight):
            w.answer(event)
        w.settle()
        w.wait(0.2)
    assert sorted(w.ended) == [e.queue_id for e in made], "an event is in limbo"
    assert w.table == []
    assert w.engine.in_flight == 0
    assert w.engine.loaded_count == 0
    assert all(e.state is State.GONE for e in made)
    orders: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for queue_id, settlement in w.ended.items():
        if receivers[settlement.event.receiver_id].ordered_per_object:
            orders[(settlement.event.receiver_id, settlement.event.lane)].append(queue_id)
    assert all(ids == sorted(ids) for ids in orders.values())


# ---------------------------------------------------------------- cancelled by request

CANCELLED = (Status.CANCELLED, Reason.CANCELLED_BY_REQUEST)


def test_an_event_behind_its_head_is_cancelled_and_the_lane_goes_on_without_it() -> None:
    w = world()
    head, cancelled, last = w.add(), w.add(), w.add()
    w.load()
    w.cancel(cancelled)
    w.settle()
    assert w.status(cancelled) == CANCELLED
    assert w.ended[cancelled.queue_id].command_ids == (1,)
    w.answer(head)
    w.settle()
    w.load()
    assert w.in_flight == [last]


def test_an_event_under_way_is_cancelled_if_it_fails_and_delivered_if_it_succeeds() -> None:
    w = world(retry_schedule_s=(0, 60))
    failing, succeeding = w.add(lane=1), w.add(lane=2)
    w.load()
    w.cancel(failing, 1)
    w.cancel(succeeding, 2)
    assert w.settling == []
    w.answer(failing, FAILED)
    w.answer(succeeding)
    w.settle()
    assert w.status(failing) == CANCELLED
    assert w.ended[failing.queue_id].attempt == FAILED
    assert w.status(succeeding) == (Status.DELIVERED, Reason.SUCCEEDED)
    assert [w.ended[e.queue_id].command_ids for e in (failing, succeeding)] == [(1,), (2,)]


def test_an_event_whose_failure_is_being_stored_is_cancelled_after_it() -> None:
    w = world(retry_schedule_s=(0, 60))
    event = w.add()
    w.load()
    w.answer(event, FAILED)
    w.cancel(event)
    assert [s.command_ids for s in w.settling] == [()], "the failure does not carry the order out"
    w.settle()
    w.settle()
    assert w.status(event) == CANCELLED


def test_an_order_that_comes_while_the_end_is_being_stored_has_nothing_left_to_do() -> None:
    w = world()
    event = w.add()
    w.load()
    w.answer(event)
    w.cancel(event)
    w.settle()
    assert w.status(event) == (Status.DELIVERED, Reason.SUCCEEDED)
    assert w.obeyed == [1]


def test_an_event_that_is_not_loaded_is_cancelled_and_never_sent() -> None:
    w = world(window=2, concurrency=1)
    events = [w.add(lane=lane) for lane in range(6)]
    w.load()
    assert w.engine.loaded_count == 2
    stale = list(w.table)
    w.cancel(events[4], 7)
    w.settle()
    assert w.status(events[4]) == CANCELLED
    # The rows were read before the end was stored, and come in after it.
    for _ in range(6):
        while w.wanted:
            want = w.wanted.pop()
            rows = [e for e in stale if e.queue_id > want.after_queue_id]
            w.tell(ReceiverLoaded(want.receiver_id, rows[: want.limit], len(rows) < want.limit))
        for event in list(w.in_flight):
            w.answer(event)
        w.settle()
    assert w.sent == [e for e in events if e is not events[4]]


def test_events_of_an_inactive_receiver_are_cancelled() -> None:
    w = world(active=False)
    event = w.add()
    w.load()
    w.cancel(event)
    w.settle()
    assert w.status(event) == CANCELLED


def test_a_repeated_order_is_done_without_a_second_end() -> None:
    w = world()
    event = w.add()
    w.load()
    row = structs.replace(event, state=State.WAITING)
    w.answer(event)
    w.settle()
    w.tell(Commanded([Command(1, CommandKind.CANCEL, row), Command(2, CommandKind.CANCEL, None)]))
    assert w.settling == []
    assert w.obeyed == [1, 2]


def test_a_waiting_head_is_tried_at_once_by_request_and_the_order_ends_with_its_outcome() -> None:
    w = world(retry_schedule_s=(0, 3600, 3600))
    head, behind = w.add(), w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    assert w.in_flight == []
    w.order(CommandKind.RETRY_NOW, head)
    assert w.in_flight == [head]
    w.answer(head, FAILED)
    assert [s.command_ids for s in w.settling] == [(1,)]
    w.settle()
    assert w.in_flight == [], "one attempt for one order"
    w.order(CommandKind.RETRY_NOW, head, 2)
    w.answer(head)
    w.settle()
    w.load()
    assert w.in_flight == [behind]


def test_what_a_failing_head_left_in_the_table_is_cancelled_there() -> None:
    w = world(retry_schedule_s=(0, 60))
    head, cancelled, last = w.add(), w.add(), w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    assert w.engine.loaded_count == 1, "what follows waits in the table"
    w.cancel(cancelled)
    w.settle()
    assert w.status(cancelled) == CANCELLED
    w.cancel(cancelled, 2)
    assert w.obeyed == [2]
    w.wait(91)
    w.answer(head)
    w.settle()
    w.load()
    assert w.in_flight == [last]


def test_a_row_read_from_the_table_after_its_cancellation_is_not_sent() -> None:
    w = world(retry_schedule_s=(0, 60))
    head, cancelled, last = w.add(), w.add(), w.add()
    w.load()
    w.answer(head, FAILED)
    w.settle()
    w.wait(91)
    w.answer(head)
    w.settle()
    w.cancel(cancelled)
    # Its end is not stored yet, so the lane's rest still holds it.
    w.load()
    assert w.in_flight == []
    w.settle()
    w.load()
    assert w.in_flight == [last]
    assert w.status(cancelled) == CANCELLED


def test_an_order_to_try_at_once_counts_though_the_failure_is_still_being_stored() -> None:
    w = world(retry_schedule_s=(0, 3600))
    event = w.add()
    w.load()
    w.answer(event, FAILED)
    w.order(CommandKind.RETRY_NOW, event)
    w.settle()
    assert w.in_flight == [event]
    w.answer(event)
    w.settle()
    assert w.ended[event.queue_id].command_ids == (1,)


def test_an_event_that_is_not_loaded_is_tried_at_once_when_it_is() -> None:
    w = world(window=2, concurrency=2)
    first, second, third = (w.add(lane=lane) for lane in range(3))
    third.due_at = EPOCH + timedelta(hours=1)
    w.load()
    w.order(CommandKind.RETRY_NOW, third, 9)
    assert w.obeyed == []
    for event in (first, second):
        w.answer(event)
    w.settle()
    w.load()
    assert w.in_flight == [third]
    w.answer(third)
    w.settle()
    assert w.ended[third.queue_id].command_ids == (9,)


def test_a_released_shard_is_forgotten_with_its_timers_and_begins_anew_when_it_comes_back() -> None:
    engine = Engine(Dice(1))
    now = Now(0, EPOCH)
    change = Change(1, 1, "ITEMS", "CREATE", "1", EPOCH, EPOCH, None, None, None, None, "{}")

    def fresh() -> Event:
        return Event(1, 1, 0, 1, 5, 1, 1, 1, change, 0, 0, None, None, None)

    engine.handle(Configured({5: ReceiverSettings(5, retry_schedule_s=(0, 5))}, {1: None}), now)
    (send,) = engine.handle(Loaded([fresh()]), now)
    assert isinstance(send, Send)
    engine.handle(ShardsDraining({5}), now)
    assert not engine.drained({5})
    (settle,) = [effect for effect in engine.handle(Finished(send.event, FAILED), now) if isinstance(effect, Settle)]
    assert isinstance(settle, Settle)
    assert not engine.drained({5})
    engine.handle(Settled([settle]), now)
    assert engine.drained({5})
    later = Now(10**12, EPOCH + timedelta(seconds=1000))
    assert engine.handle(Ticked(), later) == [], "a shard that leaves sends nothing more"
    engine.handle(ShardsReleased({5}), later)
    assert (engine.loaded_count, engine.wake_ns()) == (0, None)
    assert engine.handle(Loaded([fresh()]), later) == [], "rows of another's shard are left alone"
    engine.handle(ShardsClaimed({5}), later)
    assert [type(effect) for effect in engine.handle(Loaded([fresh()]), later)] == [Send]
