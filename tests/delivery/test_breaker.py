"""A receiver that fails is left alone, probed, and brought back slowly; one that asks for quiet gets it."""

from __future__ import annotations

import pytest

from clarion.delivery.breaker import Breaker, counts
from clarion.delivery.event import Event, Reason, Status
from clarion.delivery.step import ReceiverSettings, Unsendable
from clarion.sender.outcome import Attempt, Outcome
from delivery.test_engine import FAILED, OK, Dice, World, attempt, world

SECOND_NS = 1_000_000_000
LONG_SCHEDULE = (0, *[86_400] * 19)
OURS = attempt(Outcome.DNS_FAILED, ours=True)
TOO_MANY = attempt(Outcome.UNEXPECTED_STATUS, 429)
QUIET_PLEASE = attempt(Outcome.UNEXPECTED_STATUS, 503, 60)
UNAVAILABLE = attempt(Outcome.UNEXPECTED_STATUS, 503)


def opened(w: World) -> list[Event]:
    """Ten events failed one after the other; the ten behind them wait."""
    failed = [w.add(lane=lane) for lane in range(10)]
    w.load()
    for event in failed:
        w.answer(event, FAILED)
    w.settle()
    assert w.in_flight == []
    waiting = [w.add(lane=lane) for lane in range(10, 20)]
    w.load()
    return waiting


def failing_world(concurrency: int = 16) -> World:
    return world(retry_schedule_s=LONG_SCHEDULE, window=100, concurrency=concurrency)


def to_next_probe(w: World) -> float:
    """Let time pass until a request is under way; the seconds it took."""
    began_ns = w.now_ns
    while not w.in_flight:
        due_ns = w.engine.wake_ns()
        assert due_ns is not None
        w.now_ns = max(w.now_ns, due_ns)
        w.wait(0)
    return (w.now_ns - began_ns) / SECOND_NS


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (OK, True),
        (FAILED, True),
        (UNAVAILABLE, True),
        (attempt(Outcome.TIMED_OUT), True),
        (attempt(Outcome.TLS_FAILED), True),
        (attempt(Outcome.CONNECTION_CLOSED), True),
        (attempt(Outcome.DNS_FAILED), True),
        (TOO_MANY, False),
        (QUIET_PLEASE, False),
        (OURS, False),
        (attempt(Outcome.PROXY_FAILED, ours=True), False),
        (attempt(Outcome.OVERLOADED, ours=True), False),
    ],
)
def test_only_what_the_receiver_is_to_blame_for_counts(outcome: Attempt, expected: bool) -> None:
    assert counts(outcome) is expected


def test_nine_failures_in_a_row_leave_it_closed_and_the_tenth_opens_it() -> None:
    breaker = Breaker(Dice(1))
    for _ in range(9):
        breaker.finished(FAILED, 0)
    assert not breaker.is_open
    breaker.finished(FAILED, 0)
    assert breaker.is_open


def test_a_success_begins_the_row_of_failures_anew() -> None:
    breaker = Breaker(Dice(1))
    for outcome in [*[FAILED] * 9, *[OK] * 20, *[FAILED] * 9]:
        breaker.finished(outcome, 0)
    assert not breaker.is_open


def test_what_does_not_count_neither_opens_it_nor_interrupts_the_row() -> None:
    breaker = Breaker(Dice(1))
    for outcome in (OURS, TOO_MANY, QUIET_PLEASE):
        for _ in range(100):
            breaker.finished(outcome, 0)
    assert not breaker.is_open
    for outcome in [*[FAILED] * 9, OURS, TOO_MANY, FAILED]:
        breaker.finished(outcome, 0)
    assert breaker.is_open


def test_half_of_twenty_within_a_minute_open_it() -> None:
    breaker = Breaker(Dice(1))
    for n in range(19):
        breaker.finished(FAILED if n % 2 else OK, n * SECOND_NS)
        assert not breaker.is_open
    breaker.finished(FAILED, 20 * SECOND_NS)
    assert breaker.is_open


