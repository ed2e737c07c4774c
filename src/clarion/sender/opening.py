"""How far the opening of a connection has come, and whose fault a deadline is that passes before the answer. Pure.

    waits for room ─▶ looks up the name ─▶ goes through the proxy ─▶ the receiver: TCP, TLS, request, answer

All before the last step is our side of it: a receiver answers for a deadline only if at least half of the attempt's time was its own.
"""

from __future__ import annotations

from collections.abc import Callable

from clarion.sender.outcome import Failure, Outcome


class Opening:
    """When one opening of a connection came how far, in monotonic nanoseconds; None: not yet."""

    __slots__ = ("_now_ns", "began_ns", "looked_up_ns", "reached_ns")

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.began_ns = now_ns()
        self.looked_up_ns: int | None = None
        self.reached_ns: int | None = None

    def looked_up(self) -> None:
        """The name's addresses are known."""
        self.looked_up_ns = self._now_ns()

    def reached(self) -> None:
        """From now on the receiver alone is waited for."""
        self.reached_ns = self._now_ns()

    def proxy_took_longest(self) -> bool:
        """Whether, of what follows the lookup, the proxy has taken the greater part by now."""
        if self.looked_up_ns is None or self.reached_ns is None:
            return False
        return self.reached_ns - self.looked_up_ns > self._now_ns() - self.reached_ns


def fault_of_ours(
    started_ns: int, deadline_ns: int, waiting_since_ns: int, opening: Opening | None, served_ns: int | None = None
) -> Failure | None:
    """What a deadline that passed is recorded as where our side had more than half of the time; None: the receiver had it.

    `started_ns` is when the attempt began, `waiting_since_ns` when it had no connection, `opening` the one that its
    connection came or is to come from. Without one it was given another's, at `served_ns`, or none.
    """
    if opening is None:
        room_ns = lookup_ns = proxy_ns = served_ns
    else:
        room_ns, lookup_ns, proxy_ns = opening.began_ns, opening.looked_up_ns, opening.reached_ns
    ends = [
        deadline_ns if end is None else min(max(end, waiting_since_ns), deadline_ns)
        for end in (room_ns, lookup_ns, proxy_ns)
    ]
    if proxy_ns is not None and 2 * (ends[-1] - waiting_since_ns) <= deadline_ns - started_ns:
        return None
    begins = [waiting_since_ns, *ends[:-1]]
    took_ns, (outcome, what) = max(
        ((end - begin, step) for begin, end, step in zip(begins, ends, _STEPS, strict=True)), key=lambda one: one[0]
    )
    limit_s = (deadline_ns - started_ns) // 1_000_000_000
    return Failure(outcome, f"{what} took {took_ns / 1e9:.1f} of the attempt's {limit_s} s", ours=True)


_STEPS = (
    (Outcome.OVERLOADED, "waiting for a free connection"),
    (Outcome.DNS_FAILED, "looking up the name"),
    (Outcome.PROXY_FAILED, "the egress proxy failed: connecting through it"),
)
