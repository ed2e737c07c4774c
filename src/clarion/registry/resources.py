"""Resources: the kinds of objects that can be subscribed to.

`clarion attach` registers those that are rows of a table, here or there; here those whose changes come from elsewhere
are registered too. Their names are everybody's, so only clients of organisation `default`, the deployment's own, do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, column, delete, exists, func, insert, or_, select, table, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.organisations import OWN_ORGANISATION, of_the_deployment
from clarion.access.principal import Permission, Principal
from clarion.capture.names import FUNCTIONS_SCHEMA, RESOURCE
from clarion.capture.publish import publishing_function
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, ResourceName
from clarion.database import tables
from clarion.registry import fields, rows
from clarion.registry.fields import Field, checked, refused
from clarion.registry.json_schema import SchemaRefused, schema_text

OBJECT_TYPE = "Resource"
RESOURCES_MAX = 1_000
DEFAULT_DESCRIPTION = "Published over HTTP."

_LOCK_NOT_AVAILABLE = "55P03"
_PUBLISHED_WAIT_MS = 1_000


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource by its canonical name (`RUNS`), with the singular spelling that is accepted beside it, if any.

    `published`: it has no table. `organisation_id` is whose objects alone these are; None: the publisher's, or whose the
    row is. `json_schema` is what the data of changes over HTTP is checked against, as JSON text. `excluded_columns` of
    its table are in no change. `created_by_id` and `updated_by_id` are clients of the deployment's own organisation; None: it was
    done on the database, by `clarion attach`.
    """

    id: int
    name: ResourceName
    singular: str | None
    description: str
    published: bool
    organisation_id: int | None
    json_schema: str | None
    etag: str
    created: datetime
    updated: datetime
    excluded_columns: tuple[str, ...] = ()
    created_by_id: ClientId | None = None
    updated_by_id: ClientId | None = None


async def configuration_version(connection: AsyncConnection) -> int:
    """A number that moves with every change of what is configured."""
    return int(await connection.scalar(select(tables.configuration.c.version)) or 0)


async def list_resources(connection: AsyncConnection) -> tuple[Resource, ...]:
    """All registered resources by name."""
    found = await connection.execute(select(*_COLUMNS).order_by(tables.resources.c.name))
    return tuple(map(_resource, found))


