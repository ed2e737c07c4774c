"""What the contract says about a receiver that fails, written a second time: breaker, slow start, asked-for quiet, rate.

Deliberately simple and without the engine's random numbers: it knows the earliest moment of a probe, not the very one.
"""

from __future__ import annotations

from collections import deque

from clarion.core.clock import Now
from clarion.delivery.event import Event
from clarion.sender.outcome import Attempt, Outcome

SECOND_NS = 1_000_000_000
FAILURES_IN_A_ROW = 10
COUNTED_S = 60
COUNTED_MIN = 20
PROBE_WAITS_S = (5, 10, 20, 40, 80, 160, 300)
CONCURRENCY_MAX = 64
SENT_KEPT = 256


class Health:
    """One receiver as one engine must see it."""

    def __init__(self) -> None:
        self.open = False
        self.probe: Event | None = None
        self.probe_not_before_ns = 0
        self.probes_failed = 0
        self.quiet_until_ns = 0
        self.concurrency = CONCURRENCY_MAX
        self.sent_ns: deque[int] = deque(maxlen=SENT_KEPT)
        self._failures_in_a_row = 0
        self._successes = 0
        self._minute: deque[tuple[int, bool]] = deque()

    def sent(self, event: Event, in_flight: int, rate: int | None, now: Now) -> str | None:
        """Note a request, `in_flight` counting it; what is wrong with it."""
        if now.monotonic_ns < self.quiet_until_ns:
            return "sent while the receiver had asked for quiet"
        self.sent_ns.append(now.monotonic_ns)
        if rate is not None and (wrong := self._faster_than(rate)):
            return wrong
        if self.open:
            if self.probe is not None:
                return "a second probe of an open breaker"
            if now.monotonic_ns < self.probe_not_before_ns:
                return "sent before an open breaker's probe was due"
            self.probe = event
        elif in_flight > self.concurrency:
            return f"{in_flight} requests while a slow start allows {self.concurrency}"
        return None

    def finished(self, event: Event, attempt: Attempt, now: Now) -> bool:
        """Note an outcome; whether the request was a probe."""
        succeeded = attempt.outcome is Outcome.SUCCEEDED
        speaks = succeeded or not (attempt.ours or attempt.status_code == 429 or attempt.retry_after_s is not None)
        probe = event is self.probe
        if probe:
            self.probe = None
        if self.open and probe:
            if succeeded:
                self.close()
            else:
                self.probes_failed += speaks
                self._wait(now)
        elif not self.open and not probe and speaks:
            self._count(now, succeeded=succeeded)
        if attempt.retry_after_s is not None and not succeeded:
            self.quiet_until_ns = max(self.quiet_until_ns, now.monotonic_ns + attempt.retry_after_s * SECOND_NS)
        return probe

    def unsendable(self, event: Event) -> None:
        """The request was not made after all."""
        if event is self.probe:
            self.probe = None

    def activated(self) -> None:
        """Its owner put it back into service."""
        self.quiet_until_ns = 0
        self.close()

    def rate_changed(self) -> None:
        self.sent_ns.clear()

    def close(self) -> None:
        self.open = False
        self._failures_in_a_row = self._successes = 0
        self._minute.clear()
        self.concurrency = 1

    def _count(self, now: Now, *, succeeded: bool) -> None:
        second = now.monotonic_ns // SECOND_NS
        self._minute.append((second, not succeeded))
        while self._minute[0][0] <= second - COUNTED_S:
            self._minute.popleft()
        if succeeded:
            self._failures_in_a_row = 0
            self._successes += 1
            if self.concurrency < CONCURRENCY_MAX and self._successes == self.concurrency:
                self.concurrency, self._successes = self.concurrency * 2, 0
            return
        self._failures_in_a_row += 1
        self._successes = 0
        failures = sum(failed for _, failed in self._minute)
        if self._failures_in_a_row >= FAILURES_IN_A_ROW or (
            len(self._minute) >= COUNTED_MIN and failures * 2 >= len(self._minute)
        ):
            self.open = True
            self.probes_failed = 0
            self._wait(now)

    def _wait(self, now: Now) -> None:
        wait_s = PROBE_WAITS_S[min(self.probes_failed, len(PROBE_WAITS_S) - 1)]
        self.probe_not_before_ns = now.monotonic_ns + wait_s * SECOND_NS // 2

    def _faster_than(self, rate: int) -> str | None:
        """More than `rate` a second and a tenth of a second's burst, over any stretch that ends now."""
        sent = list(self.sent_ns)
        now_ns = sent[-1]
        for back, then_ns in enumerate(reversed(sent), start=1):
            allowed = 1 + max(rate / 10, 1) + (now_ns - then_ns) / SECOND_NS * rate
            if back > allowed + 0.01:
                return f"{back} requests in {(now_ns - then_ns) / SECOND_NS:.3f} s at a limit of {rate} a second"
        return None