def test_failures_longer_ago_than_a_minute_are_forgotten() -> None:
    breaker = Breaker(Dice(1))
    for n in range(200):
        breaker.finished(FAILED if n % 2 else OK, n * 4 * SECOND_NS)
    assert not breaker.is_open


def test_while_open_one_probe_at_a_time_is_sent_ever_later_up_to_five_minutes() -> None:
    w = failing_world()
    opened(w)
    for expected_s in (5, 10, 20, 40, 80, 160, 300, 300):
        waited_s = to_next_probe(w)
        assert 0.5 * expected_s <= waited_s <= 1.5 * expected_s + 0.01
        (probe,) = w.in_flight
        w.wait(600)
        assert w.in_flight == [probe], "another request while the probe is under way"
        w.answer(probe, FAILED)
        w.settle()


def test_a_failed_probe_is_stored_as_an_attempt_and_spends_nothing_of_the_schedule() -> None:
    w = world(retry_schedule_s=(0,), window=100, concurrency=16)
    waiting = opened(w)
    to_next_probe(w)
    (probe,) = w.in_flight
    w.answer(probe, FAILED)
    (settlement,) = w.settling
    assert (settlement.attempt, settlement.ending, settlement.due_at) == (FAILED, None, None)
    assert (probe.attempts_count, probe.spent_count, probe.due_at) == (1, 0, None)
    w.settle()
    assert all(event.attempts_count == 0 for event in waiting if event is not probe)
    assert not any(event.queue_id in w.ended for event in waiting)


def test_probes_go_round_so_that_one_poisonous_event_cannot_keep_it_open() -> None:
    w = failing_world()
    waiting = opened(w)
    for event in waiting[:3]:
        to_next_probe(w)
        assert w.in_flight == [event]
        w.answer(event, FAILED)
        w.settle()


def test_a_probe_that_failed_by_our_own_fault_is_repeated_after_the_same_wait() -> None:
    w = failing_world()
    opened(w)
    for _ in range(6):
        assert to_next_probe(w) <= 7.51
        (probe,) = w.in_flight
        w.answer(probe, OURS)
        w.settle()
        assert probe.spent_count == 0


def test_a_probe_that_cannot_be_sent_makes_way_for_another() -> None:
    w = failing_world()
    opened(w)
    to_next_probe(w)
    probe = w.in_flight.pop()
    w.tell(Unsendable(probe, Reason.BODY_FAILED))
    assert len(w.in_flight) == 1


def test_without_a_due_head_there_is_no_probe_until_one_comes() -> None:
    w = failing_world()
    for lane in range(10):
        w.add(lane=lane)
    w.load()
    for event in list(w.in_flight):
        w.answer(event, FAILED)
    w.settle()
    w.wait(60)
    assert w.in_flight == []
    event, other = w.add(lane=50), w.add(lane=51)
    w.load()
    assert w.in_flight == [event]
    w.answer(event)
    w.settle()
    assert w.in_flight == [other]


def test_a_successful_probe_closes_it_with_a_slow_start() -> None:
    w = world(retry_schedule_s=LONG_SCHEDULE, window=200, concurrency=16)
    opened(w)
    for lane in range(20, 80):
        w.add(lane=lane)
    w.load()
    to_next_probe(w)
    w.answer(w.in_flight[0])
    under_way = []
    for _ in range(6):
        round_of_requests = list(w.in_flight)
        under_way.append(len(round_of_requests))
        for event in round_of_requests:
            w.answer(event)
        w.settle()
        w.load()
    assert under_way == [1, 2, 4, 8, 16, 16]


def test_a_failure_during_the_slow_start_begins_its_round_anew() -> None:
    breaker = Breaker(Dice(1))
    breaker.close_slowly()
    breaker.finished(OK, 0)
    for outcome in (OK, FAILED, OK):
        breaker.finished(outcome, 0)
        assert breaker.concurrency == 2
    breaker.finished(OK, 0)
    assert breaker.concurrency == 4


