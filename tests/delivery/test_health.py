"""A receiver that fails for days without one success is given up, whoever serves it meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from clarion.core.clock import Now
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event
from clarion.delivery.health import Failing, Health
from clarion.delivery.step import (
    Disable,
    ReceiverSettings,
    Remember,
    SendingAllowed,
    ShardsClaimed,
    ShardsDraining,
    ShardsReleased,
)
from clarion.sender.outcome import Attempt, Outcome
from delivery.test_engine import EPOCH, FAILED, OK, Dice, World, attempt, world

DAY_S = 86_400
OURS = attempt(Outcome.DNS_FAILED, ours=True)
TOO_MANY = attempt(Outcome.UNEXPECTED_STATUS, 429)
QUIET_PLEASE = attempt(Outcome.UNEXPECTED_STATUS, 503, 60)
EVERY_HOUR = (0, *[3600] * 19)


def at(seconds: float) -> Now:
    return Now(round(seconds * 1e9), EPOCH + timedelta(seconds=seconds))


def failing(count: int, *, first_s: float = 0, last_s: float = 0) -> Health:
    """Health after `count` failures, all at once but the last."""
    health = Health()
    for _ in range(count - 1):
        health.finished(FAILED, at(first_s))
    health.finished(FAILED, at(last_s))
    return health


@pytest.mark.parametrize(
    ("count", "seconds", "expected"),
    [
        (20, 5 * DAY_S, True),
        (19, 5 * DAY_S, False),
        (20, 5 * DAY_S - 0.001, False),
        (1, 50 * DAY_S, False),
        (1000, 4 * DAY_S, False),
        (1000, 50 * DAY_S, True),
    ],
)
def test_it_is_given_up_after_five_days_and_twenty_failures(count: int, seconds: float, expected: bool) -> None:
    assert failing(count, last_s=seconds).give_up(at(seconds)) is expected


def test_that_is_said_once() -> None:
    health = failing(20)
    assert health.give_up(at(5 * DAY_S))
    health.finished(FAILED, at(5 * DAY_S))
    assert not health.give_up(at(5 * DAY_S))


@pytest.mark.parametrize("begins_anew", [lambda h: h.finished(OK, at(4 * DAY_S)), Health.clear])
def test_a_success_or_being_switched_on_again_resets_days_and_count(begins_anew: object) -> None:
    health = failing(1000)
    assert callable(begins_anew)
    begins_anew(health)
    health.finished(FAILED, at(4 * DAY_S))
    for _ in range(18):
        health.finished(FAILED, at(9 * DAY_S))
    assert not health.give_up(at(9 * DAY_S)), "nineteen failures"
    health.finished(FAILED, at(9 * DAY_S - 1))
    assert not health.give_up(at(9 * DAY_S - 1)), "not yet five days since the reset"
    assert health.give_up(at(9 * DAY_S))


@pytest.mark.parametrize("outcome", [OURS, TOO_MANY, QUIET_PLEASE])
def test_quiet_that_is_asked_for_and_faults_of_our_own_neither_count_nor_reset(outcome: Attempt) -> None:
    health = Health()
    for _ in range(100):
        health.finished(outcome, at(0))
    assert not health.untold
    health = failing(19)
    health.finished(outcome, at(5 * DAY_S))
    assert not health.give_up(at(5 * DAY_S))
    health.finished(FAILED, at(5 * DAY_S))
    assert health.give_up(at(5 * DAY_S))


def test_only_the_first_failure_the_first_success_and_once_a_minute_are_told() -> None:
    health = Health()
    told = []
    for second in range(130):
        health.finished(FAILED, at(second))
        if health.due(at(second)):
            told.append((second, health.tell(at(second))))
    assert told == [(0, Failing(EPOCH, 1)), (60, Failing(EPOCH, 61)), (120, Failing(EPOCH, 121))]
    health.finished(OK, at(130))
    assert health.due(at(130))
    assert health.tell(at(130)) is None
    for _ in range(100):
        health.finished(OK, at(131))
        assert not health.due(at(131)), "nothing is written while all is well"


# ---------------------------------------------------------------- in the engine


def claimed(stored: Failing | None = None, **settings: Any) -> World:
    """A world whose worker begins with what its predecessor stored of receiver 1."""
    receiver = ReceiverSettings(1, retry_schedule_s=EVERY_HOUR, **settings)
    w = World(Engine(Dice(1), window=100, in_flight_max=16), {1: receiver}, {1: None})
    w.tell(ShardsReleased(range(64)))
    w.configure()
    w.tell(ShardsClaimed(range(64), {} if stored is None else {1: stored}))
    return w


def test_a_receiver_that_failed_for_whoever_served_it_before_is_probed_first() -> None:
    w = claimed(Failing(EPOCH - timedelta(hours=1), 10), concurrency=8)
    for lane in range(20):
        w.add(lane=lane)
    w.load()
    assert len(w.in_flight) == 1
    w.answer(w.in_flight[0])
    w.settle()
    assert len(w.in_flight) == 1, "a slow start"
    w = claimed(Failing(EPOCH - timedelta(hours=1), 9), concurrency=8)
    for lane in range(20):
        w.add(lane=lane)
    w.load()
    assert len(w.in_flight) == 8


def send(w: World) -> Event:
    event = w.add(lane=w.tail_of_table() + 1)
    w.load()
    assert event in w.in_flight
    return event


def test_a_receiver_that_fails_for_five_days_is_disabled_by_its_probes_alone() -> None:
    w = world(retry_schedule_s=EVERY_HOUR, window=1000)
    while not w.disabled:
        if not w.in_flight and not w.table:
            w.add()
            w.load()
        for event in list(w.in_flight):
            w.answer(event, FAILED)
        w.settle()
        due_ns = w.engine.wake_ns()
        w.now_ns = max(w.now_ns, due_ns or 0)
        w.wait(0)
        assert w.now_ns < 6 * DAY_S * 1e9
    assert w.disabled == [Disable(1, "NO_SUCCESS")]
    assert w.now_ns >= 5 * DAY_S * 1e9
    # At the first failure, and then at most once a minute.
    assert w.remembered[0] == Remember(1, Failing(EPOCH, 1))
    assert len(w.remembered) <= 5 * 24 * 60
    since = {one.failing.since for one in w.remembered if one.failing}
    assert since == {EPOCH}


def test_a_worker_that_starts_anew_goes_on_from_what_was_stored() -> None:
    w = claimed(Failing(EPOCH - timedelta(days=5), 18))
    send(w)
    told: list[Disable] = []
    for expected in ([], [Disable(1, "NO_SUCCESS")], []):
        w.answer(w.in_flight[0], FAILED)
        w.settle()
        assert w.disabled == told + expected
        told = list(w.disabled)
        w.wait(300)  # its breaker's next probe


def test_one_success_after_a_restart_makes_the_store_forget() -> None:
    w = claimed(Failing(EPOCH - timedelta(days=5), 300))
    w.answer(send(w), OK)
    assert w.remembered == [Remember(1, None)]
    w.answer(send(w), FAILED)
    assert w.disabled == []
    assert w.remembered[1:] == [Remember(1, Failing(EPOCH, 1))]


def test_switched_on_again_it_begins_anew() -> None:
    w = claimed(Failing(EPOCH - timedelta(days=5), 300), active=False)
    w.receivers[1] = ReceiverSettings(1, retry_schedule_s=EVERY_HOUR)
    w.configure()
    assert w.remembered == [Remember(1, None)]
    w.answer(send(w), FAILED)
    assert w.disabled == []


def test_a_paused_receiver_is_not_disabled_by_what_was_under_way() -> None:
    w = claimed(Failing(EPOCH - timedelta(days=5), 300))
    event = send(w)
    w.receivers[1] = ReceiverSettings(1, active=False)
    w.configure()
    w.answer(event, FAILED)
    assert w.disabled == []


@pytest.mark.parametrize("handed_over", [ShardsDraining(range(64)), SendingAllowed(allowed=False)])
def test_what_is_known_is_told_before_another_takes_over(handed_over: ShardsDraining | SendingAllowed) -> None:
    w = claimed()
    w.answer(send(w), FAILED)
    w.answer(send(w), FAILED)
    under_way = send(w)
    assert [one.failing for one in w.remembered] == [Failing(EPOCH, 1)]
    w.tell(handed_over)
    assert w.remembered[-1].failing == Failing(EPOCH, 2)
    w.answer(under_way, FAILED)
    assert w.remembered[-1].failing == Failing(EPOCH, 3)


def test_a_shard_that_comes_back_brings_what_was_stored_meanwhile() -> None:
    w = claimed()
    w.answer(send(w), FAILED)
    w.settle()
    w.tell(ShardsDraining(range(64)))
    w.tell(ShardsReleased(range(64)))
    w.tail = 0
    w.tell(ShardsClaimed(range(64), {1: Failing(EPOCH - timedelta(days=6), 19)}))
    w.answer(send(w), FAILED)
    assert w.disabled == [Disable(1, "NO_SUCCESS")]
