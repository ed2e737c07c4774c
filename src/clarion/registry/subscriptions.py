"""Subscriptions: resource and action for one receiver. Two equal ones are allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.errors import RequestRefused
from clarion.core.ids import ClientId, OrganisationId, ReceiverId, ResourceName, SubscriptionId
from clarion.database import tables
from clarion.database.filters import Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of
from clarion.registry import expressions, fields, rights, rows
from clarion.registry.fields import Field

OBJECT_TYPE = "WebhookSubscription"
ACTIONS = ("CREATE", "UPDATE", "DELETE")


FIELDS: tuple[Field, ...] = (
    Field("resource", "resource", lambda value, _field: value),
    Field("action", "action", fields.one_of(*ACTIONS)),
    Field("active", "active", fields.flag),
    Field("expires_after_seconds", "expiresAfterSeconds", fields.whole_number(1, fields.MONTH_SECONDS), nullable=True),
    Field("condition", "condition", expressions.expression, nullable=True),
    Field("fields", "fields", expressions.chosen_fields, nullable=True),
    Field("template", "template", expressions.expression, nullable=True),
)
_EXPRESSED = ("resource", "action", "condition", "fields", "template")
"""What decides whether expressions go with the rows."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as stored."""

    id: SubscriptionId
    organisation_id: OrganisationId
    receiver_id: ReceiverId
    resource: ResourceName
    action: str
    active: bool
    expires_after_seconds: int | None
    condition: str | None
    fields: list[str] | None
    template: str | None
    etag: str
    created: datetime
    updated: datetime
    created_by_id: ClientId | None
    updated_by_id: ClientId | None
    deleted: datetime | None


@dataclass(frozen=True, slots=True)
class Activation:
    """From which ledger position on the router matched a subscription, and before which; None: until now."""

    from_position: int
    until_position: int | None


async def create_subscription(
    connection: AsyncConnection, principal: Principal, receiver_id: int, given: Mapping[str, Any]
) -> Subscription:
    """The new subscription. `given` has values by column.

    Raises RequestRefused: FORBIDDEN (on `input.resource` if the client or the receiver may not read it), NOT_FOUND on
    `input.receiverId`, INVALID_INPUT naming the input.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    values = fields.checked(FIELDS, given)
    receiver = await rows.locked_receiver(connection, principal, receiver_id, "input.receiverId", shared=True)
    _check_rights(principal, receiver, values["resource"])
    await _check(connection, values)
    row = (
        await connection.execute(
            insert(tables.subscriptions)
            .values(
                organisation_id=principal.organisation_id,
                receiver_id=receiver_id,
                created_by_id=principal.client_id,
                updated_by_id=principal.client_id,
                **values,
            )
            .returning(*_COLUMNS)
        )
    ).one()
    subscription = _subscription(row)
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(subscription.id), after=_shown(subscription))]
    )
    return subscription


async def update_subscription(
    connection: AsyncConnection, principal: Principal, subscription_id: int, etag: str, given: Mapping[str, Any]
) -> Subscription:
    """The subscription after the change; what it does not name stays. Nothing is written if nothing differs.

    Raises RequestRefused: FORBIDDEN (on `input.id` for one on a resource that the client may not read, on `input.resource` for
    a new one that it or the receiver may not), NOT_FOUND on `input.id`, CONFLICT on `input.etag`, INVALID_INPUT.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    values = fields.checked(FIELDS, given)
    before, receiver = await _locked(connection, principal, subscription_id, "input.id")
    principal.require_read(before.resource, "input.id")
    rows.compare_etag(before.etag, etag, "webhook subscription", "input.etag")
    values = {column: value for column, value in values.items() if getattr(before, column) != value}
    if not values:
        return before
    if "resource" in values:
        _check_rights(principal, receiver, values["resource"])
    if values.keys() & set(_EXPRESSED):
        await _check(connection, {name: getattr(before, name) for name in _EXPRESSED} | values)
    subscriptions = tables.subscriptions
    written = await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id, subscriptions.c.organisation_id == principal.organisation_id)
        .values(**values, **rows.changed_by(principal))
        .returning(*_COLUMNS)
    )
    after = Subscription(*written.one())
    old, new = history.difference(_shown(before), _shown(after))
    await history.record(connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(subscription_id), old, new)])
    return after


async def delete_subscription(
    connection: AsyncConnection, principal: Principal, subscription_id: int, etag: str
) -> None:
    """Delete a subscription; its row stays for the audit record.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    before, _receiver = await _locked(connection, principal, subscription_id, "id")
    rows.compare_etag(before.etag, etag, "webhook subscription", "etag")
    subscriptions = tables.subscriptions
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id, subscriptions.c.organisation_id == principal.organisation_id)
        .values(deleted=func.now(), **rows.changed_by(principal))
    )
    await history.record(
        connection, principal, [history.Entry("DELETE", OBJECT_TYPE, str(subscription_id), before=_shown(before))]
    )


async def list_subscriptions(
    connection: AsyncConnection,
    organisation_id: OrganisationId,
    conditions: Sequence[Condition],
    sort: Sequence[SortKey],
    request: PageRequest,
) -> Page[Subscription]:
    """One page of the organisation's subscriptions, without deleted ones."""
    subscriptions = tables.subscriptions.c
    statement = select(*_COLUMNS).where(
        subscriptions.organisation_id == organisation_id,
        subscriptions.deleted.is_(None),
        *where(subscriptions, conditions),
    )
    found = [Subscription(*row) for row in await connection.execute(limited(statement, sort, request))]
    return page_of(found, sort, request, lambda subscription: [getattr(subscription, key.name) for key in sort])


