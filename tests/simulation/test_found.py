"""What seeds found, told as stories, so that they stay when the simulation draws other worlds from the same seeds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from clarion.core.clock import Now
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event
from clarion.delivery.step import (
    Configured,
    Finished,
    Input,
    LaneLoaded,
    Loaded,
    LoadLane,
    LoadReceiver,
    ReceiverLoaded,
    ReceiverSettings,
    Send,
    Settle,
    Settled,
    Ticked,
)
from clarion.ledger.change import Change
from simulation.model_queue import ModelQueue, Row, Tables
from simulation.network import Answer, failing, healthy
from simulation.trace import EPOCH
from simulation.world import FIRST_LANE

WINDOW = 16
SETTINGS = ReceiverSettings(1, concurrency=64, retry_schedule_s=(0, 60, 60))


class Dice(random.Random):
    def token(self, bytes_count: int) -> bytes:
        return self.randbytes(bytes_count)


class Bench:
    """An engine and its tables, without a world: the test says what happens when."""

    def __init__(self) -> None:
        self.now = Now(0, EPOCH)
        self.tables = Tables(lambda: self.now.wall)
        self.queue = ModelQueue(self.tables, self.tables.join(), 0)
        self.engine = Engine(Dice(1), window=WINDOW)
        self.in_flight: list[Event] = []
        self.sent: Counter[int] = Counter()
        self.settling: list[Settle] = []
        self.wanted: list[LoadLane | LoadReceiver] = []
        self.tail = 0
        self.configure(SETTINGS)

    def tell(self, happened: Input) -> None:
        for effect in self.engine.handle(happened, self.now):
            match effect:
                case Send(event, _):
                    assert event.queue_id in self.tables.queue, "sent after its end was durable"
                    self.in_flight.append(event)
                    self.sent[event.queue_id] += 1
                case Settle():
                    self.settling.append(effect)
                case LoadLane() | LoadReceiver():
                    self.wanted.append(effect)

    def configure(self, settings: ReceiverSettings) -> None:
        self.tell(Configured({1: settings}, {1: None}))

    def add(self, rows_count: int) -> None:
        for _ in range(rows_count):
            number = self.tables.last_queue_id + 1
            change = Change(number, number, "RUNS", "u", "1", EPOCH, EPOCH, None, None, None, "{}", "{}")
            self.tables.add(Row(number, number, 0, 1, 1, FIRST_LANE, change))

    def load(self) -> None:
        events = self.queue.load_tail(range(64), self.tail, self.engine.overflowing(), 1000).events
        self.tail = self.tables.last_queue_id
        self.tell(Loaded(events))

    def load_wanted(self) -> None:
        wanted = self.wanted.pop(0)
        if isinstance(wanted, LoadLane):
            events = self.queue.load_lane(wanted).events
            self.tell(LaneLoaded(wanted.receiver_id, wanted.lane, events, len(events) < wanted.limit))
        else:
            events = self.queue.load_receiver(wanted).events
            self.tell(ReceiverLoaded(wanted.receiver_id, events, len(events) < wanted.limit))

    def answer(self, event: Event, answer: Answer) -> None:
        self.in_flight.remove(event)
        self.tell(Finished(event, answer.attempt(self.now.wall)))

    def settle(self) -> None:
        settled, self.settling = self.settling, []
        self.queue.settle(settled)
        self.tell(Settled(settled))

    def wait(self, seconds: int) -> None:
        self.now = Now(self.now.monotonic_ns + seconds * 1_000_000_000, self.now.wall + timedelta(seconds=seconds))
        self.tell(Ticked())


UNORDERED = replace(SETTINGS, ordered_per_object=False)


def with_a_rest(rows_count: int) -> Bench:
    """The head of a lane fails, and its followers are left in the table."""
    bench = Bench()
    bench.add(rows_count)
    bench.load()
    bench.answer(bench.in_flight[0], failing(bench_dice(), 1))
    bench.settle()
    assert bench.engine.loaded_count == 1, "the followers are in the table"
    return bench


def bench_dice() -> random.Random:
    return random.Random(1)


def deliver_all(bench: Bench) -> None:
    for _ in range(10_000):
        for event in list(bench.in_flight):
            bench.answer(event, healthy(bench_dice(), 1))
        bench.settle()
        if bench.wanted:
            bench.load_wanted()
        elif not bench.in_flight and bench.tables.queue:
            bench.wait(60)
        elif not bench.tables.queue:
            return
    raise AssertionError(f"in limbo: {list(bench.tables.queue)}")


def test_what_a_failing_head_left_in_the_table_goes_out_as_order_is_switched_off() -> None:
    bench = with_a_rest(4)
    bench.configure(UNORDERED)
    bench.add(3)
    bench.load()
    bench.load_wanted()
    assert sorted(event.queue_id for event in bench.in_flight) == [2, 3, 4, 5, 6, 7]
    deliver_all(bench)
    assert bench.sent == Counter({1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1})


def test_a_rest_that_is_being_read_as_order_is_switched_off_is_not_read_twice_or_forgotten() -> None:
    """Its head is under way again, fails, and what was read is no longer asked for."""
    bench = with_a_rest(4)
    bench.wait(100)
    bench.answer(bench.in_flight[0], healthy(bench_dice(), 1))
    bench.settle()
    wanted = bench.wanted.pop(0)
    assert isinstance(wanted, LoadLane)
    read = bench.queue.load_lane(wanted).events
    bench.configure(UNORDERED)
    bench.add(1)
    bench.load()
    bench.tell(LaneLoaded(1, FIRST_LANE, read, exhausted=True))
    deliver_all(bench)
    assert bench.sent == Counter({1: 2, 2: 1, 3: 1, 4: 1, 5: 1})


def test_a_row_read_before_it_was_settled_is_not_taken_in_after() -> None:
    bench = Bench()
    bench.add(3)
    bench.load()
    assert [event.queue_id for event in bench.in_flight] == [1]
    bench.configure(UNORDERED)
    wanted = bench.wanted.pop(0)
    assert isinstance(wanted, LoadReceiver)
    read = bench.queue.load_receiver(wanted).events
    assert [event.queue_id for event in read] == [1, 2, 3]
    bench.answer(bench.in_flight[0], healthy(bench_dice(), 1))
    bench.settle()
    bench.tell(ReceiverLoaded(1, read, exhausted=True))
    deliver_all(bench)
    assert bench.sent == Counter({1: 1, 2: 1, 3: 1})


def test_a_long_rest_is_read_within_the_window_after_order_was_switched_off() -> None:
    bench = with_a_rest(200)
    bench.configure(UNORDERED)
    for _ in range(100):
        if bench.wanted:
            bench.load_wanted()
    assert bench.engine.loaded_count <= WINDOW + 2
    deliver_all(bench)
    assert sum(bench.sent.values()) == 201


def test_one_under_way_as_the_others_are_read_anew_does_not_hide_an_older_one_of_its_object() -> None:
    """The older had blocked its lane for too long and was overtaken; then its receiver's breaker opened."""
    bench = Bench()
    bench.configure(replace(SETTINGS, lane_block_max_s=10))
    bench.add(1)
    bench.load()
    bench.answer(bench.in_flight[0], failing(bench_dice(), 1))
    bench.settle()
    bench.add(3)
    bench.load()
    bench.wait(20)
    while bench.wanted:
        bench.load_wanted()
    (second,) = bench.in_flight
    assert second.queue_id == 2
    bench.configure(UNORDERED)
    bench.configure(SETTINGS)
    while bench.wanted:
        bench.load_wanted()
    bench.answer(second, failing(bench_dice(), 1))
    bench.settle()
    deliver_all(bench)
    assert bench.sent == Counter({1: 2, 2: 2, 3: 1, 4: 1})


def test_order_that_is_switched_off_and_on_again_loses_nothing() -> None:
    bench = with_a_rest(200)
    bench.configure(UNORDERED)
    bench.load_wanted()
    bench.configure(SETTINGS)
    deliver_all(bench)
    assert sum(bench.sent.values()) == 201
