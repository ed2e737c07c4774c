from __future__ import annotations

import random

import pytest

from proof.egress import two_samples_p


def test_samples_of_one_distribution_are_likely_and_shifted_ones_are_not() -> None:
    chance = random.Random(1)
    one, same = ([chance.gauss(250, 1) for _ in range(500)] for _ in range(2))
    assert two_samples_p(one, same) > 0.01
    assert two_samples_p(one, [value + 0.5 for value in same]) < 1e-3
    assert two_samples_p(one, one) == pytest.approx(1)
    # Often: below 0.01 in about one of a hundred.
    below = sum(
        two_samples_p([chance.random() for _ in range(100)], [chance.random() for _ in range(100)]) < 0.01
        for _ in range(500)
    )
    assert below <= 12