async def count_subscriptions(
    connection: AsyncConnection, organisation_id: OrganisationId, conditions: Sequence[Condition]
) -> int:
    """How many subscriptions the whole filtered list has."""
    subscriptions = tables.subscriptions.c
    counted = await connection.execute(
        select(func.count()).where(
            subscriptions.organisation_id == organisation_id,
            subscriptions.deleted.is_(None),
            *where(subscriptions, conditions),
        )
    )
    return int(counted.scalar_one())


async def subscriptions_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, Subscription]:
    """Those of the organisation's subscriptions that have these ids, deleted ones included."""
    subscriptions = tables.subscriptions.c
    found = await connection.execute(
        select(*_COLUMNS).where(subscriptions.organisation_id == organisation_id, subscriptions.id.in_(ids))
    )
    return {row.id: Subscription(*row) for row in found}


async def subscriptions_of_receivers(
    connection: AsyncConnection, organisation_id: OrganisationId, receiver_ids: Sequence[int], first: int
) -> dict[int, list[Subscription]]:
    """The first subscriptions of each receiver that are not deleted, by receiver id."""
    table = tables.subscriptions
    each = rows.first_of_each(
        table, table.c.receiver_id, receiver_ids, organisation_id, first, table.c.deleted.is_(None)
    ).subquery("each")
    statement = select(*(each.c[one.name] for one in _COLUMNS)).order_by(each.c.id)
    return await rows.by_parent(connection, statement, Subscription, attrgetter("receiver_id"))


async def activations_of(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, Activation]:
    """The latest activation of each subscription that the router has stamped, by subscription id."""
    activations = tables.activations.c
    found = await connection.execute(
        select(activations.subscription_id, activations.from_position, activations.until_position)
        .ext(distinct_on(activations.subscription_id))
        .where(activations.organisation_id == organisation_id, activations.subscription_id.in_(ids))
        .order_by(activations.subscription_id, activations.from_position.desc())
    )
    return {row.subscription_id: Activation(row.from_position, row.until_position) for row in found}


@dataclass(frozen=True, slots=True)
class EvaluationErrors:
    """Changes on which a subscription's expressions had no result, since it holds as it stands."""

    since: datetime
    conditions_count: int
    templates_count: int
    last_at: datetime
    last_change_id: int
    last_message: str


async def evaluation_errors_of(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, EvaluationErrors]:
    """The evaluation errors of those subscriptions that have any, by subscription id."""
    errors = tables.evaluation_errors.c
    columns = [errors[one.name] for one in dataclass_fields(EvaluationErrors)]
    found = await connection.execute(
        select(errors.subscription_id, *columns).where(
            errors.organisation_id == organisation_id, errors.subscription_id.in_(ids)
        )
    )
    return {row[0]: EvaluationErrors(*row[1:]) for row in found}


async def checked_values(
    connection: AsyncConnection, principal: Principal, receiver_id: ReceiverId, given: Mapping[str, Any]
) -> expressions.Expressions:
    """What `create_subscription` would make of these values, without making it. Raises as it does."""
    values = fields.checked(FIELDS, given)
    receiver = await rows.existing_receiver(connection, principal, receiver_id, "input.receiverId")
    _check_rights(principal, receiver, values["resource"])
    return await _check(connection, values)


def _check_rights(principal: Principal, receiver: Row[Any], resource: str) -> None:
    """Raises RequestRefused (FORBIDDEN) on `input.resource` unless both the client and the receiver may read it."""
    principal.require_read(resource, "input.resource")
    rights.require_right(receiver, resource, "input.resource")


async def _check(connection: AsyncConnection, values: Mapping[str, Any]) -> expressions.Expressions:
    """Raises RequestRefused if the resource has been detached since the schema was built, or its rows do not go with the
    condition, the fields or the template.
    """
    shape = await expressions.shape_of(connection, values["resource"], values["action"])
    return expressions.check_expressions(values, shape)


async def _locked(
    connection: AsyncConnection, principal: Principal, subscription_id: int, field: str
) -> tuple[Subscription, Row[Any]]:
    """The subscription and its receiver, both held until the transaction ends. Raises RequestRefused (NOT_FOUND)."""
    absent = rows.not_found("webhook subscription", field)
    receiver_id = await rows.receiver_of(connection, tables.subscriptions, principal, subscription_id)
    if receiver_id is None:
        raise absent
    try:
        receiver = await rows.locked_receiver(connection, principal, receiver_id, field)
    except RequestRefused:
        raise absent from None
    subscriptions = tables.subscriptions.c
    row = (
        await connection.execute(
            select(*_COLUMNS)
            .where(
                subscriptions.organisation_id == principal.organisation_id,
                subscriptions.id == subscription_id,
                subscriptions.deleted.is_(None),
            )
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None:
        raise absent
    return _subscription(row), receiver


_COLUMNS = tuple(tables.subscriptions.c[field.name] for field in dataclass_fields(Subscription))


_subscription = rows.reader_of(Subscription)


def _shown(subscription: Subscription) -> dict[str, Any]:
    """What the history keeps of a subscription."""
    shown = {field.api_name: getattr(subscription, field.column) for field in FIELDS}
    return {"receiverId": subscription.receiver_id} | shown
