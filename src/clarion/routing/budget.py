"""How much of the router's time expressions may take. Pure.

What is cheap is free, however often it is asked: a condition of ordinary length takes a few microseconds. What is dear is paid
from an allowance that fills up again with time, one for each subscription and one for each organisation; when it is spent, dear
expressions are passed over and counted as failed until there is some again. So nobody's expression can hold up the others' changes.
"""

from __future__ import annotations

CHEAP_NS = 250_000
"""What one evaluation may take without paying."""

CHARGE_MAX_NS = 100_000_000
"""The most that one evaluation pays: a process that was suspended meanwhile is not its fault."""

SUBSCRIPTION_NS = 250_000_000
SUBSCRIPTION_PER_S_NS = 25_000_000
ORGANISATION_NS = 1_000_000_000
ORGANISATION_PER_S_NS = 100_000_000


class _Allowance:
    __slots__ = ("_at_ns", "_full_ns", "_left_ns", "_per_s_ns")

    def __init__(self, full_ns: int, per_s_ns: int, now_ns: int) -> None:
        self._full_ns, self._per_s_ns = full_ns, per_s_ns
        self._left_ns, self._at_ns = full_ns, now_ns

    def left_ns(self, now_ns: int) -> int:
        gained_ns = (now_ns - self._at_ns) * self._per_s_ns // 1_000_000_000
        if gained_ns:
            self._left_ns = min(self._full_ns, self._left_ns + gained_ns)
            self._at_ns = now_ns
        return self._left_ns

    def pay(self, ns: int, now_ns: int) -> None:
        self._left_ns = self.left_ns(now_ns) - ns


class Budget:
    """What is left to those who ever were dear; the others need no entry."""

    def __init__(self) -> None:
        self._subscriptions: dict[int, _Allowance] = {}
        self._organisations: dict[int, _Allowance] = {}

    def is_free(self, subscription_id: int) -> bool:
        """Whether the subscription owes nothing, so that it is allowed everything."""
        return subscription_id not in self._subscriptions

    def allows(self, organisation_id: int, subscription_id: int, now_ns: int) -> bool:
        """Whether the subscription's expressions may be evaluated now."""
        subscription = self._subscriptions.get(subscription_id)
        if subscription is None:
            return True
        left_ns = subscription.left_ns(now_ns)
        if left_ns <= 0:
            return False
        if left_ns >= SUBSCRIPTION_NS:
            del self._subscriptions[subscription_id]
            return True
        # One that was slow once, because the machine was, is not one of those that use up its organisation's allowance.
        is_dear = left_ns < SUBSCRIPTION_NS * 3 // 4
        return not is_dear or self._organisations[organisation_id].left_ns(now_ns) > 0

    def took(self, organisation_id: int, subscription_id: int, ns: int, now_ns: int) -> None:
        """An evaluation took so long."""
        if ns <= CHEAP_NS:
            return
        charge_ns = min(ns - CHEAP_NS, CHARGE_MAX_NS)
        self._subscriptions.setdefault(subscription_id, _Allowance(SUBSCRIPTION_NS, SUBSCRIPTION_PER_S_NS, now_ns)).pay(
            charge_ns, now_ns
        )
        self._organisations.setdefault(organisation_id, _Allowance(ORGANISATION_NS, ORGANISATION_PER_S_NS, now_ns)).pay(
            charge_ns, now_ns
        )
