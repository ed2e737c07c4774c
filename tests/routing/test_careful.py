"""Whatever kills the router, it gets past it: exactly the poisonous rows go unevaluated, everything is routed in order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from clarion.routing.careful import Marker, Portion, next_portion, still_waiting

BATCH_ROWS_MAX = 500
DEATHS_MAX_EACH = ceil(log2(BATCH_ROWS_MAX)) + 3
"""Of one poisonous row: two in the whole batch, one in each part that is bisected, two alone."""

Killing = Callable[[Portion], str]


@dataclass(slots=True)
class Story:
    """Routers that follow each other over the same waiting rows until all are routed; what the table keeps and what came of it."""

    waiting: list[int]
    poisonous: Collection[int]
    killing: Killing = lambda _: "nobody"
    marker: Marker | None = None
    evaluating: bool = False
    routed: list[int] = field(default_factory=list)
    unevaluated: list[int] = field(default_factory=list)
    deaths: int = 0

    def tell(self) -> None:
        while self.waiting:
            self._incarnation()

    def _incarnation(self) -> None:
        if self.evaluating:
            assert self.marker is not None
            self.marker = replace(self.marker, deaths=self.marker.deaths + 1)
        self.evaluating = False
        suspected = self.marker if self.marker and self.marker.deaths else None
        while self.waiting:
            found = tuple(i for i in suspected.outbox_ids if i in self.waiting) if suspected else ()
            lowest = tuple(self.waiting[:BATCH_ROWS_MAX])
            portion = next_portion(still_waiting(suspected, found) if suspected and found else Marker(lowest))
            ids = portion.marker.outbox_ids
            killed_when = self.killing(portion)
            if killed_when == "before":
                return
            if portion.evaluated:
                self.marker, self.evaluating = portion.marker, True
                if killed_when == "during" or not set(ids).isdisjoint(self.poisonous):
                    self.deaths += 1
                    return
                self.marker, self.evaluating = None, False
            else:
                self.unevaluated += ids
            if killed_when == "after":
                self.unevaluated = [i for i in self.unevaluated if i in self.routed]
                return
            self.waiting = [i for i in self.waiting if i not in ids]
            self.routed += ids
            suspected = portion.rest


@given(st.integers(1, 1200), st.sets(st.integers(1, 1200), max_size=6))
def test_exactly_the_poisonous_rows_go_unevaluated_and_all_are_routed_in_order(count: int, poisonous: set[int]) -> None:
    poisonous = {row for row in poisonous if row <= count}
    story = Story(list(range(1, count + 1)), poisonous)
    story.tell()
    assert story.routed == list(range(1, count + 1))
    assert story.unevaluated == sorted(poisonous)
    assert story.deaths <= DEATHS_MAX_EACH * len(poisonous)


@given(
    st.integers(1, 600),
    st.sets(st.integers(1, 600), max_size=3),
    st.lists(st.sampled_from(["before", "during", "after", "nobody"]), max_size=60),
)
def test_kills_from_outside_mark_no_innocent_row(count: int, poisonous: set[int], kills: list[str]) -> None:
    poisonous = {row for row in poisonous if row <= count}
    left = iter(kills)
    alone: set[int] = set()

    def killing(portion: Portion) -> str:
        when = next(left, "nobody")
        # Twice from outside while it evaluates the same row alone cannot be told from a row that kills.
        if when == "during" and len(portion.marker.outbox_ids) == 1:
            row = portion.marker.outbox_ids[0]
            when = "nobody" if row in alone else when
            alone.add(row)
        return when

    story = Story(list(range(1, count + 1)), poisonous, killing)
    story.tell()
    assert story.routed == list(range(1, count + 1))
    assert story.unevaluated == sorted(poisonous)


def test_two_kills_in_one_full_batch_end_in_small_batches_and_nothing_else() -> None:
    kills = iter(["during", "during"])
    sizes = []

    def killing(portion: Portion) -> str:
        sizes.append(len(portion.marker.outbox_ids))
        return next(kills, "nobody")

    story = Story(list(range(1, 501)), (), killing)
    story.tell()
    assert sizes == [500, 500, 250, 125, 62, 31, 16, 8, 4, 2, 1, 1]
    assert story.unevaluated == []


def test_a_death_in_part_of_the_rows_leaves_no_suspicion_on_the_others() -> None:
    portion = next_portion(Marker(tuple(range(10)), 2))
    assert portion == Portion(Marker((0, 1, 2, 3, 4), 1), True, Marker((5, 6, 7, 8, 9), 2))
    assert next_portion(replace(portion.marker, deaths=2)).rest == Marker((2, 3, 4), 2)


def test_deaths_stand_against_the_rows_they_happened_in_and_no_others() -> None:
    assert still_waiting(Marker((1, 2), 2), (2,)) == Marker((2,), 0)
    assert next_portion(Marker((2,), 0)).evaluated
    assert next_portion(Marker((2,), 1)).evaluated
    assert not next_portion(Marker((2,), 2)).evaluated
