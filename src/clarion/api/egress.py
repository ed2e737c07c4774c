"""Egress as the API shows it: the addresses that requests come from, and the rules for where they may go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from clarion.access.principal import Permission
from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Connection, Node, connection_of
from clarion.api.context import Info
from clarion.api.inputs import existing_key, given
from clarion.core.environments import EgressAddress, Environment
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SortKey, page_request
from clarion.registry import egress_rules
from clarion.registry.egress_rules import EgressRule


@strawberry.type(description="An address that requests come from.")
class WebhookEgressAddress:
    address: str
    cidr: str
    since: datetime | None = strawberry.field(name="from", description="Null: already.")
    until: datetime | None = strawberry.field(description="Null: no end is planned.")


@strawberry.type(description="Where an application runs, and the addresses that its webhooks come from.")
class WebhookEnvironment:
    name: str
    label: str
    urls: list[str]
    addresses: list[WebhookEgressAddress]


@strawberry.type(description="The addresses that requests come from, for firewalls of receivers.")
class WebhookEgress:
    environment: str | None
    fixed: bool = strawberry.field(
        description="Whether `addresses` is a promise; if not, requests may come from anywhere."
    )
    addresses: list[WebhookEgressAddress]
    environments: list[WebhookEnvironment]


@strawberry.type(description="An exception to the addresses that are forbidden, for receivers inside a network.")
class WebhookEgressRule(Node):
    environment: str
    host: str | None = strawberry.field(description="The name that it holds for; null: any, and literal addresses.")
    network: str
    port: int
    note: str
    etag: str = strawberry.field(name="_etag", description="To be sent back with a delete.")
    created: datetime
    record: strawberry.Private[EgressRule]

    @strawberry.field
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)


@strawberry.input
class CreateWebhookEgressRuleInput:
    network: str = strawberry.field(description="As 10.1.0.0/16 or 10.1.2.3/32.")
    port: int
    note: str = strawberry.field(description="What it is for.")
    host: str | None = strawberry.field(
        default=strawberry.UNSET, description="Only for this name; without it for any, and for literal addresses."
    )
    environment: str | None = strawberry.field(
        default=strawberry.UNSET, description="Where it holds; without it in the environment of this deployment."
    )


@strawberry.type
class WebhookEgressRulePayload:
    webhook_egress_rule: WebhookEgressRule


@strawberry.type
class DeletedWebhookEgressRule:
    id: strawberry.ID


@strawberry.type
class EgressQueries:
    @described.field("The addresses that requests come from; also at /.well-known/webhook-egress.json.")
    async def webhook_egress(self, info: Info) -> WebhookEgress:
        environments = info.context.services.environments
        own = environments.own
        return WebhookEgress(
            environment=None if own is None else own.name,
            fixed=environments.fixed,
            addresses=[_address(one) for one in environments.addresses],
            environments=[_environment(one) for one in environments.all],
        )

    @described.field("The exceptions to the addresses that are forbidden; for clients of organisation `default`.")
    async def webhook_egress_rules(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookEgressRule] | None:
        keys = pages.sort_keys(_SORTED, [])
        request = page_request(first, after, last, before)
        async with info.context.session.reading() as connection:
            page = await egress_rules.list_rules(connection, info.context.principal, keys, request)
        return connection_of(page, rule_of, egress_rules.count_rules)

    @described.field("One exception to the addresses that are forbidden; for clients of organisation `default`.")
    async def webhook_egress_rule(self, info: Info, id: strawberry.ID) -> WebhookEgressRule | None:
        return await find_rule(info, id)


@strawberry.type
class EgressMutations:
    @described.mutation(
        "Allow requests to addresses that are forbidden otherwise. It holds for all organisations, at once for "
        "registrations and within a second for requests. Loopback, link-local and metadata addresses cannot be allowed."
    )
    async def create_webhook_egress_rule(
        self, info: Info, input: CreateWebhookEgressRuleInput
    ) -> WebhookEgressRulePayload | None:
        context = info.context
        own = context.services.environment_name
        environment = egress_rules.check_environment(input.environment or own, own, context.services.environments)
        values: dict[str, Any] = egress_rules.check_rule(given(input, ("host", "network", "port", "note")))
        async with context.changing() as connection:
            record = await egress_rules.create_rule(connection, context.principal, environment, values)
        return WebhookEgressRulePayload(webhook_egress_rule=rule_of(record))

    @described.mutation("Take a rule back. Connections made under it end, and no request follows.")
    async def delete_webhook_egress_rule(
        self, info: Info, id: strawberry.ID, etag: str
    ) -> DeletedWebhookEgressRule | None:
        context = info.context
        key = existing_key(id, "webhook egress rule", "id")
        async with context.changing() as connection:
            await egress_rules.delete_rule(connection, context.principal, key, etag)
        return DeletedWebhookEgressRule(id=strawberry.ID(str(key)))


_SORTED = {"ID": SortKey("id", tables.egress_rules.c.id, False, pages.number)}


async def find_rule(info: Info, id: str) -> WebhookEgressRule:
    """The rule with this id. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`."""
    async with info.context.session.reading() as connection:
        await egress_rules.require_operator(connection, info.context.principal, Permission.WEBHOOKS_READ)
        key = existing_key(id, "webhook egress rule", "id")
        return rule_of(await egress_rules.find_rule(connection, key))


def rule_of(record: EgressRule) -> WebhookEgressRule:
    """The rule's GraphQL object."""
    return WebhookEgressRule(
        id=strawberry.ID(str(record.id)),
        environment=record.environment,
        host=record.host,
        network=record.network,
        port=record.port,
        note=record.note,
        etag=record.etag,
        created=record.created,
        record=record,
    )


def _environment(environment: Environment) -> WebhookEnvironment:
    return WebhookEnvironment(
        name=environment.name,
        label=environment.label,
        urls=list(environment.urls),
        addresses=[_address(one) for one in environment.addresses],
    )


def _address(one: EgressAddress) -> WebhookEgressAddress:
    return WebhookEgressAddress(address=str(one.address), cidr=one.cidr, since=one.since, until=one.until)
