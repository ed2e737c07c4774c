"""Numbers have no gaps, links chain, every matching subscription gets exactly one event."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import partial
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.ledger.chain import GENESIS, link, payload_digest, since_1970_us
from clarion.ledger.change import Captured
from clarion.routing.evaluation import Evaluator
from clarion.routing.match import Index, Subscription
from clarion.routing.stamp import Limit, Numbers, Tail, lane_of, stamp

AT = datetime(2026, 11, 24, 1, 2, 3, 456789, tzinfo=UTC)
changes = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["RUNS", "ISSUES"]), st.sampled_from("cud"), st.sampled_from("xyz")),
    max_size=30,
)
subscriptions = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["RUNS", "ISSUES"]), st.sampled_from(["CREATE", "UPDATE", "DELETE"])),
    max_size=8,
)


@given(st.lists(changes, min_size=1, max_size=4), subscriptions)
def test_batches_number_without_gaps_and_make_one_event_per_match(
    batches: list[list[tuple[int, str, str, str]]], wanted: list[tuple[int, str, str]]
) -> None:
    listening = [Subscription(i, owner, 10 + i % 2, name, action) for i, (owner, name, action) in enumerate(wanted)]
    numbers = Numbers(0, 0, 0, {}, {s.subscription_id: 0 for s in listening})
    tails = dict.fromkeys((1, 2, 3), Tail())
    outbox_id, expected_events, seen_sequences = 0, 0, {s.subscription_id: 0 for s in listening}
    for spec in batches:
        rows = []
        for owner, resource, action, object_id in spec:
            outbox_id += 1
            captured = Captured(outbox_id, owner, None, resource, action, object_id, 1, 1, *[None] * 6, "{}")
            rows.append((captured, owner))
        batch = stamp(rows, numbers, Index(listening), AT, bytes(16 * len(rows)), Evaluator(lambda: 0, lambda: 0))
        assert batch.after.position == numbers.position + len(batch.outbox_ids)
        assert batch.after.event_id == numbers.event_id + len(batch.subscription_ids)
        assert batch.after.queue_id == numbers.queue_id + len(batch.subscription_ids)
        assert [
            numbers.position + place + 1
            for place, (before, after) in enumerate(itertools.pairwise(batch.events_before))
            for _ in range(before, after)
        ] == [numbers.position + place for place in batch.queue_places]
        payload = payload_digest(bytes(16), None, "{}", None, None, None)
        for (row, owner), change_id, made in zip(rows, batch.change_ids, batch.links, strict=True):
            tail = tails[owner]
            assert change_id == tail.change_id + 1
            assert made == link(
                tail.link, owner, change_id, since_1970_us(AT), row.resource, row.action, row.object_id, payload
            )
            tails[owner] = Tail(change_id, made)
            expected_events += sum(
                1
                for s in listening
                if (s.organisation_id, s.resource, s.action[0].lower()) == (owner, row.resource, row.action)
            )
        for subscription_id, sequence in zip(batch.subscription_ids, batch.queue_sequences, strict=True):
            assert sequence == seen_sequences[subscription_id] + 1
            seen_sequences[subscription_id] = sequence
        numbers = batch.after
    assert numbers.event_id == expected_events
    assert numbers.tails.get(1, Tail()).link == (tails[1].link if tails[1].change_id else GENESIS)


def test_a_lane_is_the_same_in_every_process_and_differs_by_resource_and_object() -> None:
    assert lane_of("RUNS", "42") == 25846892906544385
    assert len({lane_of(r, o) for r in ("RUNS", "ISSUES") for o in map(str, range(1000))}) == 2000


def test_a_batch_ends_where_it_has_many_events_and_the_next_one_goes_on_from_there() -> None:
    listening = [Subscription(i, 1, i, "RUNS", "CREATE") for i in range(1, 5)]
    numbers = Numbers(0, 0, 0, {}, dict.fromkeys(range(1, 5), 0))
    rows = [(Captured(n, 1, None, "RUNS", "c", str(n), 1, 1, *[None] * 6, "{}"), 1) for n in range(1, 11)]
    batches = []
    while rows:
        limit = Limit(events_max=9, ends_ns=inf, clock_ns=lambda: 0)
        batch = stamp(
            rows, numbers, Index(listening), AT, bytes(16 * len(rows)), Evaluator(lambda: 0, lambda: 0), limit=limit
        )
        assert len(batch.salts) == 16 * len(batch.outbox_ids)
        batches.append(batch)
        rows, numbers = rows[len(batch.outbox_ids) :], batch.after
    assert [len(batch.outbox_ids) for batch in batches] == [3, 3, 3, 1]
    assert (numbers.position, numbers.event_id, numbers.tails[1].change_id) == (10, 40, 10)


@pytest.mark.parametrize(("ends_ns", "expected"), [(0, 1), (7_500, 3), (inf, 10)])
def test_a_batch_ends_when_its_evaluations_have_taken_their_time_but_has_a_row_at_least(
    ends_ns: float, expected: int
) -> None:
    asking = [Subscription(1, 1, 1, "RUNS", "CREATE", condition="object.n > 0")]
    rows = [(Captured(n, 1, None, "RUNS", "c", str(n), 1, 1, *[None] * 6, '{"n":1}'), 1) for n in range(1, 11)]
    # Read twice in an evaluation, and once after it.
    clock_ns = partial(next, itertools.count(0, 1_000))
    limit = Limit(inf, ends_ns, clock_ns)
    batch = stamp(
        rows, Numbers(0, 0, 0, {}, {1: 0}), Index(asking), AT, bytes(160), Evaluator(clock_ns, lambda: 0), limit=limit
    )
    assert len(batch.outbox_ids) == expected == len(batch.subscription_ids)
