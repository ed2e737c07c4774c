"""However many events of receivers that do not take them wait, those of the others are read and sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clarion.delivery.engine import Engine
from clarion.delivery.memory import BLOCKED_ALL_MAX, BLOCKED_MAX, STALLED_WINDOW, Memory
from clarion.delivery.receiver import Receiver
from clarion.delivery.step import ReceiverSettings
from delivery.test_engine import FAILED, Dice, World

WINDOW, LOADED_MAX, ROWS = 256, 1_000, 300
OTHERS = range(2, 14)


def crowd() -> World:
    """Receiver 1 has nothing yet, the others have more rows each than a window."""
    receivers = {n: ReceiverSettings(n, concurrency=4, retry_schedule_s=(0, *[36_000] * 9)) for n in (1, *OTHERS)}
    w = World(Engine(Dice(1), window=WINDOW, in_flight_max=512, loaded_max=LOADED_MAX), receivers, {1: None})
    w.configure()
    for receiver_id in OTHERS:
        for lane in range(ROWS):
            w.add(receiver_id, lane)
        w.load()
    return w


def flows(w: World, events_count: int = 300) -> None:
    """The healthy receiver gets what is made now, with all its concurrency."""
    events = [w.add(1, lane) for lane in range(events_count)]
    w.load()
    while open_ := [event for event in events if event.queue_id not in w.ended]:
        under_way = [event for event in w.in_flight if event.receiver_id == 1]
        assert len(under_way) == min(4, len(open_)), f"{len(open_)} events of the healthy receiver are stuck"
        for event in under_way:
            w.answer(event)
        w.settle()
        w.load()


def test_windows_shrink_as_memory_fills_and_everybody_goes_on() -> None:
    w = crowd()
    assert LOADED_MAX / 2 < w.engine.loaded_count < LOADED_MAX + len(OTHERS) * WINDOW / 64 + 2 * WINDOW
    flows(w)


@pytest.mark.parametrize("how", ["out of service", "failing"])
def test_of_those_that_are_not_sent_to_little_is_in_memory(how: str) -> None:
    w = crowd()
    if how == "failing":
        while w.in_flight:
            for event in list(w.in_flight):
                w.answer(event, FAILED)
            w.settle()
            w.load()
    else:
        for receiver_id in OTHERS:
            w.receivers[receiver_id] = replace(w.receivers[receiver_id], active=False)
        w.configure()
        for event in list(w.in_flight):
            w.answer(event, FAILED)
        w.settle()
    w.load()
    blocked = 13 * len(OTHERS) if how == "failing" else 4 * len(OTHERS)
    assert w.engine.loaded_count <= STALLED_WINDOW * len(OTHERS) + blocked
    flows(w)
    for receiver_id in OTHERS:
        w.receivers[receiver_id] = replace(w.receivers[receiver_id], active=True)
    w.configure()
    for _ in range(100_000):
        if not w.table:
            break
        for event in list(w.in_flight):
            w.answer(event)
        w.settle()
        w.load()
        if not w.in_flight:
            w.wait(300)
    assert w.table == []
    assert len(w.ended) == len(OTHERS) * ROWS + 300


def test_those_with_most_blocked_objects_take_in_no_more_when_all_together_have_too_many() -> None:
    memory = Memory(500, 50_000)
    dice = Dice(1)
    few, *many = (Receiver(n, ReceiverSettings(n), dice) for n in range(4))
    event = crowd().table[0]
    for receiver, count in ((few, 600), *((one, 17_000) for one in many)):
        receiver.blocked = set(range(count))
        receiver.events = dict.fromkeys(range(count), event)
    assert all(memory.room_of(receiver) == 500 for receiver in (few, *many))
    memory.weigh((few, *many))
    assert memory.room_of(few) == 500
    assert all(memory.room_of(receiver) < 0 for receiver in many)
    assert BLOCKED_ALL_MAX / 4 < 17_000 < BLOCKED_MAX
