"""Rows drawn in the wrong order by nested triggers come out in the order in which they happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clarion.ledger.change import Captured
from clarion.routing.order import dominant, in_order, missing_predecessors, owner_of, shared


def row(
    outbox_id: int,
    *,
    object_id: str = "1",
    organisation_id: int = 1,
    xid: int = 1,
    depth: int = 1,
    old: str | None = None,
    new: str | None = None,
) -> Captured:
    return Captured(
        outbox_id, organisation_id, None, "RUNS", "u", object_id, xid, depth, old, new, None, None, None, None, None
    )


@given(st.integers(2, 8).flatmap(lambda count: st.permutations(range(count))))
def test_one_objects_rows_of_one_transaction_follow_their_places(drawn: list[int]) -> None:
    rows = [row(outbox_id, depth=2, old=f"(0,{step})", new=f"(0,{step + 1})") for outbox_id, step in enumerate(drawn)]
    assert [r.old_ctid for r in in_order(rows)] == [f"(0,{step})" for step in range(len(drawn))]


@given(st.permutations(range(10)))
def test_rows_of_different_transactions_keep_their_ids_order(order: list[int]) -> None:
    # The places are reused after vacuum, so between transactions they say nothing.
    rows = [row(i, xid=i, depth=2, old="(0,1)", new="(0,2)") for i in order]
    assert [r.outbox_id for r in in_order(rows)] == list(range(10))


def test_an_object_that_is_deleted_and_made_again_in_one_transaction_keeps_both_lives() -> None:
    first = [row(1, new="(0,1)"), row(2, depth=2, old="(0,1)", new="(0,2)"), row(3, old="(0,2)")]
    again = [row(4, new="(0,9)"), row(5, depth=2, old="(0,9)", new="(0,10)")]
    assert [r.outbox_id for r in in_order(again + first)] == [1, 2, 3, 4, 5]


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc")), max_size=40))
def test_no_row_is_lost_or_doubled_whatever_the_places_say(spec: list[tuple[int, str]]) -> None:
    rows = [row(i, object_id=name, depth=2, old=f"(0,{n})", new=f"(0,{n % 3})") for i, (n, name) in enumerate(spec)]
    assert sorted(r.outbox_id for r in in_order(rows)) == [r.outbox_id for r in rows]


def test_a_nested_row_whose_predecessor_is_not_in_the_batch_is_suspect() -> None:
    nested = row(1, depth=2, old="(0,2)", new="(0,3)")
    outer = row(2, old="(0,1)", new="(0,2)")
    assert missing_predecessors([nested]) == [nested]
    assert missing_predecessors([nested, outer]) == []
    assert missing_predecessors([row(1, depth=1, old="(0,2)", new="(0,3)")]) == []


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=120),
    st.lists(st.integers(2, 5), max_size=120),
    st.integers(4, 60),
)
def test_a_shared_batch_takes_a_prefix_of_each_organisation(owners: list[int], later: list[int], limit: int) -> None:
    waiting = [row(i, organisation_id=owner) for i, owner in enumerate([1] * limit + owners)]
    waiting += [row(1000 + i, organisation_id=owner) for i, owner in enumerate(later)]
    looked = waiting[:limit]
    dominating = dominant(looked, limit // 2)
    others = [r for r in waiting if owner_of(r) not in dominating][:limit]
    batch = shared(looked, others, dominating, limit)
    assert len(batch) <= limit
    assert [r.outbox_id for r in batch] == sorted(r.outbox_id for r in batch)
    for owner in {owner_of(r) for r in waiting}:
        mine = [r.outbox_id for r in waiting if owner_of(r) == owner]
        taken = [r.outbox_id for r in batch if owner_of(r) == owner]
        assert taken == mine[: len(taken)]
    if others:
        assert any(owner_of(r) not in dominating for r in batch)
        assert any(owner_of(r) in dominating for r in batch)
