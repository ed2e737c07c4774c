"""Requests per second to one receiver. Pure."""

from __future__ import annotations


class RateLimit:
    """Evenly spaced permits with a burst of a tenth of a second.

    Source: the generic cell rate algorithm (ITU-T I.371), as a virtual schedule.
    """

    def __init__(self, per_second: int) -> None:
        self._interval_ns = 1_000_000_000 // per_second
        self._burst_ns = max(self._interval_ns, 100_000_000) - self._interval_ns
        self._due_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds until the next permit; 0 if there is one now."""
        return max(0, self._due_ns - self._burst_ns - now_ns)

    def take(self, now_ns: int) -> None:
        """Use the permit that `wait_ns` found."""
        self._due_ns = max(self._due_ns, now_ns) + self._interval_ns