def by_name(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Resources by the names and singular spellings that they go by."""
    listed = list(resources)
    return {one.singular: one for one in listed if one.singular is not None} | {one.name: one for one in listed}


async def register_resource(connection: AsyncConnection, principal: Principal, given: Mapping[str, Any]) -> Resource:
    """The new resource, without a table. `given` has values by column.

    Raises RequestRefused: FORBIDDEN, INVALID_INPUT naming the input, CONFLICT for a name that another resource goes by.
    """
    await _require_deployment(connection, principal)
    values = checked(FIELDS, given)
    await _one_at_a_time(connection)
    await _check_free(connection, values["name"], "input.name")
    if values.get("singular") is not None:
        await _check_free(connection, values["singular"], "input.singular")
        if values["singular"] == values["name"]:
            raise refused("must differ from the name, or be left out", "input.singular")
    count = await connection.scalar(select(func.count()).select_from(tables.resources))
    if (count or 0) >= RESOURCES_MAX:
        raise refused(f"there are {count} resources, {RESOURCES_MAX} are allowed: unregister one first", "input")
    values["description"] = values.get("description") or DEFAULT_DESCRIPTION
    by = {"created_by_id": principal.client_id, "updated_by_id": principal.client_id}
    row = await connection.execute(insert(tables.resources).values(key_columns=[], **values, **by).returning(*_COLUMNS))
    resource = _resource(row.one())
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(resource.id), after=_shown(resource))]
    )
    return resource


async def update_resource(
    connection: AsyncConnection, principal: Principal, resource_id: int, etag: str, given: Mapping[str, Any]
) -> Resource:
    """The resource after the change; what it does not name stays. Nothing is written if nothing differs.

    What was accepted with the JSON Schema before is committed when this returns, and nothing is accepted with it any more.
    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `input.id`, CONFLICT, INVALID_INPUT.
    """
    await _require_deployment(connection, principal)
    values = checked(FIELDS, given)
    await _one_at_a_time(connection)
    before = await _found(connection, resource_id, etag, "input.id", "input.etag")
    values = {name: value for name, value in values.items() if getattr(before, name) != value}
    if not values:
        return before
    if values.get("singular") is not None:
        await _check_free(connection, values["singular"], "input.singular")
    if "description" in values:
        values["description"] = values["description"] or DEFAULT_DESCRIPTION
    await _nothing_under_way(connection, before.name)
    written = await connection.execute(
        update(tables.resources)
        .where(tables.resources.c.id == resource_id)
        .values(**values, **rows.changed_by(principal))
        .returning(*_COLUMNS)
    )
    after = _resource(written.one())
    old, new = history.difference(_shown(before), _shown(after))
    await history.record(connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(resource_id), old, new)])
    return after


async def unregister_resource(connection: AsyncConnection, principal: Principal, resource_id: int, etag: str) -> None:
    """Remove a resource. What was published of it before is still delivered, and stays in the ledger.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`, and on `id` while a subscription of any
    organisation listens for it, or database roles may publish it.
    """
    await _require_deployment(connection, principal)
    await _one_at_a_time(connection)
    before = await _found(connection, resource_id, etag, "id", "etag")
    await _nothing_under_way(connection, before.name)
    if await connection.scalar(select(func.clarion.is_listened_for(before.name))):
        raise RequestRefused(Code.CONFLICT, "subscriptions listen for it: delete them first", "id")
    function, schema = (
        table("pg_proc", column("pronamespace"), column("proname")),
        table("pg_namespace", column("oid"), column("nspname")),
    )
    found = select(
        exists(
            select(function.c.proname).where(
                function.c.pronamespace == schema.c.oid,
                schema.c.nspname == FUNCTIONS_SCHEMA,
                function.c.proname == publishing_function(before.name),
            )
        )
    )
    if await connection.scalar(found):
        raise RequestRefused(
            Code.CONFLICT, f"an application publishes it in its own transactions: `clarion detach {before.name}`", "id"
        )
    await connection.execute(delete(tables.resources).where(tables.resources.c.id == resource_id))
    await history.record(
        connection, principal, [history.Entry("DELETE", OBJECT_TYPE, str(resource_id), before=_shown(before))]
    )


async def _require_deployment(connection: AsyncConnection, principal: Principal) -> None:
    """Raises RequestRefused (FORBIDDEN) unless the client may register resources."""
    principal.require(Permission.RESOURCES_WRITE)
    if not await of_the_deployment(connection, principal):
        raise RequestRefused(
            Code.FORBIDDEN,
            f"resources are every organisation's: only clients of organisation {OWN_ORGANISATION!r} may register them",
        )


async def _one_at_a_time(connection: AsyncConnection) -> None:
    """Raises RequestRefused (CONFLICT) while another registers, or `clarion attach` does."""
    if not await connection.scalar(select(func.pg_try_advisory_xact_lock(func.hashtext("clarion.attach")))):
        raise RequestRefused(Code.CONFLICT, "resources are being registered or attached by others: try again")


async def _nothing_under_way(connection: AsyncConnection, name: str) -> None:
    """Wait until no transaction publishes the resource, and keep others from it. Raises RequestRefused (CONFLICT)."""
    key = func.hashtextextended(f"clarion.publish\n{name}", 0)
    await connection.execute(select(func.set_config("lock_timeout", str(_PUBLISHED_WAIT_MS), True)))
    try:
        await connection.execute(select(func.pg_advisory_xact_lock(key)))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise RequestRefused(
            Code.CONFLICT, f"a transaction that publishes {name} is open and stays so: try again"
        ) from None


async def _check_free(connection: AsyncConnection, name: str, field: str) -> None:
    """Raises RequestRefused (CONFLICT) for a name that a resource goes by."""
    resources = tables.resources.c
    taken = await connection.scalar(
        select(resources.name).where(or_(resources.name == name, resources.singular == name)).limit(1)
    )
    if taken is not None:
        raise RequestRefused(Code.CONFLICT, f"the resource {taken} goes by this name: choose another", field)


async def _found(connection: AsyncConnection, resource_id: int, etag: str, id_field: str, etag_field: str) -> Resource:
    row = (await connection.execute(select(*_COLUMNS).where(tables.resources.c.id == resource_id))).one_or_none()
    if row is None:
        raise rows.not_found("resource", id_field)
    resource = _resource(row)
    if not resource.published:
        raise RequestRefused(
            Code.CONFLICT,
            f"{resource.name} is a table: `clarion attach` and `clarion detach` decide about it",
            id_field,
        )
    rows.compare_etag(resource.etag, etag, "resource", etag_field)
    return resource


def _name(value: str, field: str) -> str:
    if RESOURCE.fullmatch(value) is None:
        raise refused("must have capitals, digits and _ only, a letter first, and at most 63 characters", field)
    return value


def _schema(value: object, field: str) -> str:
    try:
        return schema_text(value)
    except SchemaRefused as error:
        raise refused(str(error), field, recorded="is no JSON Schema that can be used") from None


FIELDS: tuple[Field, ...] = (
    Field("name", "name", _name),
    Field("singular", "singular", _name, nullable=True),
    Field("description", "description", fields.description, nullable=True),
    Field("json_schema", "jsonSchema", _schema, nullable=True),
)

_COLUMNS = tuple(
    tables.resources.c[name]
    for name in (
        *("id", "name", "singular", "description", "table_name", "organisation_id", "json_schema"),
        *("etag", "created", "updated", "excluded_columns", "created_by_id", "updated_by_id"),
    )
)


def _resource(row: Row[Any]) -> Resource:
    return Resource(
        row.id,
        ResourceName(row.name),
        row.singular,
        row.description,
        row.table_name is None,
        row.organisation_id,
        row.json_schema,
        row.etag,
        row.created,
        row.updated,
        tuple(row.excluded_columns),
        row.created_by_id,
        row.updated_by_id,
    )


def _shown(resource: Resource) -> dict[str, Any]:
    schema = None if resource.json_schema is None else json.loads(resource.json_schema)
    return {
        "name": resource.name,
        "singular": resource.singular,
        "description": resource.description,
        "jsonSchema": schema,
    }
