"""Time and chance, handed down from the composition root (`clarion.core.system` has the real ones)."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec


class Now(msgspec.Struct, frozen=True, gc=False):
    """One reading of the clock.

    `monotonic_ns` is for waits; `wall` is aware UTC, for records.
    """

    monotonic_ns: int
    wall: datetime


class Clock(Protocol):
    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never runs backwards, may stop during suspension."""
        ...

    def cpu_ns(self) -> int:
        """Nanoseconds that this thread has worked; dearer to ask for than the others."""
        ...

    def lease_ns(self) -> int:
        """Nanoseconds since an arbitrary start, running through suspension where the system can tell."""
        ...

    def wall(self) -> datetime:
        """Aware UTC: the monotonic clock plus the offset learned from the database."""
        ...

    def now(self) -> Now:
        """Both readings of one moment."""
        ...

    def learn_wall(self, wall: datetime) -> None:
        """Take the database's time as the present, so that all hosts agree."""
        ...


class Random(Protocol):
    def uniform(self, low: float, high: float) -> float:
        """A number drawn evenly from [low, high]."""
        ...

    def token(self, bytes_count: int) -> bytes:
        """Unpredictable bytes."""
        ...
