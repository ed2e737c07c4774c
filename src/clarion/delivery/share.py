"""Which shards a worker takes and gives, so that all workers come to equal shares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clarion.core.ids import SHARDS_COUNT


@dataclass(frozen=True, slots=True)
class Move:
    """What one worker does next: shards to try for, and shards to drain and then give up. One of the two is empty."""

    claim: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def share_of(workers_count: int) -> int:
    """How many shards one of so many live workers may own: ceil(64 / workers)."""
    return -(-SHARDS_COUNT // workers_count)


def next_move(worker_id: int, workers: Sequence[int], owners: Mapping[int, int | None]) -> Move:
    """The worker's move towards its share, given the live workers and each shard's owner (None: free).

    Workers decide for themselves, from a view that others may have changed meanwhile: a claim counts only where the
    shard is still free when it is made. Each begins at another place of the free ones, so that they seldom collide.
    """
    share = share_of(len(workers))
    mine = sorted(shard for shard, owner in owners.items() if owner == worker_id)
    if len(mine) > share:
        return Move(release=tuple(mine[share:]))
    free = sorted(shard for shard, owner in owners.items() if owner is None)
    if not free:
        return Move()
    begin = sorted(workers).index(worker_id) * len(free) // len(workers)
    return Move(claim=tuple((free[begin:] + free[:begin])[: share - len(mine)]))
