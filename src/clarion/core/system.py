"""The real clock and the real random source. Only the composition root and the command line import this."""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime, timedelta

from clarion.core.clock import Now

_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Reads the operating system; `learn_wall` shifts the wall reading only."""

    def __init__(self) -> None:
        self._wall_at_zero = datetime.now(UTC) - timedelta(0, 0, time.monotonic_ns() // 1000)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def cpu_ns(self) -> int:
        return time.thread_time_ns()

    def lease_ns(self) -> int:
        return time.clock_gettime_ns(_LEASE_CLOCK)

    def wall(self) -> datetime:
        return self._wall_at_zero + timedelta(0, 0, time.monotonic_ns() // 1000)

    def now(self) -> Now:
        monotonic_ns = time.monotonic_ns()
        return Now(monotonic_ns, self._wall_at_zero + timedelta(0, 0, monotonic_ns // 1000))

    def learn_wall(self, wall: datetime) -> None:
        self._wall_at_zero = wall - timedelta(0, 0, time.monotonic_ns() // 1000)


class SystemRandom:
    """Jitter from a seeded-by-the-system generator, tokens from the system's secure source."""

    def __init__(self) -> None:
        self._generator = random.Random()  # noqa: S311 - spreads retries, guards nothing

    def uniform(self, low: float, high: float) -> float:
        return self._generator.uniform(low, high)

    def token(self, bytes_count: int) -> bytes:
        return secrets.token_bytes(bytes_count)
