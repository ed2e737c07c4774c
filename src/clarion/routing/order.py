"""In which order a batch's rows count as having happened, and whose rows a batch takes. Pure.

Ids follow commit order per object, with one exception: a trigger of the application that fires before ours and updates
the row again draws its id first. Within one transaction and object the rows' places in the table tell the truth: each
update starts where the one before it ended.

A row that moves to another partition is captured as a DELETE and a CREATE that names it. If object and organisation are
the same, it is one UPDATE: two outbox rows, one change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from clarion.ledger.change import Action, Captured

_Group = tuple[int, str, str]


def in_order(rows: Iterable[Captured]) -> list[Captured]:
    """The rows by ascending id, moves folded, each object's rows of one transaction by the chain of their places."""
    ordered = with_moves_folded(sorted(rows, key=lambda row: row.outbox_id))
    if all(row.depth <= 1 for row in ordered):
        return ordered
    groups: defaultdict[_Group, list[int]] = defaultdict(list)
    for index, row in enumerate(ordered):
        groups[(row.xid, row.resource, row.object_id)].append(index)
    for slots in groups.values():
        if len(slots) > 1 and any(ordered[slot].depth > 1 for slot in slots):
            chained = _by_chain([ordered[slot] for slot in slots])
            for slot, row in zip(slots, chained, strict=True):
                ordered[slot] = row
    return ordered


def with_moves_folded(rows: Sequence[Captured]) -> list[Captured]:
    """The rows in the same order, with one UPDATE in place of the DELETE half of each move and none for its CREATE half.

    Halves of which the key or the organisation differs stay two.
    """
    named = {row.half_of for row in rows if row.half_of is not None}
    if not named:
        return list(rows)
    deletes = {row.outbox_id: row for row in rows if row.outbox_id in named}
    updates: dict[int, Captured] = {}
    folded: set[int] = set()
    for row in rows:
        delete = deletes.get(row.half_of) if row.half_of is not None else None
        if delete is None or (delete.action, row.action) != (Action.DELETE, Action.CREATE):
            continue
        if _object_of(delete) == _object_of(row):
            folded.add(row.outbox_id)
            updates[delete.outbox_id] = delete._replace(
                action=Action.UPDATE.value, new_ctid=row.new_ctid, new=row.new, half_of=row.outbox_id
            )
    return [updates.get(row.outbox_id, row) for row in rows if row.outbox_id not in folded]


def _object_of(row: Captured) -> tuple[int, str, str, int | None, str | None]:
    return row.xid, row.resource, row.object_id, row.organisation_id, row.organisation


def moved(rows: Sequence[Captured]) -> list[tuple[int, int]]:
    """The places, from 1 on, of the UPDATEs that were captured as two rows, each with the id of the second."""
    return [
        (place, row.half_of)
        for place, row in enumerate(rows, start=1)
        if row.half_of is not None and row.action == Action.UPDATE
    ]


def maybe_halves(rows: Sequence[Captured]) -> list[int]:
    """The ids of DELETEs whose CREATE half may lie beyond these rows.

    It is the next one that its transaction captures at that depth, so that only the last one here can have been cut off.
    """
    if all(row.action != Action.DELETE for row in rows):
        return []
    last: dict[tuple[int, int, str], Captured] = {}
    for row in rows:
        at = (row.xid, row.depth, row.resource)
        if at not in last or last[at].outbox_id < row.outbox_id:
            last[at] = row
    return [row.outbox_id for row in last.values() if row.action == Action.DELETE]


def _by_chain(rows: Sequence[Captured]) -> list[Captured]:
    """Rows of one object and transaction, every chain whole, the chain with the lowest id first."""
    following = {row.old_ctid: row for row in rows if row.old_ctid is not None}
    made = {row.new_ctid for row in rows if row.new_ctid is not None}
    chains: list[list[Captured]] = []
    for row in rows:
        if row.old_ctid is None or row.old_ctid not in made:
            chain = [row]
            # Taken out as they are followed, so that nonsense in the places cannot make us go round.
            while chain[-1].new_ctid is not None and (after := following.pop(chain[-1].new_ctid, None)):
                chain.append(after)
            chains.append(chain)
    chains.sort(key=lambda chain: min(row.outbox_id for row in chain))
    result = [row for chain in chains for row in chain]
    return result if len(result) == len(rows) else list(rows)


def missing_predecessors(rows: Sequence[Captured]) -> list[Captured]:
    """Nested rows whose predecessor may have a higher id than the batch reaches: look for it before routing them."""
    nested = [row for row in rows if row.depth > 1 and row.old_ctid is not None]
    made = {(row.xid, row.new_ctid) for row in rows} if nested else ()
    return [row for row in nested if (row.xid, row.old_ctid) not in made]


def owner_of(row: Captured) -> int | str | None:
    """Whose row this is, before names are resolved."""
    return row.organisation_id if row.organisation_id is not None else row.organisation


def dominant(rows: Sequence[Captured], share: int) -> list[int | str | None]:
    """The organisations that hold more than `share` of the rows."""
    return [owner for owner, count in Counter(owner_of(row) for row in rows).items() if count > share]


def by_turns(rows: Sequence[Captured]) -> list[Captured]:
    """The rows with the organisations in turn: the first of each, the second of each, and so on. Each one's keep their order."""
    seen: Counter[int | str | None] = Counter()
    turns: list[int] = []
    for row in rows:
        owner = owner_of(row)
        turns.append(seen[owner])
        seen[owner] += 1
    if len(seen) <= 1:
        return list(rows)
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]


def shared(
    rows: Sequence[Captured], others: Sequence[Captured], dominating: Collection[int | str | None], limit: int
) -> list[Captured]:
    """A batch of about `limit` rows in which the `others` go along and the `dominating` keep at least a quarter.

    `others` are the lowest rows of all other organisations, read after `rows`. Of each organisation a prefix in id
    order is taken and none is skipped, so that order per object holds.
    """
    taken = list(others[: limit - limit // 4])
    taken += [row for row in rows if owner_of(row) in dominating][: limit - len(taken)]
    return sorted(taken, key=lambda row: row.outbox_id)
