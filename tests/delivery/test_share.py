"""Shares of shards: whatever comes and goes, they become equal, and no shard ever has two owners."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clarion.core.ids import SHARDS_COUNT
from clarion.delivery.share import next_move, share_of

WORKERS = st.lists(st.integers(1, 1000), min_size=1, max_size=70, unique=True)


@given(workers=WORKERS, data=st.data())
def test_from_any_owners_and_in_any_turn_all_shards_come_to_be_shared_evenly(
    workers: list[int], data: st.DataObject
) -> None:
    owners: dict[int, int | None] = {
        shard: data.draw(st.sampled_from([None, *workers])) for shard in range(SHARDS_COUNT)
    }
    share = share_of(len(workers))
    for _ in range(6):
        # All decide from one view, as far apart as can be; then they act, in any order.
        moves = {worker: next_move(worker, workers, dict(owners)) for worker in workers}
        for worker in data.draw(st.permutations(workers)):
            for shard in moves[worker].release:
                assert owners[shard] == worker, "only what one owns can be released"
                owners[shard] = None
            for shard in moves[worker].claim:
                if owners[shard] is None:
                    owners[shard] = worker
        if all(not moves[worker].claim and not moves[worker].release for worker in workers):
            break
    for worker in workers:
        # In turn, as the last stragglers do.
        for shard in next_move(worker, workers, owners).claim:
            assert owners[shard] is None, "only a free shard is claimed"
            owners[shard] = worker
    assert None not in owners.values()
    assert all(list(owners.values()).count(worker) <= share for worker in workers)
    assert all(next_move(worker, workers, owners) == next_move(0, [0], {}) for worker in workers)


@given(workers=WORKERS, data=st.data())
def test_a_worker_never_asks_for_more_than_its_share_and_gives_no_more_than_the_surplus(
    workers: list[int], data: st.DataObject
) -> None:
    owners = {shard: data.draw(st.sampled_from([None, *workers])) for shard in range(SHARDS_COUNT)}
    for worker in workers:
        owned = list(owners.values()).count(worker)
        move = next_move(worker, workers, owners)
        assert owned + len(move.claim) - len(move.release) <= share_of(len(workers))
        assert not (move.claim and move.release)
        if move.release:
            assert owned - len(move.release) == share_of(len(workers))
