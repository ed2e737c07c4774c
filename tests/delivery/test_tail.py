"""What is read next of the queue: a new claim from its start, by itself; then all together."""

from __future__ import annotations

from clarion.delivery.tail import Tail


def test_a_new_claim_is_read_from_the_start_without_reading_the_others_again() -> None:
    tail = Tail()
    tail.claimed({1, 2})
    tail.seen(tail.next(), 70, more=False)
    tail.claimed({3})
    catching_up = tail.next()
    assert (catching_up.shards, catching_up.after_queue_id) == ({3}, 0)
    tail.seen(catching_up, 40, more=True)
    assert (tail.next().shards, tail.next().after_queue_id) == ({3}, 40)
    tail.seen(tail.next(), None, more=False)
    assert (tail.next().shards, tail.next().after_queue_id) == ({1, 2, 3}, 70)


def test_a_shard_that_comes_back_begins_anew() -> None:
    tail = Tail()
    tail.claimed({1, 2})
    tail.seen(tail.next(), 70, more=False)
    tail.without({2})
    tail.claimed({2})
    assert (tail.next().shards, tail.next().after_queue_id) == ({2}, 0)
    tail.without({2})
    assert (tail.next().shards, tail.next().after_queue_id) == ({1}, 70)
    assert not tail.catching_up
