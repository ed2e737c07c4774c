"""Which subscriptions a change concerns. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from clarion.ledger.change import Action

_ACTIONS = {"CREATE": Action.CREATE.value, "UPDATE": Action.UPDATE.value, "DELETE": Action.DELETE.value}


@dataclass(frozen=True, slots=True)
class Subscription:
    """An active subscription; `action` as the API spells it."""

    subscription_id: int
    organisation_id: int
    receiver_id: int
    resource: str
    action: str


class Index:
    """Active subscriptions by what they listen for."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        found: defaultdict[tuple[int, str, str], list[Subscription]] = defaultdict(list)
        for subscription in subscriptions:
            key = (subscription.organisation_id, subscription.resource, _ACTIONS[subscription.action])
            found[key].append(subscription)
        self._found = {key: tuple(sorted(value, key=lambda s: s.subscription_id)) for key, value in found.items()}

    def matching(self, organisation_id: int, resource: str, action: str) -> tuple[Subscription, ...]:
        """The subscriptions that the change fires, by ascending id; `action` is `c`, `u` or `d`."""
        return self._found.get((organisation_id, resource, action), ())
