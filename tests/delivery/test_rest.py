"""What follows a failing head stays in the table: it takes no room, and none of it is lost or overtaken."""

from __future__ import annotations

import random

import pytest

from clarion.delivery.event import Event, State
from clarion.delivery.step import Loaded, LoadLane
from delivery.test_engine import FAILED, OK, World, world

SCHEDULE = (0, *[60] * 19)


def failing_world(window: int = 16) -> World:
    return world(retry_schedule_s=SCHEDULE, window=window, concurrency=64)


def fail(w: World, event: Event) -> None:
    w.answer(event, FAILED)
    w.settle()


def deliver_all(w: World) -> list[int]:
    """Answer, settle, load until nothing is left; queue ids in the order they were sent."""
    began = len(w.sent)
    for _ in range(20_000):
        for event in list(w.in_flight):
            w.answer(event)
        w.settle()
        w.load()
        if not w.table:
            break
        if not w.in_flight:
            w.wait(5)
    assert w.table == [], "an event is in limbo"
    assert w.engine.loaded_count == 0
    return [event.queue_id for event in w.sent[began:]]


def read_next(w: World) -> LoadLane:
    """The load of a lane that the engine asked for, taken off the list."""
    (want,) = w.wanted
    assert isinstance(want, LoadLane)
    w.wanted.clear()
    return want


def test_thousands_of_followers_of_one_failing_object_leave_the_others_flowing() -> None:
    w = failing_world(window=500)
    head = w.add(lane=0)
    w.load()
    fail(w, head)
    for _ in range(10_000):
        w.add(lane=0)
    healthy = [w.add(lane=lane) for lane in range(1, 50)]
    w.load()
    assert w.in_flight == healthy[:32]
    assert w.engine.loaded_count == 50


def test_thousands_of_blocked_lanes_leave_the_others_flowing() -> None:
    w = failing_world(window=100)
    # As after a restart: their next attempt is due tomorrow.
    for lane in range(5000):
        w.add(lane=lane).due_at = w.now().wall.replace(day=25)
        w.add(lane=lane)
    healthy = [w.add(lane=lane) for lane in range(5000, 5050)]
    w.load()
    assert w.in_flight == healthy[:16]
    assert w.engine.loaded_count == 5050


def test_the_rest_of_a_lane_follows_in_order_when_its_head_succeeds() -> None:
    w = failing_world()
    head = w.add()
    rest = [w.add() for _ in range(50)]
    w.load()
    fail(w, head)
    assert w.engine.loaded_count == 1
    w.wait(100)
    assert deliver_all(w) == [event.queue_id for event in rest]


def test_a_new_event_does_not_overtake_those_that_wait_in_the_table() -> None:
    w = failing_world()
    head, behind = w.add(), w.add()
    w.load()
    fail(w, head)
    w.wait(100)
    w.answer(head)
    w.settle()
    want = read_next(w)
    newer = w.add()
    w.tail = newer.queue_id
    w.tell(Loaded([newer]))
    assert w.in_flight == [], "the lane has a rest that is being read"
    w.tell(w.read_lane(want))
    assert w.in_flight == [behind]
    assert deliver_all(w) == [newer.queue_id]


@pytest.mark.parametrize("read_first", [True, False])
def test_an_event_that_arrives_while_the_rest_is_read_is_sent_once(read_first: bool) -> None:
    w = failing_world()
    head, behind = w.add(), w.add()
    w.load()
    fail(w, head)
    w.wait(100)
    w.answer(head)
    w.settle()
    want = read_next(w)
    rows = w.read_lane(want) if read_first else None
    newer = w.add()
    w.load()
    w.tell(rows or w.read_lane(want))
    assert w.in_flight == [behind]
    assert deliver_all(w) == [newer.queue_id]


def test_a_row_beyond_the_receivers_own_reading_is_not_read_twice() -> None:
    w = failing_world(window=8)
    head, behind = w.add(), w.add()
    w.load()
    fail(w, head)
    for lane in range(1, 12):
        w.add(lane=lane)
    last = w.add()
    w.load()
    assert w.engine.overflowing() == [1]
    w.wait(100)
    w.answer(head)
    w.settle()
    want = next(want for want in w.wanted if isinstance(want, LoadLane))
    assert behind.queue_id <= want.upto_queue_id < last.queue_id
    sent = deliver_all(w)
    assert len(sent) == len(set(sent))
    assert sent.index(behind.queue_id) < sent.index(last.queue_id)


def test_a_rest_whose_rows_are_gone_meanwhile_does_not_hold_its_lane() -> None:
    w = failing_world()
    head, behind = w.add(), w.add()
    w.load()
    fail(w, head)
    w.table.remove(behind)
    w.wait(100)
    w.answer(head)
    w.settle()
    w.load()
    newer = w.add()
    w.load()
    assert w.in_flight == [newer]


def test_a_head_that_came_due_still_leaves_its_followers_in_order() -> None:
    w = failing_world()
    head = w.add()
    w.load()
    fail(w, head)
    followers = [w.add() for _ in range(3)]
    w.load()
    w.wait(100)
    assert w.in_flight == [head]
    followers.append(w.add())
    w.load()
    fail(w, head)
    w.wait(100)
    assert deliver_all(w) == [event.queue_id for event in followers]


def test_a_long_lane_of_a_healthy_object_takes_little_of_the_window() -> None:
    w = failing_world(window=64)
    for _ in range(500):
        w.add(lane=0)
    other = w.add(lane=1)
    w.load()
    assert other in w.in_flight
    assert w.engine.loaded_count == 5
    assert deliver_all(w)[-1] == 500


@pytest.mark.parametrize("seed", range(80))
def test_whatever_happens_no_event_of_a_rest_is_lost_doubled_or_overtaken(seed: int) -> None:
    dice = random.Random(seed)
    w = world(
        seed=seed,
        window=dice.choice([4, 8, 32]),
        retry_schedule_s=(0, *[dice.choice([0, 1, 20])] * 4),
        concurrency=dice.randint(1, 4),
        lane_block_max_s=dice.choice([None, None, 10]),
    )
    made: list[Event] = []
    late = []
    for _ in range(500):
        match dice.randrange(9):
            case 0 | 1:
                made += [w.add(lane=dice.choice([1, 1, 1, 2, 3])) for _ in range(dice.randint(1, 12))]
            case 2:
                w.load()
            case 3 | 4 if w.in_flight:
                w.answer(dice.choice(w.in_flight), FAILED if dice.random() < 0.4 else OK)
            case 5:
                w.settle()
            case 6:
                w.wait(dice.choice([0.001, 0.5, 10]))
            case 7:
                # Read now, told later: whatever happens between lies in the race.
                lanes = [want for want in w.wanted if isinstance(want, LoadLane)]
                w.wanted = [want for want in w.wanted if not isinstance(want, LoadLane)]
                late += [w.read_lane(want) for want in lanes]
            case 8:
                while late:
                    w.tell(late.pop())
    for loaded in late:
        w.tell(loaded)
    deliver_all(w)
    assert sorted(w.ended) == [event.queue_id for event in made]
    assert all(event.state is State.GONE for event in made)
