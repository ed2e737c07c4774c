"""Clients and API keys as the API shows them: to everybody a name, the rest to whoever may see clients."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry

from clarion.access import clients, keys
from clarion.access.keys import KeyStatus
from clarion.access.principal import Permission, Role
from clarion.api import described
from clarion.api.connection import Node
from clarion.api.context import Context, Info
from clarion.api.inputs import NESTED_DEFAULT, existing_key, nested_first
from clarion.api.values import ClientKind
from clarion.core.ids import ResourceName
from clarion.registry.rows import not_found

RESTRICTED = "For clients with `clients:read`, and of oneself; others get null and the error FORBIDDEN."


@strawberry.enum(description="What a client is there for. A role is a set of permissions.")
class ClientRole(Enum):
    ADMINISTRATOR = described.enum_value(Role.ADMINISTRATOR.value, "Everything, clients and keys included.")
    INTEGRATOR = described.enum_value(Role.INTEGRATOR.value, "Registers receivers and what they listen for.")
    OPERATOR = described.enum_value(
        Role.OPERATOR.value, "Keeps deliveries going: events, resources, egress rules; sees clients and history."
    )
    AUDITOR = described.enum_value(Role.AUDITOR.value, "Reads all, changes nothing.")


@strawberry.enum(description="Whether a key opens the API. Its client must be active as well.")
class ApiKeyStatus(Enum):
    ACTIVE = described.enum_value(KeyStatus.ACTIVE.value, "It may be used.")
    EXPIRED = described.enum_value(KeyStatus.EXPIRED.value, "Its `expires` has passed.")
    REVOKED = described.enum_value(KeyStatus.REVOKED.value, "Somebody took it back.")


@strawberry.type(description="A person or a machine of the organisation. Everybody sees its name and kind.")
class Client(Node):
    name: str = strawberry.field(description="Unique in the organisation.")
    kind: ClientKind = strawberry.field(description="Whether it is a person or a machine.")
    record: strawberry.Private[clients.Client]

    @described.field(f"What it may do. {RESTRICTED}")
    def role(self, info: Info) -> ClientRole | None:
        return ClientRole(self._seen(info).role)

    @described.field(f"While false its keys open nothing. {RESTRICTED}")
    def active(self, info: Info) -> bool | None:
        return self._seen(info).active

    @described.field(
        "The only resources whose changes and events it may see and subscribe to; null without an error: all, later ones "
        f"too. {RESTRICTED}"
    )
    def readable_resources(self, info: Info) -> list[ResourceName] | None:
        found = self._seen(info).readable_resources
        return None if found is None else [ResourceName(one) for one in found]

    @described.field(f"Resources that it may publish changes of although its role alone does not let it. {RESTRICTED}")
    def publishable_resources(self, info: Info) -> list[ResourceName] | None:
        return [ResourceName(one) for one in self._seen(info).publishable_resources]

    @described.field(f"Its API keys by id, revoked ones included. {RESTRICTED}")
    async def keys(self, info: Info, first: int = NESTED_DEFAULT) -> list[ApiKey] | None:
        self._seen(info)
        found = await info.context.loaders.keys.load((self.record.id, nested_first(first)))
        return [key_of(one) for one in found]

    @described.field(f"To be sent back with an update. {RESTRICTED}", name="_etag")
    def etag(self, info: Info) -> str | None:
        return self._seen(info).etag

    @described.field(f"When it was made. {RESTRICTED}")
    def created(self, info: Info) -> datetime | None:
        return self._seen(info).created

    @described.field(f"When it was last changed. {RESTRICTED}")
    def updated(self, info: Info) -> datetime | None:
        return self._seen(info).updated

    @described.field(f"Who made it; null for one that was made on the database itself. {RESTRICTED}")
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self._seen(info).created_by_id)

    @described.field(f"Who changed it last; null as for `createdBy`. {RESTRICTED}")
    async def updated_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self._seen(info).updated_by_id)

    def _seen(self, info: Info) -> clients.Client:
        """What is stored. Raises RequestRefused (FORBIDDEN) unless the caller may see it."""
        principal = info.context.principal
        if self.record.id != principal.client_id:
            principal.require(Permission.CLIENTS_READ)
        return self.record


@strawberry.type(
    description="A key of a client, by which the API knows it. The key itself is shown once, when it is made."
)
class ApiKey(Node):
    prefix: str = strawberry.field(description="How the key begins, to tell keys apart.")
    status: ApiKeyStatus = strawberry.field(description="Whether it opens the API, as of now.")
    created: datetime = strawberry.field(description="When it was made.")
    expires: datetime | None = strawberry.field(description="From when on it opens nothing; null: it does not expire.")
    last_used: datetime | None = strawberry.field(
        description="When it last opened the API, written about once a minute; null: not yet."
    )
    revoked: datetime | None = strawberry.field(description="When it was revoked; null: it was not.")
    etag: str = strawberry.field(name="_etag", description="To be sent back when it is revoked.")
    record: strawberry.Private[keys.ApiKey]

    @described.field("Whose key it is.")
    async def client(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.client_id)

    @described.field("Who made it; null for one that was made on the database itself.")
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)

    @described.field("Who revoked it; null if nobody did, or on the database itself.")
    async def revoked_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.revoked_by_id)


async def client_by_id(context: Context, client_id: int | None) -> Client | None:
    """The client behind a `createdBy` or `updatedBy`; None if there is none."""
    found = None if client_id is None else await context.loaders.client.load(client_id)
    return None if found is None else client_of(found)


async def find_client(info: Info, id: str) -> Client:
    """The client with this id. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`."""
    info.context.principal.require(Permission.CLIENTS_READ)
    found = await client_by_id(info.context, existing_key(id, "client", "id"))
    if found is None:
        raise not_found("client", "id")
    return found


async def find_key(info: Info, id: str) -> ApiKey:
    """The API key with this id. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`."""
    info.context.principal.require(Permission.CLIENTS_READ)
    found = await info.context.loaders.key.load(existing_key(id, "API key", "id"))
    if found is None:
        raise not_found("API key", "id")
    return key_of(found)


def client_of(record: clients.Client) -> Client:
    """The client's GraphQL object."""
    return Client(id=strawberry.ID(str(record.id)), name=record.name, kind=ClientKind(record.kind), record=record)


def key_of(record: keys.ApiKey) -> ApiKey:
    """The key's GraphQL object."""
    return ApiKey(
        id=strawberry.ID(str(record.id)),
        prefix=record.prefix,
        status=ApiKeyStatus(record.status.value),
        created=record.created,
        expires=record.expires,
        last_used=record.last_used,
        revoked=record.revoked,
        etag=record.etag,
        record=record,
    )
