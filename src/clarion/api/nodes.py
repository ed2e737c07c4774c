"""Any object by its global name, `WebhookReceiver:1`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import strawberry

from clarion.api import described
from clarion.api.changes import find_change
from clarion.api.clients import find_client, find_key
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.api.egress import find_rule
from clarion.api.events import find_event
from clarion.api.headers import find_header
from clarion.api.history import find_history_entry
from clarion.api.organisations import find_organisation
from clarion.api.receivers import find_receiver
from clarion.api.resources import find_resource
from clarion.api.subscriptions import find_subscription
from clarion.registry.rows import not_found

FINDERS: Mapping[str, Callable[[Info, str], Awaitable[Node]]] = MappingProxyType(
    {
        "WebhookReceiver": find_receiver,
        "WebhookSubscription": find_subscription,
        "WebhookEvent": find_event,
        "WebhookEgressRule": find_rule,
        "WebhookHeader": find_header,
        "Resource": find_resource,
        "Change": find_change,
        "Client": find_client,
        "ApiKey": find_key,
        "Organisation": find_organisation,
        "HistoryEntry": find_history_entry,
    }
)


@strawberry.type
class NodeQueries:
    @described.field("An object by its type and id, as `WebhookReceiver:1`.")
    async def node(self, info: Info, id: strawberry.ID) -> Node | None:
        type_name, _, key = id.partition(":")
        finder = FINDERS.get(type_name)
        if finder is None:
            raise not_found("object", "id")
        return await finder(info, key)
