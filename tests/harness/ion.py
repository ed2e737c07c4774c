"""The operations that integrators of ION know, exactly as they are written there."""

from __future__ import annotations

CREATE_RECEIVER = """
mutation CreateWebhookReceiver($input: CreateWebhookReceiverInput!) {
  createWebhookReceiver(input: $input) {
    webhookReceiver {
      id name description webhookUri sharedSecret contentType expectedResponseCode
      active subscriptions { resource action id } headers { key value id }
    }
  }
}
"""

CREATE_SUBSCRIPTION = """
mutation CreateWebhookSubscription($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) {
    webhookSubscription { resource action id active receiverId events { id status } }
  }
}
"""

RECEIVERS = "{ webhookReceivers { edges { node { sharedSecret id webhookUri _etag name } } } }"

SUBSCRIPTIONS = """
{ webhookSubscriptions { edges { node {
    id action resource createdBy { id name } receiver { id description name webhookUri } } } } }
"""

EXAMPLE = {"name": "Our example server", "webhookUri": "https://whoknows.where.this.leads"}
