"""The demo's receivers and subscriptions, made through the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clarion.cli.graphql import GraphQL
from clarion.demo.integration import Integration
from clarion.demo.teams import CARD_ACCEPTED

_RECEIVERS: Final = """
query Receivers($after: String, $names: [String!]) {
  webhookReceivers(first: 100, after: $after, filters: {name: {in: $names}}) {
    edges { node { id _etag } } pageInfo { hasNextPage endCursor }
  }
}"""
_DELETE: Final = "mutation Delete($id: ID!, $etag: String!) { deleteWebhookReceiver(id: $id, etag: $etag) { id } }"
_CREATE_RECEIVER: Final = """
mutation CreateWebhookReceiver($input: CreateWebhookReceiverInput!) {
  createWebhookReceiver(input: $input) { webhookReceiver { id sharedSecret } }
}"""
_CREATE_SUBSCRIPTION: Final = """
mutation CreateWebhookSubscription($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) { webhookSubscription { id } }
}"""


@dataclass(frozen=True, slots=True)
class Registered:
    """An integration as the API knows it; `secret` is shown once, when its receiver is made."""

    integration: Integration
    receiver_id: str
    subscription_id: int
    secret: str


def register(api: GraphQL, base_uri: str, integrations: Sequence[Integration]) -> dict[str, Registered]:
    """Receivers below `base_uri`, one for each integration, by their path.

    Those of an earlier run are deleted first: their address is gone, and their history stays. Raises ApiRefused.
    """
    names = [integration.receiver_name for integration in integrations]
    for old in api.nodes(_RECEIVERS, "webhookReceivers", names=names):
        api.run(_DELETE, id=old["id"], etag=old["_etag"])
    return {integration.path: _register(api, base_uri, integration) for integration in integrations}


def _register(api: GraphQL, base_uri: str, integration: Integration) -> Registered:
    wanted: dict[str, object] = {
        "name": integration.receiver_name,
        "description": integration.purpose,
        "webhookUri": f"{base_uri}/{integration.path}",
    }
    if integration.template is not None:
        wanted["expectedResponseCode"] = CARD_ACCEPTED
    receiver = api.run(_CREATE_RECEIVER, input=wanted)["createWebhookReceiver"]["webhookReceiver"]
    subscribed = {
        "receiverId": receiver["id"],
        "resource": integration.resource,
        "action": integration.action,
        "condition": integration.condition,
        "template": integration.template,
    }
    subscription = api.run(_CREATE_SUBSCRIPTION, input=subscribed)["createWebhookSubscription"]["webhookSubscription"]
    return Registered(integration, receiver["id"], int(subscription["id"]), receiver["sharedSecret"])
