"""Which permission each operation needs: the one place that says so, checks it, and that the reference is made from.

What stands here is checked before the operation's own code runs. That code may ask for more, by the objects it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from graphql import GraphQLField, GraphQLSchema

from clarion.access.principal import Permission

OPERATIONS: Mapping[str, Permission] = MappingProxyType(
    {
        "createWebhookReceiver": Permission.WEBHOOKS_WRITE,
        "updateWebhookReceiver": Permission.WEBHOOKS_WRITE,
        "rotateWebhookReceiverSecret": Permission.WEBHOOKS_WRITE,
        "deleteWebhookReceiver": Permission.WEBHOOKS_WRITE,
        "testWebhookReceiver": Permission.WEBHOOKS_WRITE,
        "createWebhookHeader": Permission.WEBHOOKS_WRITE,
        "updateWebhookHeader": Permission.WEBHOOKS_WRITE,
        "deleteWebhookHeader": Permission.WEBHOOKS_WRITE,
        "createWebhookSubscription": Permission.WEBHOOKS_WRITE,
        "updateWebhookSubscription": Permission.WEBHOOKS_WRITE,
        "deleteWebhookSubscription": Permission.WEBHOOKS_WRITE,
        "cancelWebhookEvent": Permission.EVENTS_WRITE,
        "retryWebhookEvent": Permission.EVENTS_WRITE,
        "createWebhookEgressRule": Permission.EGRESS_WRITE,
        "deleteWebhookEgressRule": Permission.EGRESS_WRITE,
        "clients": Permission.CLIENTS_READ,
        "client": Permission.CLIENTS_READ,
        "apiKeys": Permission.CLIENTS_READ,
        "apiKey": Permission.CLIENTS_READ,
        "createClient": Permission.CLIENTS_WRITE,
        "updateClient": Permission.CLIENTS_WRITE,
        "createApiKey": Permission.CLIENTS_WRITE,
        "revokeApiKey": Permission.CLIENTS_WRITE,
        "createOrganisation": Permission.ORGANISATIONS_WRITE,
        "registerResource": Permission.RESOURCES_WRITE,
        "updateResource": Permission.RESOURCES_WRITE,
        "unregisterResource": Permission.RESOURCES_WRITE,
        "changes": Permission.CHANGES_READ,
        "change": Permission.CHANGES_READ,
        "history": Permission.HISTORY_READ,
    }
)
"""By the operation's name. A query that is not here is open to every client of the organisation, or decides by itself."""


def guard(schema: GraphQLSchema) -> None:
    """Make the operations of a schema that was just built check their permission, and their descriptions name it."""
    for root in (schema.query_type, schema.mutation_type):
        for name, field in (root.fields if root else {}).items():
            permission = OPERATIONS.get(name)
            if permission is not None:
                _guard(field, permission)


def _guard(field: GraphQLField, permission: Permission) -> None:
    inner = field.resolve
    if inner is None:
        raise AssertionError("an operation has a resolver")

    def resolve(source: Any, info: Any, **arguments: Any) -> Any:
        info.context.principal.require(permission)
        return inner(source, info, **arguments)

    field.resolve = resolve
    needed = f"`{permission}`"
    if needed not in (field.description or ""):
        field.description = f"{field.description or ''} Needs {needed}.".lstrip()
