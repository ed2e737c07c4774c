"""When a receiver that fails is left alone, and how it is tried again. Pure.

Closed, all requests pass and their outcomes are counted. Open, one probe at a time is sent, each later than the one
before; the first that succeeds closes it, and requests come back slowly: one at a time, then two, then four.
"""

from __future__ import annotations

from collections import deque

from clarion.core.clock import Random
from clarion.sender.outcome import Attempt, Outcome

FAILURES_IN_A_ROW = 10
"""Failures one after the other that open it."""
COUNTED_S = 60
ATTEMPTS_COUNTED_MIN = 20
"""Attempts of the last `COUNTED_S` seconds from which on a share of failures of one half opens it."""
PROBE_WAIT_FIRST_S = 5
PROBE_WAIT_MAX_S = 300
CONCURRENCY_MAX = 64
"""The largest concurrency that a receiver may have; a slow start ends there."""
TOO_MANY_REQUESTS = 429
_SUCCEEDED = Outcome.SUCCEEDED


def counts(attempt: Attempt) -> bool:
    """Whether the outcome says something about the receiver's health.

    A fault of our own does not, nor does a receiver that asks for quiet: 429, and 503 with Retry-After.
    """
    if attempt.outcome is _SUCCEEDED:
        return True
    return not attempt.ours and attempt.status_code != TOO_MANY_REQUESTS and attempt.retry_after_s is None


class Breaker:
    """The breaker of one receiver; times are monotonic nanoseconds, the waits between probes are spread by `random`.

    `is_open`: only probes may be sent. `concurrency`: how many requests may be under way as far as the slow start goes,
    in [1, 64]. Both are for reading.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures_in_a_row = 0
        self._seconds: deque[list[int]] = deque()  # [second, attempts, failures], oldest first; at most COUNTED_S + 1
        self.is_open = False
        self._probe_at_ns = 0
        self._probe_wait_s = PROBE_WAIT_FIRST_S
        self.concurrency = CONCURRENCY_MAX
        self._successes_in_round = 0

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds until the next request may be sent; 0 if it may be now."""
        return max(0, self._probe_at_ns - now_ns) if self.is_open else 0

    def finished(self, attempt: Attempt, now_ns: int) -> None:
        """Count the outcome of a request that was no probe. While open those sent before say nothing new."""
        failed = attempt.outcome is not _SUCCEEDED
        if self.is_open or (failed and not counts(attempt)):
            return
        self._count(now_ns // 1_000_000_000, failed=failed)
        if not failed:
            self._failures_in_a_row = 0
            if self.concurrency < CONCURRENCY_MAX:
                self._succeeded_in_round()
            return
        self._failures_in_a_row += 1
        self._successes_in_round = 0
        if self._failures_in_a_row >= FAILURES_IN_A_ROW or self._half_failed():
            self.is_open = True
            self._probe_wait_s = PROBE_WAIT_FIRST_S
            self._wait_for_probe(now_ns)

    def probed(self, attempt: Attempt, now_ns: int) -> None:
        """Take the outcome of a probe: close, or wait for the next, twice as long if the receiver failed."""
        if not self.is_open:
            return
        if attempt.outcome is _SUCCEEDED:
            self.close_slowly()
            return
        if counts(attempt):
            self._probe_wait_s = min(self._probe_wait_s * 2, PROBE_WAIT_MAX_S)
        self._wait_for_probe(now_ns)

    def open_for_probe(self, now_ns: int) -> None:
        """Open, with the first probe at once: it has failed for whoever served it before."""
        self.is_open = True
        self._probe_wait_s = PROBE_WAIT_FIRST_S
        self._probe_at_ns = now_ns

    def close_slowly(self) -> None:
        """Forget what was counted and begin with one request at a time."""
        self.is_open = False
        self._failures_in_a_row = 0
        self._seconds.clear()
        self.concurrency = 1
        self._successes_in_round = 0

    def _wait_for_probe(self, now_ns: int) -> None:
        self._probe_at_ns = now_ns + round(self._probe_wait_s * self._random.uniform(0.5, 1.5) * 1e9)

    def _succeeded_in_round(self) -> None:
        self._successes_in_round += 1
        if self._successes_in_round >= self.concurrency:
            self.concurrency *= 2
            self._successes_in_round = 0

    def _count(self, second: int, *, failed: bool) -> None:
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
            while self._seconds[0][0] <= second - COUNTED_S:
                self._seconds.popleft()
        counted = self._seconds[-1]
        counted[1] += 1
        counted[2] += failed

    def _half_failed(self) -> bool:
        attempts = sum(counted[1] for counted in self._seconds)
        return attempts >= ATTEMPTS_COUNTED_MIN and sum(counted[2] for counted in self._seconds) * 2 >= attempts
