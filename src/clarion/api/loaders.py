"""Batches of reads: what the nodes of one level ask for one by one goes to the database in one statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection
from strawberry.dataloader import DataLoader

from clarion.access.clients import Client, clients_by_ids
from clarion.access.keys import ApiKey, keys_by_ids, keys_of_clients
from clarion.access.organisations import Organisation, organisations_by_ids
from clarion.access.principal import Principal
from clarion.api.session import Session
from clarion.core.ids import OrganisationId
from clarion.records.changes import Contents, RecordedChange, changes_by_positions, contents_of_changes
from clarion.records.trail import (
    Attempt,
    Event,
    attempts_of_events,
    events_by_ids,
    events_of_changes,
    events_of_subscriptions,
)
from clarion.registry.headers import Header, headers_by_ids, headers_of_receivers
from clarion.registry.receivers import Receiver, receivers_by_ids, reveal_secrets
from clarion.registry.subscriptions import (
    Activation,
    EvaluationErrors,
    Subscription,
    activations_of,
    evaluation_errors_of,
    subscriptions_by_ids,
    subscriptions_of_receivers,
)
from clarion.sender.seal import Sealer

CONTENTS_BYTES_MAX = 8 * 1024 * 1024
"""How much of rows one operation may answer with."""

Value = TypeVar("Value")
ById = Callable[[AsyncConnection, OrganisationId, list[int]], Awaitable[dict[int, Value]]]
ByParent = Callable[[AsyncConnection, OrganisationId, Sequence[int], int], Awaitable[dict[int, list[Value]]]]
Children = DataLoader[tuple[int, int], list[Value]]
"""Keyed by the parent's id and how many of its children are wanted."""


class Loaders:
    """One set for each operation, and a new one after each mutation: what was read before it may be old."""

    def __init__(self, session: Session, principal: Principal, sealer: Sealer) -> None:
        self._session = session
        self._principal = principal
        self._sealer = sealer
        self.client: DataLoader[int, Client | None] = self._by_id(clients_by_ids)
        self.key: DataLoader[int, ApiKey | None] = self._by_id(keys_by_ids)
        self.keys: Children[ApiKey] = self._by_parent(keys_of_clients)
        self.organisation: DataLoader[int, Organisation | None] = DataLoader(self._organisations)
        self.receiver: DataLoader[int, Receiver | None] = self._by_id(receivers_by_ids)
        self.subscription: DataLoader[int, Subscription | None] = self._by_id(subscriptions_by_ids)
        self.activation: DataLoader[int, Activation | None] = self._by_id(activations_of)
        self.evaluation_errors: DataLoader[int, EvaluationErrors | None] = self._by_id(evaluation_errors_of)
        self.event: DataLoader[int, Event | None] = self._by_id(
            lambda connection, _organisation_id, ids: events_by_ids(connection, principal, ids)
        )
        self.change: DataLoader[int, RecordedChange | None] = self._by_id(
            lambda connection, _organisation_id, positions: changes_by_positions(connection, principal, positions)
        )
        self._contents_bytes_left = CONTENTS_BYTES_MAX
        self.contents: DataLoader[int, Contents] = DataLoader(self._contents)
        self.secret: DataLoader[int, str | None] = DataLoader(self._reveal)
        self.subscriptions: Children[Subscription] = self._by_parent(subscriptions_of_receivers)
        self.header: DataLoader[int, Header | None] = self._by_id(headers_by_ids)
        self.headers: Children[Header] = self._by_parent(headers_of_receivers)
        self.events: Children[Event] = self._by_parent(
            lambda connection, _organisation_id, ids, first: events_of_subscriptions(connection, principal, ids, first)
        )
        self.events_of_change: Children[Event] = self._by_parent(
            lambda connection, _organisation_id, positions, first: events_of_changes(
                connection, principal, positions, first
            )
        )
        self.attempts: Children[Attempt] = self._by_parent(attempts_of_events)

    async def _contents(self, positions: list[int]) -> list[Contents]:
        """What changes changed; of changes that the principal may read, for nothing here asks whether it may."""
        async with self._session.reading() as connection:
            found, size = await contents_of_changes(
                connection, self._principal.organisation_id, positions, self._contents_bytes_left
            )
        self._contents_bytes_left -= size
        return [found[position] for position in positions]

    async def _organisations(self, ids: list[int]) -> list[Organisation | None]:
        async with self._session.reading() as connection:
            found = await organisations_by_ids(connection, self._principal, ids)
        return [found.get(one) for one in ids]

    async def _reveal(self, ids: list[int]) -> list[str | None]:
        # In a transaction of its own: the record of a reveal stays, whatever becomes of the operation's other reads.
        async with self._session.writing() as connection:
            revealed = await reveal_secrets(connection, self._principal, ids, self._sealer)
        return [revealed.get(one) for one in ids]

    def _by_id(self, fetch: ById[Value]) -> DataLoader[int, Value | None]:
        async def load(ids: list[int]) -> list[Value | None]:
            async with self._session.reading() as connection:
                found = await fetch(connection, self._principal.organisation_id, ids)
            return [found.get(one) for one in ids]

        return DataLoader(load)

    def _by_parent(self, fetch: ByParent[Value]) -> Children[Value]:
        async def load(keys: list[tuple[int, int]]) -> list[list[Value]]:
            found: dict[int, dict[int, list[Value]]] = {}
            async with self._session.reading() as connection:
                for first in {first for _parent, first in keys}:
                    parents = [parent for parent, wanted in keys if wanted == first]
                    found[first] = await fetch(connection, self._principal.organisation_id, parents, first)
            return [found[first].get(parent, []) for parent, first in keys]

        return DataLoader(load)
