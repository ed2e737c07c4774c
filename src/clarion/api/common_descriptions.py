"""Descriptions of what means the same wherever it stands in the schema, so that it is not said in fifty places.

What a type or field says of itself comes first. After that, in this order: `Type.field` in FIELDS; for an input the same field
of the object that it makes or changes; the name alone in ARGUMENTS or NAMES.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from graphql import GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema

ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "first": "How many entries from the start of the list, or after `after`: 1 to 100. A list of its own has 100 without it, one "
        "inside an object 20.",
        "after": "Only entries after the one with this `cursor`, in the same sort: for the next page the page's `endCursor`.",
        "last": "How many entries from the end of the list, or before `before`: 1 to 100; not together with `first`.",
        "before": "Only entries before the one with this `cursor`: for the page before this one its `startCursor`.",
        "filters": "Which entries are in the list; all without it.",
        "sort": "In which order the entries come: by the first given, equal ones by the next.",
        "id": "Which object, by its `id`.",
        "etag": "The object's `_etag` as it was last read. If somebody has changed the object since, the answer is CONFLICT.",
        "input": "The values, see the type.",
    }
)

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "id": "The object's key, a decimal number as text.",
        "created": "When it was made.",
        "updated": "When it was last changed.",
        "createdBy": "The client that made it; null if it came with the deployment.",
        "updatedBy": "The client that last changed it; null if none did.",
        "_etag": "Stands for the object's present state: to be sent back with a change or a delete.",
        "edges": "The page's entries, in the order of the list.",
        "pageInfo": "Where the page stands in the list, and how to go on.",
        "node": "The object.",
        "hasNextPage": "Whether the list goes on after this page. Ask for the next with `after: endCursor`.",
        "hasPreviousPage": "Whether there are entries before this page.",
        "startCursor": "The first entry's cursor, to be sent as `before` for the page before; null for an empty list.",
        "endCursor": "The last entry's cursor, to be sent as `after` for the next page; null for an empty list.",
        "eq": "Is this one.",
        "neq": "Is any but this one.",
        "in": "Is one of these, 100 at most; none is if the list is empty.",
        "warnings": "What the sender of the accepted input should know; mostly empty.",
    }
)

_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "id": "Which object, by its `id`.",
        "etag": "The object's `_etag` as it was last read. If somebody has changed the object since, the answer is CONFLICT.",
        "_etag": "The same as `etag`, under the name that it is read by: give exactly one of the two.",
    }
)

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "Client.id": "The client's key, a decimal number as text.",
        "Client.name": "What it is called, unique in its organisation.",
        "Client.kind": "Whether it is a person or a program.",
        "InputWarning.code": "What it is about, for programs, as `NAME_NOT_RESOLVED`.",
        "InputWarning.field": "The input that it is about, as `input.webhookUri`.",
        "InputWarning.message": "The same for people.",
        "Resource.name": "As in `ResourceEnum`, in plural.",
        "Resource.description": "What kind of objects it stands for.",
        "WebhookAttempt.number": "1 for the first attempt of its round, and so on.",
        "WebhookAttempt.startedAt": "When the request began.",
        "WebhookAttempt.durationMs": "From then to the end of the answer or the failure, in milliseconds.",
        "WebhookAttempt.outcome": "How it ended.",
        "WebhookAttempt.statusCode": "The HTTP status of the answer; null if there was none.",
        "WebhookAttempt.error": "What went wrong, for people; null if nothing did.",
        "WebhookAttempt.sourceAddress": "The address that the request came from; null if no connection was made.",
        "WebhookAttempt.peerAddress": "The address that the request went to; null if no connection was made.",
        "WebhookClientCertificate.subject": "Whose certificate it is.",
        "WebhookClientCertificate.issuer": "Which authority signed it.",
        "WebhookClientCertificate.notAfter": "When it runs out.",
        "WebhookClientCertificate.fingerprintSha256": "SHA-256 of the certificate in hexadecimal, to compare it with another.",
        "WebhookClientCertificate.pem": "The certificate and those between it and its authority, in PEM.",
        "WebhookEgress.environment": "The name of the environment that this deployment is; null if it is none of those listed.",
        "WebhookEgress.addresses": "Where this deployment's requests come from: what a receiver's firewall has to let in.",
        "WebhookEgress.environments": "All environments and the addresses that each sends from.",
        "WebhookEgressAddress.address": "The address alone, as `54.149.61.144`.",
        "WebhookEgressAddress.cidr": "The same as firewalls want it, as `54.149.61.144/32`.",
        "WebhookEgressRule.environment": "The environment that it holds in.",
        "WebhookEgressRule.network": "Addresses that requests may go to although they are forbidden otherwise, as `10.1.0.0/16`.",
        "WebhookEgressRule.port": "The only TCP port there, 1 to 65535.",
        "WebhookEgressRule.note": "What it is for.",
        "WebhookEnvironment.name": "The environment's name, as in the environments file.",
        "WebhookEnvironment.label": "What people call it.",
        "WebhookEnvironment.urls": "Where its application is found.",
        "WebhookEnvironment.addresses": "Where its requests come from.",
        "WebhookEvaluationErrors.lastAt": "When the latest of them was.",
        "WebhookEvent.status": "Where it is on its way.",
        "WebhookEvent.resource": "What kind of object was changed.",
        "WebhookEvent.action": "What happened to the object.",
        "WebhookEvent.objectId": "The object's key in the application, as text.",
        "WebhookEvent.settled": "When its outcome was final; null while it is open.",
        "WebhookEvent.receiver": "Where it is sent.",
        "WebhookHeader.receiverId": "The `id` of the receiver whose requests carry it.",
        "WebhookHeader.key": "The header's name, at most 200 characters. Names that HTTP or Clarion itself uses are refused.",
        "WebhookHeader.value": "What it says, as `Bearer …`. Kept sealed and never shown again.",
        "WebhookHeaderOnReceiver.key": "The header's name, at most 200 characters. Names that HTTP or Clarion itself uses are refused.",
        "WebhookHeaderOnReceiver.value": "What it says, as `Bearer …`. Kept sealed and never shown again.",
        "WebhookPreviewedChange.changeId": "The change's number in the organisation's ledger.",
        "WebhookPreviewedChange.objectId": "The changed object's key in the application, as text.",
        "WebhookPreviewedChange.outcome": "Whether it would have been sent.",
        "WebhookPreviewedChange.error": "Why the condition or the template had no result; null unless `outcome` is FAILED.",
        "WebhookReceiver.name": "What people call it, 1 to 200 characters.",
        "WebhookReceiver.description": "What it is for, at most 2,000 characters; null: nothing is said.",
        "WebhookReceiver.webhookUri": "Where requests go: an `https` URL.",
        "WebhookReceiver.contentType": "The `content-type` that requests carry.",
        "WebhookReceiver.expectedResponseCode": "The one status that counts as success; null: any from 200 to 299.",
        "WebhookReceiver.active": "Whether events are sent; while false they are HELD.",
        "WebhookReceiver.headers": "Headers that each request to it carries.",
        "WebhookReceiver.disabledReason": "Why it is not active; null while it is.",
        "WebhookReceiver.sharedSecret": "The key that requests are signed with: `whsec_` and base64, or a text of at least 24 characters.",
        "WebhookReceiver.retrySchedule": "Seconds before each attempt: 1 to 20 entries, the first 0, none over a day.",
        "WebhookReceiver.timeoutSeconds": "How long a request may take from connecting to the end of the answer, 1 to 30 seconds.",
        "WebhookReceiver.concurrency": "How many requests may be under way at once, 1 to 64.",
        "WebhookReceiver.rateLimitPerSecond": "How many requests may begin in a second; null: any number.",
        "WebhookReceiver.ordering": "Whether the events of one object wait for each other.",
        "WebhookReceiver.laneBlockMaxSeconds": "After this time a failing event no longer holds up its object's next ones; null: until "
        "it is settled.",
        "WebhookReceiver.signatures": "How requests are signed; at least one way.",
        "WebhookReceiverPayload.webhookReceiver": "The receiver as it is now.",
        "WebhookSubscription.resource": "The kind of objects that it is about.",
        "WebhookSubscription.action": "What has to happen to an object.",
        "WebhookSubscription.active": "Whether events are made.",
        "WebhookSubscription.receiverId": "The `id` of the receiver that its events are sent to.",
        "WebhookSubscription.receiver": "Where its events are sent.",
        "WebhookSubscription.expiresAfterSeconds": "Age at which an undelivered event is given up; null: never.",
        "WebhookSubscription.condition": "An expression (CEL) that must be true of a change; null: any change.",
        "WebhookSubscription.fields": "The only columns that bodies show; null: all.",
        "WebhookSubscription.template": "An expression (CEL) whose map is sent in place of the standard body; null: the standard body.",
        "WebhookSubscriptionPayload.webhookSubscription": "The subscription as it is now.",
        "WebhookHeaderPayload.webhookHeader": "The header as it is now.",
        "WebhookEventPayload.webhookEvent": "The event as it is now.",
        "WebhookEgressRulePayload.webhookEgressRule": "The rule as it is now.",
        "WebhookSubscriptionPreview.matchedCount": "How many of `changes` would have been sent.",
        "WebhookSubscriptionPreview.failedCount": "On how many of `changes` the expressions had no result.",
        "WebhookReceiversInputFilters.id": "By id.",
        "WebhookReceiversInputFilters.name": "By the whole name.",
        "WebhookReceiversInputFilters.webhookUri": "By the whole URL.",
        "WebhookReceiversInputFilters.active": "Active or not.",
        "WebhookSubscriptionsInputFilters.id": "By id.",
        "WebhookSubscriptionsInputFilters.receiverId": "By the receiver's id.",
        "WebhookSubscriptionsInputFilters.resource": "By the kind of object.",
        "WebhookSubscriptionsInputFilters.action": "By what has to happen.",
        "WebhookSubscriptionsInputFilters.active": "Active or not.",
        "WebhookEventsInputFilters.status": "By where it is on its way.",
        "WebhookEventsInputFilters.receiverId": "By the receiver's id.",
        "WebhookEventsInputFilters.subscriptionId": "By the subscription's id.",
        "WebhookEventsInputFilters.resource": "By the kind of object.",
        "WebhookEventsInputFilters.action": "By what happened to the object.",
        "WebhookEventsInputFilters.objectId": "By the object's key in the application. Give `resource`, too: keys repeat.",
    }
)

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "Query": "What can be read. Everything belongs to the organisation of the API key that asks.",
        "Mutation": "What can be changed. The mutations of a document run one after the other, each whole or not at all.",
        "CreateWebhookReceiverInput": "A receiver to be made; a name and a URL are enough.",
        "RotateWebhookReceiverSecretInput": "Which receiver is to have a new secret, and how long the former one still signs.",
        "CreateWebhookSubscriptionInput": "A subscription to be made.",
        "CreateWebhookHeaderInput": "A header to be made.",
        "CreateWebhookEgressRuleInput": "A rule to be made.",
        "WebhookReceiverTestPayload": "What became of a test.",
        "WebhookSubscriptionPreview": "What a subscription would have made of recent changes.",
    }
)

_OPERATION_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "change.id": "The change's position in the ledger.",
        "node.id": "Type and id of the object, as `WebhookReceiver:1`.",
        "previewWebhookSubscription.since": "Only changes recorded at this moment or later.",
        "previewWebhookSubscription.first": "How many changes are looked at, 1 to 100.",
    }
)

_INPUT_OF = re.compile(r"^(?:Create|Update|Rotate)(\w+?)(?:Secret)?Input$")


def complete(schema: GraphQLSchema) -> None:
    """Give what has no description in a schema that was just built the one that stands here."""
    for name, kind in schema.type_map.items():
        if name.startswith("__") or not isinstance(
            kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType
        ):
            continue
        kind.description = kind.description or _of_type(name)
        for field_name, field in kind.fields.items():
            is_input = isinstance(kind, GraphQLInputObjectType)
            field.description = field.description or _of_field(name, field_name, is_input=is_input)
            for argument_name, argument in getattr(field, "args", {}).items():
                argument.description = (
                    argument.description
                    or _OPERATION_ARGUMENTS.get(f"{field_name}.{argument_name}")
                    or ARGUMENTS.get(argument_name)
                )


def _of_type(name: str) -> str | None:
    if name in _TYPES:
        return _TYPES[name]
    if name.startswith("Deleted"):
        return "What was deleted."
    return "What was made or changed." if name.endswith("Payload") else None


def _of_field(kind: str, name: str, *, is_input: bool) -> str | None:
    if found := FIELDS.get(f"{kind}.{name}"):
        return found
    if kind.startswith("Deleted") and name == "id":
        return "The `id` of what was deleted."
    if is_input:
        if kind.startswith(("Update", "Rotate")) and name in _INPUTS:
            return _INPUTS[name]
        made = _INPUT_OF.match(kind)
        if made and (found := FIELDS.get(f"{made.group(1)}.{name}")):
            return found
    return NAMES.get(name)
