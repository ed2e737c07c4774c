"""Receivers that hang, however many and however much they may have at once, leave room to the others."""

from __future__ import annotations

import pytest
from msgspec import structs

from clarion.delivery.engine import Engine
from clarion.delivery.event import Event
from clarion.delivery.room import Pace, Room
from clarion.delivery.step import Finished, ReceiverSettings, ShardsDraining, ShardsReleased
from clarion.sender.outcome import Outcome
from delivery.test_engine import OK, Dice, World, attempt

SECOND_NS = 1_000_000_000
HANGING = range(2, 202)
TIMED_OUT = structs.replace(attempt(Outcome.TIMED_OUT), duration_ms=15_000)
IN_FLIGHT_MAX = 512


def hanging_world(concurrency: int = 4) -> World:
    """200 receivers that never answer, each with 20 objects, and receiver 1, which has nothing yet."""
    receivers = {n: ReceiverSettings(n, concurrency=concurrency, retry_schedule_s=(0, 5)) for n in [1, *HANGING]}
    w = World(Engine(Dice(1), window=100, in_flight_max=IN_FLIGHT_MAX), receivers, {1: None})
    w.configure()
    for lane in range(20):
        for receiver_id in HANGING:
            w.add(receiver_id, lane)
    w.load()
    return w


def deliver(w: World, events: list[Event], *, at_once: int) -> None:
    """Receiver 1 gets all of them, with as many under way as its concurrency says."""
    most = 0
    while open_ := [event for event in events if event.queue_id not in w.ended]:
        under_way = [event for event in w.in_flight if event.receiver_id == 1]
        assert under_way, f"{len(open_)} events of the healthy receiver are stuck"
        most = max(most, len(under_way))
        w.answer(under_way[0])
        w.settle()
    assert most == at_once


@pytest.mark.parametrize("concurrency", [4, 64])
@pytest.mark.parametrize("hung_for_s", [0, 0.5, 2])
def test_two_hundred_hanging_receivers_leave_a_healthy_one_flowing(concurrency: int, hung_for_s: float) -> None:
    w = hanging_world(concurrency)
    w.wait(hung_for_s)
    assert w.engine.in_flight == IN_FLIGHT_MAX // 2
    events = [w.add(1, lane) for lane in range(100)]
    w.load()
    deliver(w, events, at_once=concurrency)


@pytest.mark.parametrize("never_answered", [False, True])
def test_many_that_hang_at_the_same_moment_leave_a_healthy_one_flowing(never_answered: bool) -> None:
    """Each has answered before, or there are more of them than requests may be under way."""
    hanging = range(2, 2 + (540 if never_answered else 150))
    receivers = {n: ReceiverSettings(n, concurrency=4, retry_schedule_s=(0, 5)) for n in (1, *hanging)}
    w = World(Engine(Dice(1), window=100, in_flight_max=IN_FLIGHT_MAX), receivers, {1: None})
    w.configure()
    if not never_answered:
        for lane in range(4):
            for receiver_id in hanging:
                w.add(receiver_id, lane)
        w.load()
        while w.in_flight:
            w.answer(w.in_flight[0])
            w.settle()
    for lane in range(4):
        for receiver_id in hanging:
            w.add(receiver_id, lane)
    w.load()
    assert w.engine.in_flight == IN_FLIGHT_MAX
    w.wait(1)
    events = [w.add(1, lane) for lane in range(100)]
    w.load()
    deliver(w, events, at_once=4)


def test_there_is_an_end_to_the_requests_that_hang() -> None:
    room = Room(4)
    sent = 0
    for second in range(20):
        pace = Pace()
        pace.answered = True
        room.look(second * SECOND_NS)
        while not room.full and room.admits(pace):
            room.sent(pace, sent, second * SECOND_NS)
            sent += 1
    assert room.in_flight == sent == 16


def test_those_that_hang_take_turns_in_their_half_as_their_requests_end() -> None:
    w = hanging_world()
    for _ in range(5):
        w.wait(15)
        for event in list(w.in_flight):
            w.answer(event, TIMED_OUT)
            assert w.engine.in_flight <= IN_FLIGHT_MAX // 2
        w.settle()
    assert {event.receiver_id for event in w.sent} == set(HANGING)
    assert w.engine.in_flight <= IN_FLIGHT_MAX // 2


def test_receivers_that_answer_may_use_all_the_room() -> None:
    receivers = {n: ReceiverSettings(n, concurrency=4) for n in (1, 2)}
    w = World(Engine(Dice(1), window=100, in_flight_max=8), receivers, {1: None})
    w.configure()
    for lane in range(50):
        for receiver_id in (1, 2):
            w.add(receiver_id, lane)
    w.load()
    assert w.engine.in_flight == 4
    for _ in range(10):
        w.answer(w.in_flight[0])
    assert w.engine.in_flight == 8
    w.wait(2)
    w.answer(w.in_flight[0], TIMED_OUT)
    assert w.engine.in_flight == 7, "both are slow by now, and over their half"


def test_one_that_was_slow_has_all_the_room_again_when_it_answers_quickly() -> None:
    room, pace = Room(4), Pace()
    for n in range(2):
        room.sent(pace, n, 0)
    room.look(SECOND_NS - 1)
    assert not pace.slow
    room.look(SECOND_NS)
    assert pace.slow
    assert not room.admits(pace)
    room.ended(pace, 0, 1500)
    room.ended(pace, 1, 1500)
    assert pace.slow, "its last answer was"
    room.sent(pace, 2, 2 * SECOND_NS)
    room.ended(pace, 2, 20)
    assert not pace.slow
    for n in range(3, 7):
        assert room.admits(pace)
        room.sent(pace, n, 3 * SECOND_NS)
    assert room.full


def test_what_was_held_back_is_forgotten_with_its_shard() -> None:
    w = hanging_world()
    w.wait(2)
    w.tell(ShardsDraining(range(64)))
    for event in list(w.in_flight):
        w.tell(Finished(event, OK))
        w.in_flight.remove(event)
    w.settle()
    w.tell(ShardsReleased(range(64)))
    w.wait(60)
    assert (w.engine.in_flight, w.engine.loaded_count, w.in_flight) == (0, 0, [])