def test_requests_under_way_when_it_opens_spend_their_attempt_and_do_not_close_it() -> None:
    w = failing_world()
    events = [w.add(lane=lane) for lane in range(14)]
    w.load()
    for event in events[:10]:
        w.answer(event, FAILED)
    late_failed, late_ok = events[10], events[11]
    w.answer(late_failed, FAILED)
    w.answer(late_ok)
    w.settle()
    assert late_failed.spent_count == 1
    assert w.status(late_ok) == (Status.DELIVERED, Reason.SUCCEEDED)
    w.add(lane=30)
    w.load()
    assert w.in_flight == events[12:]


def test_an_open_breaker_does_not_keep_events_from_expiring() -> None:
    w = failing_world()
    w.subscriptions[1] = 60
    w.configure()
    waiting = opened(w)
    w.wait(61)
    w.settle()
    ended = [event for event in waiting if event.queue_id in w.ended]
    assert len(ended) == len(waiting) - len(w.in_flight)
    assert {w.status(event) for event in ended} == {(Status.EXPIRED, Reason.EXPIRED)}


def test_another_receiver_does_not_notice_an_open_breaker() -> None:
    w = failing_world()
    w.receivers[2] = ReceiverSettings(2)
    w.configure()
    opened(w)
    other = w.add(2, 1)
    w.load()
    assert w.in_flight == [other]


def test_putting_a_receiver_back_into_service_closes_its_breaker() -> None:
    w = failing_world()
    waiting = opened(w)
    active = w.receivers[1]
    w.receivers[1] = ReceiverSettings(1, active=False)
    w.configure()
    w.receivers[1] = active
    w.configure()
    assert w.in_flight == waiting[:1], "with a slow start"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_makes_the_whole_receiver_quiet_until_then(status: int) -> None:
    w = failing_world(concurrency=1)
    asked, other = w.add(lane=1), w.add(lane=2)
    w.load()
    w.answer(asked, attempt(Outcome.UNEXPECTED_STATUS, status, 3600))
    w.settle()
    w.wait(3599)
    assert w.in_flight == []
    w.wait(1.1)
    assert w.in_flight == [other]
    assert asked.spent_count == 1


def test_quiet_lasts_a_day_at_most_and_a_shorter_wish_does_not_end_a_longer_one() -> None:
    w = failing_world()
    first, second = w.add(lane=1), w.add(lane=2)
    w.load()
    w.answer(first, attempt(Outcome.UNEXPECTED_STATUS, 429, 10_000_000))
    w.answer(second, attempt(Outcome.UNEXPECTED_STATUS, 429, 5))
    w.settle()
    event = w.add(lane=3)
    w.load()
    w.wait(86_399)
    assert w.in_flight == []
    w.wait(2)
    assert event in w.in_flight


def test_quiet_costs_one_timer_however_often_the_receiver_is_asked() -> None:
    w = failing_world(concurrency=1)
    asked = w.add(lane=0)
    w.load()
    w.answer(asked, attempt(Outcome.UNEXPECTED_STATUS, 429, 80_000))
    w.settle()
    for lane in range(1, 60):
        w.add(lane=lane)
        w.load()
    receiver_timers = [timer for timer in w.engine._timers._heap if not isinstance(timer[2], Event)]
    assert len(receiver_timers) == 1


def test_a_probe_that_is_asked_for_quiet_waits_that_long_and_spends_nothing() -> None:
    w = failing_world()
    opened(w)
    to_next_probe(w)
    (probe,) = w.in_flight
    w.answer(probe, attempt(Outcome.UNEXPECTED_STATUS, 503, 7200))
    w.settle()
    assert probe.spent_count == 0
    assert probe.due_at is not None
    assert 7199 <= to_next_probe(w) <= 7201
