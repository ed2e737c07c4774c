"""How much a client and its organisation may ask for: token buckets in points, exact, in memory, with the time handed in.

A client has a bucket that holds a burst and fills at a steady rate; all clients of an organisation share another, five
times as large. A request takes its points from both or from neither. Work that had to be done to find out what a request
costs is owed where the points do not suffice: otherwise whoever has none left could have it done for nothing, again and
again. The counts are this process's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

ORGANISATION_SHARE = 5
"""How many times a client's points all clients of its organisation have together."""

ENTRIES_MAX = 20_000
"""Buckets kept of each kind. The one that was longest unused is forgotten first; it was most likely full."""

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Quota:
    """Points that come back each second, and the most that there can be at once; both at least 1."""

    points_per_second: int
    burst: int

    def times(self, share: int) -> Quota:
        return Quota(self.points_per_second * share, self.burst * share)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a client stands after it asked for points: what is left of how many, and when all are back.

    `retry_after_s` is None if it got them, otherwise after how many seconds it would, at least 1.
    """

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int | None = None


@dataclass(slots=True)
class _Bucket:
    level: int
    """In billionths of a point: what a nanosecond brings back is the rate, a whole number."""
    at_ns: int


class Buckets:
    """One bucket for each name, full when first asked of."""

    def __init__(self, quota: Quota, entries_max: int = ENTRIES_MAX) -> None:
        self.quota = quota
        self._entries_max = entries_max
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def level(self, name: Hashable, now_ns: int) -> int:
        """What the bucket holds, in billionths of a point; below 0 what is owed."""
        bucket = self._buckets.get(name)
        if bucket is None:
            return self.quota.burst * _NS
        gained = max(now_ns - bucket.at_ns, 0) * self.quota.points_per_second
        return min(bucket.level + gained, self.quota.burst * _NS)

    def wait_ns(self, name: Hashable, points: int, now_ns: int) -> int:
        """Until the bucket holds so many points, or is full: 0 if it does now."""
        missing = min(points, self.quota.burst) * _NS - self.level(name, now_ns)
        return max(-(-missing // self.quota.points_per_second), 0)

    def take(self, name: Hashable, points: int, now_ns: int) -> None:
        """Take so many points, or what there is."""
        self._put(name, max(self.level(name, now_ns) - points * _NS, 0), now_ns)

    def owe(self, name: Hashable, points: int, now_ns: int) -> None:
        """Take so many points, more than there are if need be, down to as many below nothing as it can hold."""
        self._put(name, max(self.level(name, now_ns) - points * _NS, -self.quota.burst * _NS), now_ns)

    def _put(self, name: Hashable, level: int, now_ns: int) -> None:
        self._buckets[name] = _Bucket(level, now_ns)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._entries_max:
            self._buckets.popitem(last=False)

    def standing(self, name: Hashable, now_ns: int) -> Standing:
        level = self.level(name, now_ns)
        return Standing(self.quota.burst, max(level, 0) // _NS, seconds(self.wait_ns(name, self.quota.burst, now_ns)))


class RateLimiter:
    """The buckets of all clients and organisations."""

    def __init__(self, quota: Quota, entries_max: int = ENTRIES_MAX) -> None:
        self._clients = Buckets(quota, entries_max)
        self._organisations = Buckets(quota.times(ORGANISATION_SHARE), entries_max)

    def charge(self, client_id: int, organisation_id: int, points: int, now_ns: int) -> Standing:
        """Take the points if both the client and its organisation have them; nobody is asked for more than a full bucket."""
        wait_ns = self._wait_ns(client_id, organisation_id, points, now_ns)
        if wait_ns > 0:
            return self._standing(client_id, organisation_id, now_ns, seconds(wait_ns))
        self._clients.take(client_id, points, now_ns)
        self._organisations.take(organisation_id, points, now_ns)
        return self._standing(client_id, organisation_id, now_ns, None)

    def owe(self, client_id: int, organisation_id: int, points: int, wanted: int, now_ns: int) -> Standing:
        """Take the points for work that is done, whether they are there or not, and tell when `wanted` can be had."""
        self._clients.owe(client_id, points, now_ns)
        self._organisations.owe(organisation_id, points, now_ns)
        wait_ns = self._wait_ns(client_id, organisation_id, wanted, now_ns)
        return self._standing(client_id, organisation_id, now_ns, max(seconds(wait_ns), 1))

    def _wait_ns(self, client_id: int, organisation_id: int, points: int, now_ns: int) -> int:
        return max(
            self._clients.wait_ns(client_id, points, now_ns),
            self._organisations.wait_ns(organisation_id, points, now_ns),
        )

    def _standing(self, client_id: int, organisation_id: int, now_ns: int, retry_after_s: int | None) -> Standing:
        client = self._clients.standing(client_id, now_ns)
        organisation = self._organisations.standing(organisation_id, now_ns)
        return Standing(client.limit, min(client.remaining, organisation.remaining), client.reset_s, retry_after_s)


def seconds(ns: int) -> int:
    """Whole seconds, rounded up."""
    return -(-ns // _NS)


class Strangers:
    """Addresses from which unknown keys came, each of which costs a look into the database.

    An address that has used up its share is not looked up for, except for keys that were good lately: whoever guesses
    keys behind the same proxy keeps nobody out who was in.
    """

    def __init__(self, quota: Quota, entries_max: int = ENTRIES_MAX) -> None:
        self._addresses = Buckets(quota, entries_max)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._entries_max = entries_max

    def wait_s(self, address: str | None, hashed: bytes, now_ns: int) -> int:
        """Seconds until this key from this address is looked up again; 0: now."""
        return 0 if hashed in self._good else seconds(self._addresses.wait_ns(address, 1, now_ns))

    def unknown(self, address: str | None, hashed: bytes, now_ns: int) -> None:
        """A key was looked up in vain."""
        self._good.pop(hashed, None)
        self._addresses.take(address, 1, now_ns)

    def known(self, hashed: bytes) -> None:
        """A key was found."""
        self._good[hashed] = None
        self._good.move_to_end(hashed)
        if len(self._good) > self._entries_max:
            self._good.popitem(last=False)
