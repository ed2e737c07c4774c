"""Rows drawn in the wrong order by nested triggers come out in the order in which they happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clarion.ledger.change import Captured
from clarion.routing.order import (
    dominant,
    in_order,
    maybe_halves,
    missing_predecessors,
    moved,
    owner_of,
    shared,
    with_moves_folded,
)


def row(
    outbox_id: int,
    *,
    object_id: str = "1",
    organisation_id: int = 1,
    xid: int = 1,
    depth: int = 1,
    old: str | None = None,
    new: str | None = None,
    action: str = "u",
    half_of: int | None = None,
) -> Captured:
    where = (outbox_id, organisation_id, None, "RUNS", action, object_id, xid, depth, old, new)
    return Captured(*where, None, None, None, f"old of {outbox_id}", f"new of {outbox_id}", half_of)


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


def test_the_halves_of_a_move_are_one_update_in_the_place_of_the_first() -> None:
    between = row(2, object_id="2")
    rows = [row(1, action="d", old="1(0,1)"), between, row(3, action="c", new="2(0,9)", half_of=1)]
    folded, other = in_order(rows)
    assert other is between
    assert (folded.outbox_id, folded.action, folded.old_ctid, folded.new_ctid) == (1, "u", "1(0,1)", "2(0,9)")
    assert (folded.old, folded.new) == ("old of 1", "new of 3")
    assert moved([folded, other]) == [(1, 3)]


def test_halves_of_another_object_or_organisation_or_transaction_stay_two() -> None:
    delete = row(1, action="d")
    for create in (
        row(2, action="c", half_of=1, object_id="2"),
        row(2, action="c", half_of=1, organisation_id=2),
        row(2, action="c", half_of=1, xid=2),
        row(2, action="c", half_of=7),
        row(2, action="c"),
        row(2, action="u", half_of=1),
    ):
        assert in_order([delete, create]) == [delete, create]
        assert moved([delete]) == []


def test_a_row_that_is_updated_again_where_it_moved_to_keeps_its_order() -> None:
    """The trigger of the application fires before ours: its update is drawn between the halves."""
    rows = [
        row(1, action="d", old="1(0,1)"),
        row(2, depth=2, old="2(0,1)", new="2(0,2)"),
        row(3, action="c", new="2(0,1)", half_of=1),
        row(4, old="2(0,2)", new="2(0,3)"),
    ]
    assert [(r.old_ctid, r.new_ctid) for r in in_order(rows)] == [
        ("1(0,1)", "2(0,1)"),
        ("2(0,1)", "2(0,2)"),
        ("2(0,2)", "2(0,3)"),
    ]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from([1, 2])), max_size=30), st.integers(1, 30)
)
def test_no_batch_that_looks_for_other_halves_splits_a_move(spec: list[tuple[bool, str, int]], cut: int) -> None:
    """Whatever else its transaction did before and after, and wherever the batch ends."""
    rows: list[Captured] = []
    for moves, object_id, xid in spec:
        outbox_id = len(rows) + 1
        if moves:
            rows.append(row(outbox_id, action="d", object_id=object_id, xid=xid))
            rows.append(row(outbox_id + 1, action="c", object_id=object_id, xid=xid, half_of=outbox_id))
        else:
            rows.append(row(outbox_id, action="d", object_id=object_id, xid=xid))
    batch = rows[:cut]
    wanted = maybe_halves(batch)
    batch += [r for r in rows[cut:] if r.half_of in wanted]
    present = {r.outbox_id for r in batch}
    assert all(r.half_of is None or (r.half_of in present) == (r.outbox_id in present) for r in rows)
    assert sum(r.action == "u" for r in with_moves_folded(batch)) == sum(r.half_of is not None for r in batch)
