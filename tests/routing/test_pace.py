"""The router looks often while it is busy, and lets batches fill while many changes come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clarion.routing.pace import Pace, RouterPolicy

POLICY = RouterPolicy()
MS = 1_000_000


def pauses(looks: list[tuple[float, int]]) -> list[float]:
    """Pauses in ms after looks that each end so many ms after the one before and bring so many rows."""
    pace, now_ns, made = Pace(POLICY, 0), 0, []
    for after_ms, rows_count in looks:
        now_ns += round(after_ms * MS)
        made.append(pace.pause_s(now_ns, rows_count) * 1000)
    return made


def test_it_looks_every_ten_milliseconds_and_every_twenty_after_two_looks_that_found_nothing() -> None:
    assert pauses([(12, 3), (12, 0), (12, 2), (12, 0), (210, 0), (210, 0), (210, 1), (12, 0)]) == [
        10,
        10,
        10,
        10,
        20,
        20,
        10,
        10,
    ]


def test_batches_fill_from_the_second_look_on_that_brings_many() -> None:
    assert pauses([(12, 36), (12, 36), (22, 66), (22, 66), (22, 20), (22, 66)]) == [10, 20, 20, 20, 10, 10]


def test_a_burst_is_no_rate() -> None:
    assert pauses([(12, 1), (12, 100), (12, 1), (12, 100)]) == [10, 10, 10, 10]


@given(st.lists(st.floats(0.5, 200), min_size=1))
def test_up_to_a_thousand_a_second_nobody_waits_longer_however_irregular_the_looks_are(after_ms: list[float]) -> None:
    assert set(pauses([(ms, int(ms)) for ms in after_ms])) <= {10, 20 * (min(after_ms) < 1) or 10}
