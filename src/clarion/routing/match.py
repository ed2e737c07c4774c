"""Which subscriptions a change concerns. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clarion.ledger.change import Action


@dataclass(frozen=True, slots=True)
class Subscription:
    """An active subscription; `action` as the API spells it.

    `condition` and `template` are CEL; `fields` is a JSON array of the only fields that bodies show.
    """

    subscription_id: int
    organisation_id: int
    receiver_id: int
    resource: str
    action: str
    condition: str | None = None
    fields: str | None = None
    template: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether resource and action decide all: each change fires it, with the standard body."""
        return self.condition is None and self.fields is None and self.template is None


class Listening(NamedTuple):
    """Subscriptions for the same organisation, resource and action, by ascending id; `are_plain`: each of them is."""

    subscriptions: tuple[Subscription, ...]
    are_plain: bool


_NOBODY = Listening((), True)


class Index:
    """Active subscriptions by what they listen for."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self._asks = False
        found: defaultdict[tuple[int, str, str], list[Subscription]] = defaultdict(list)
        for subscription in subscriptions:
            key = (subscription.organisation_id, subscription.resource, Action[subscription.action].value)
            found[key].append(subscription)
            self._asks = self._asks or not subscription.is_plain
        self._found = {
            key: Listening(
                tuple(sorted(value, key=lambda s: s.subscription_id)),
                all(subscription.is_plain for subscription in value),
            )
            for key, value in found.items()
        }

    @property
    def asks(self) -> bool:
        """Whether any subscription asks for more than resource and action."""
        return self._asks

    def listening(self, organisation_id: int, resource: str, action: str) -> Listening:
        """Who listens for the change's kind; `action` is `c`, `u` or `d`."""
        return self._found.get((organisation_id, resource, action), _NOBODY)
