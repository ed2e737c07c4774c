"""Triggers on: from the moment `attach` commits, no write to the table passes Clarion by.

The table keeps its owner, its columns and its speed; it gains one row trigger and one that refuses TRUNCATE.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.core.ids import TESTS
from clarion.database.roles import Roles, read_roles

# AFTER triggers fire in the order of their names; this one comes before any name that an application is likely to give.
TRIGGER = "!clarion_capture"
TRUNCATE_TRIGGER = "!clarion_truncate"

FUNCTIONS_SCHEMA = "clarion_triggers"
"""Where the trigger functions are. Their role owns them, so it could drop them, but it may not look into this schema: a
cast of the application's that runs with its rights cannot name them."""

LOCK_TIMEOUT_S = 10.0
"""How long a table may stay locked by others before attach and detach give up."""

_RESOURCE = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_ORGANISATION_LENGTH_MAX = 200
_IDENTIFIER_BYTES_MAX = 63
_BODY_QUOTE = "$capture$"

_FUNCTION: LiteralString = files("clarion.capture").joinpath("attach.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A table and what its changes are called.

    `key_columns` empty means the primary key. Rows belong to the fixed `organisation` (made if absent), unless
    `organisation_column` names a text column with the organisation's name, or `organisation_id_column` one with its id.
    """

    resource: str
    table: str
    schema: str = "public"
    singular: str | None = None
    description: str = ""
    key_columns: tuple[str, ...] = ()
    excluded_columns: tuple[str, ...] = ()
    organisation: str | None = "default"
    organisation_column: str | None = None
    organisation_id_column: str | None = None


OWN_RESOURCES = (
    Attachment(
        resource="WEBHOOK_RECEIVERS",
        singular="WEBHOOK_RECEIVER",
        schema="clarion",
        table="receivers",
        description="Registered HTTPS endpoints that webhooks are sent to.",
        excluded_columns=("shared_secret_sealed", "shared_secret_hint", "previous_secret_sealed", "client_key_sealed"),
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource="WEBHOOK_SUBSCRIPTIONS",
        singular="WEBHOOK_SUBSCRIPTION",
        schema="clarion",
        table="subscriptions",
        description="Pairs of resource and action that a receiver listens for.",
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource="WEBHOOK_HEADERS",
        singular="WEBHOOK_HEADER",
        schema="clarion",
        table="headers",
        description="Custom HTTP headers of a receiver; their values are never part of a change.",
        excluded_columns=("value_sealed",),
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource=TESTS,
        singular="WEBHOOK_TEST",
        schema="clarion",
        table="tests",
        description="Test sends; each is an event for the receiver that it tests, subscribed or not.",
        organisation=None,
        organisation_id_column="organisation_id",
    ),
)
"""Clarion's own objects, which integrators can subscribe to like any other."""


def attach(
    connection: psycopg.Connection[Any], attachments: Sequence[Attachment], *, lock_timeout_s: float = LOCK_TIMEOUT_S
) -> None:
    """Register the tables as resources and put their triggers on, in one transaction; again without harm.

    Raises UsageInvalid for a table or column that cannot be attached, EnvironmentRefused for missing rights and
    for a table that stays locked by others for `lock_timeout_s`.
    """
    with _one_change("attach", connection, lock_timeout_s):
        roles = read_roles(connection)
        schema_grant = sql.SQL(f"{{}} CREATE ON SCHEMA {FUNCTIONS_SCHEMA} {{}} {{}}")
        capture = sql.Identifier(roles.capture)
        connection.execute(schema_grant.format(sql.SQL("GRANT"), sql.SQL("TO"), capture))
        for attachment in attachments:
            _attach_one(connection, attachment, roles)
        if roles.capture != roles.owner:
            # The right to create is needed to hand the functions over, and for nothing after.
            connection.execute(schema_grant.format(sql.SQL("REVOKE"), sql.SQL("FROM"), capture))


@contextmanager
def _one_change(what: str, connection: psycopg.Connection[Any], lock_timeout_s: float) -> Iterator[None]:
    """One transaction, one at a time, that waits for no lock longer than `lock_timeout_s`."""
    try:
        with connection.transaction():
            connection.execute(
                "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(hashtext('clarion.attach'))",
                (f"{round(lock_timeout_s * 1000)}ms",),
            )
            yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise EnvironmentRefused(
            f"{what}: {error.diag.message_primary}",
            "run it as the owner of the table who is also a member of Clarion's owner and capture roles",
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise EnvironmentRefused(
            f"{what}: the table stayed locked by another transaction for {lock_timeout_s:g} s",
            "end that transaction or try again later",
        ) from error


def _attach_one(connection: psycopg.Connection[Any], attachment: Attachment, roles: Roles) -> None:
    _check_names(connection, attachment)
    columns = _columns(connection, attachment)
    keys = attachment.key_columns or _primary_key(connection, attachment)
    _check_columns(connection, attachment, columns, keys)
    organisation_id = _organisation_id(connection, attachment.organisation)
    _register(connection, attachment, keys, organisation_id)
    # Until all is on again the guard leaves the table alone: one step after the other cannot be whole.
    connection.execute("SELECT clarion.forget_captured(%s)", (attachment.resource,))
    function = _function_name(attachment.resource)
    connection.execute(_function_of(attachment, function, columns, keys, organisation_id))
    names = {
        "function": sql.Identifier(FUNCTIONS_SCHEMA, function),
        "table": sql.Identifier(attachment.schema, attachment.table),
        "trigger": sql.Identifier(TRIGGER),
        "truncate": sql.Identifier(TRUNCATE_TRIGGER),
        "capture": sql.Identifier(roles.capture),
    }
    for statement in (
        "REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
        "ALTER FUNCTION {function}() OWNER TO {capture}",
        "CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()",
        "CREATE OR REPLACE TRIGGER {truncate} BEFORE TRUNCATE ON {table} EXECUTE FUNCTION clarion.refuse_truncate()",
        "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}",
        "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {truncate}",
    ):
        connection.execute(sql.SQL(statement).format(**names))
    _attach_members(connection, names)
    # What `clarion doctor` and the guard compare with from now on.
    connection.execute("SELECT clarion.note_attached(%s)", (attachment.resource,))


def _attach_members(connection: psycopg.Connection[Any], names: Mapping[str, sql.Composable]) -> None:
    """Triggers of partitions and children: those for a statement are not handed down to either, those for rows to partitions."""
    table = names["table"].as_string(connection)
    for schema, name, partition in connection.execute(
        """SELECT n.nspname, c.relname, c.relispartition FROM clarion.tables_of(%s::regclass) AS member (oid)
           JOIN pg_class c ON c.oid = member.oid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.oid <> %s::regclass ORDER BY c.oid""",
        (table, table),
    ).fetchall():
        member = {**names, "member": sql.Identifier(schema, name)}
        statements = [
            "CREATE OR REPLACE TRIGGER {truncate} BEFORE TRUNCATE ON {member} EXECUTE FUNCTION clarion.refuse_truncate()",
            "ALTER TABLE {member} ENABLE ALWAYS TRIGGER {truncate}",
        ]
        if not partition:
            statements += [
                (
                    "CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {member} "
                    "FOR EACH ROW EXECUTE FUNCTION {function}()"
                ),
                "ALTER TABLE {member} ENABLE ALWAYS TRIGGER {trigger}",
            ]
        for statement in statements:
            connection.execute(sql.SQL(statement).format(**member))


def _function_name(resource: str) -> str:
    """The name of the resource's trigger function: never cut by PostgreSQL, or two resources would share one."""
    name = f"capture_{resource.lower()}"
    if len(name) <= _IDENTIFIER_BYTES_MAX:
        return name
    digest = hashlib.sha256(resource.encode()).hexdigest()[:12]
    return f"{name[: _IDENTIFIER_BYTES_MAX - len(digest) - 1]}_{digest}"


def _check_names(connection: psycopg.Connection[Any], attachment: Attachment) -> None:
    for name in filter(None, (attachment.resource, attachment.singular)):
        if _RESOURCE.fullmatch(name) is None:
            raise UsageInvalid(
                f"attach: {name!r} cannot name a resource",
                "take capitals, digits and _, a letter first, 63 characters at most: PURCHASE_ORDERS",
            )
    if attachment.organisation is not None and not 1 <= len(attachment.organisation) <= _ORGANISATION_LENGTH_MAX:
        raise UsageInvalid(f"attach: an organisation's name has 1 to {_ORGANISATION_LENGTH_MAX} characters")
    if attachment.schema == "clarion" and attachment not in OWN_RESOURCES:
        raise UsageInvalid("attach: the tables of schema clarion are Clarion's own")
    for name, schema, table in connection.execute(
        "SELECT name, schema_name, table_name FROM clarion.resources WHERE name = %s OR (schema_name, table_name) = (%s, %s)",
        (attachment.resource, attachment.schema, attachment.table),
    ).fetchall():
        if (name, schema, table) != (attachment.resource, attachment.schema, attachment.table):
            raise UsageInvalid(
                f"attach: {schema}.{table} is attached as {name}",
                f"`clarion detach {name}` first, or choose another name",
            )
    inherited = connection.execute(
        """SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname = %s AND t.tgname = %s AND t.tgparentid <> 0""",
        (attachment.schema, attachment.table, TRIGGER),
    ).fetchone()
    if inherited is not None:
        raise UsageInvalid(
            f"attach: {attachment.schema}.{attachment.table} is a partition of a table that is attached",
            "its changes are captured there",
        )


def _columns(connection: psycopg.Connection[Any], attachment: Attachment) -> dict[str, bool]:
    """The table's columns in order, and whether a trigger sees their values: not those of virtual generated ones."""
    rows = connection.execute(
        """SELECT a.attname, a.attgenerated <> 'v'
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
           ORDER BY a.attnum""",
        (attachment.schema, attachment.table),
    ).fetchall()
    if not rows:
        raise UsageInvalid(
            f"attach: there is no table {attachment.schema}.{attachment.table}",
            "name it as schema.table; views have no changes",
        )
    return dict(rows)


def _primary_key(connection: psycopg.Connection[Any], attachment: Attachment) -> tuple[str, ...]:
    rows = connection.execute(
        """SELECT a.attname FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
           WHERE i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND i.indisprimary ORDER BY k.place""",
        (attachment.schema, attachment.table),
    ).fetchall()
    if not rows:
        raise UsageInvalid(
            f"attach: {attachment.schema}.{attachment.table} has no primary key",
            "name the columns of a unique, not null, not deferrable key",
        )
    return tuple(row[0] for row in rows)


def _check_columns(
    connection: psycopg.Connection[Any], attachment: Attachment, columns: Mapping[str, bool], keys: Sequence[str]
) -> None:
    organisation_columns = [c for c in (attachment.organisation_column, attachment.organisation_id_column) if c]
    for column in (*keys, *attachment.excluded_columns, *organisation_columns):
        if column not in columns:
            raise UsageInvalid(f"attach: {attachment.schema}.{attachment.table} has no column {column}")
    if any(_BODY_QUOTE in column for column in columns):
        # It would end the function's body, and what follows it would run with the rights of whoever attaches.
        raise UsageInvalid(
            f"attach: {attachment.schema}.{attachment.table} has a column with {_BODY_QUOTE} in its name"
        )
    for column in organisation_columns:
        if not columns[column]:
            raise UsageInvalid(f"attach: {column} is computed when it is read, so no change holds it")
    if set(keys) & set(attachment.excluded_columns):
        raise UsageInvalid("attach: a key column cannot be excluded")
    if not organisation_columns and attachment.organisation is None:
        raise UsageInvalid("attach: name an organisation, or the column that holds it")
    found = connection.execute(
        """SELECT 1 FROM pg_index i
           WHERE i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass
             AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
             AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
                  WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) AND a.attnotnull)
                 = (SELECT array_agg(k ORDER BY k) FROM unnest(%s::text[]) k)""",
        (attachment.schema, attachment.table, list(keys)),
    ).fetchone()
    if found is None:
        raise UsageInvalid(
            f"attach: ({', '.join(keys)}) is no unique, not null, not deferrable key of {attachment.schema}.{attachment.table}",
            "without one the order of an object's changes cannot be kept",
        )


def _organisation_id(connection: psycopg.Connection[Any], name: str | None) -> int | None:
    if name is None:
        return None
    connection.execute("INSERT INTO clarion.organisations (name) VALUES (%s) ON CONFLICT (name) DO NOTHING", (name,))
    row = connection.execute("SELECT id FROM clarion.organisations WHERE name = %s", (name,)).fetchone()
    return cast("tuple[int]", row)[0]


def _register(
    connection: psycopg.Connection[Any], attachment: Attachment, keys: Sequence[str], organisation_id: int | None
) -> None:
    connection.execute(
        """INSERT INTO clarion.resources (name, singular, description, schema_name, table_name, key_columns, excluded_columns,
                                          organisation_column, organisation_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (name) DO UPDATE SET (singular, description, schema_name, table_name, key_columns, excluded_columns,
                                             organisation_column, organisation_id)
               = (excluded.singular, excluded.description, excluded.schema_name, excluded.table_name, excluded.key_columns,
                  excluded.excluded_columns, excluded.organisation_column, excluded.organisation_id)""",
        (
            attachment.resource,
            attachment.singular,
            attachment.description or f"Rows of {attachment.schema}.{attachment.table}.",
            attachment.schema,
            attachment.table,
            list(keys),
            list(attachment.excluded_columns),
            attachment.organisation_column or attachment.organisation_id_column,
            organisation_id,
        ),
    )


def _function_of(
    attachment: Attachment,
    function: str,
    columns: Mapping[str, bool],
    keys: Sequence[str],
    organisation_id: int | None,
) -> sql.Composed:
    """The statement that makes the trigger function, from attach.sql."""
    parts: dict[str, sql.Composable] = {
        "function": sql.Identifier(function),
        "resource": sql.Literal(attachment.resource),
    }
    kept = [column for column, seen in columns.items() if seen and column not in attachment.excluded_columns]
    for side, record in (("old", sql.SQL("OLD")), ("new", sql.SQL("NEW"))):
        parts[f"key_{side}"] = _key(record, keys)
        parts[f"row_{side}"] = _row(record, kept, len(columns))
        organisation: sql.Composable = sql.SQL("NULL")
        identity: sql.Composable = sql.Literal(organisation_id)
        if attachment.organisation_column:
            organisation = sql.SQL("{}.{}::text").format(record, sql.Identifier(attachment.organisation_column))
            identity = sql.SQL("NULL")
        elif attachment.organisation_id_column:
            identity = sql.SQL("{}.{}").format(record, sql.Identifier(attachment.organisation_id_column))
        parts[f"organisation_{side}"] = organisation
        parts[f"organisation_id_{side}"] = identity
    identifying = [c for c in (*keys, attachment.organisation_column, attachment.organisation_id_column) if c]
    parts["moved"] = sql.SQL(" OR ").join(
        # As text, because an application's type may come with an equality that is no identity.
        sql.SQL("OLD.{0}::text IS DISTINCT FROM NEW.{0}::text").format(sql.Identifier(column))
        for column in identifying
    )
    return sql.SQL(_FUNCTION).format(**parts)


def _key(record: sql.Composable, keys: Sequence[str]) -> sql.Composable:
    """The object id: the key column as text, or a JSON array of several as text."""
    values = [sql.SQL("{}.{}::text").format(record, sql.Identifier(key)) for key in keys]
    if len(values) == 1:
        return values[0]
    return sql.SQL("json_build_array({})::text").format(sql.SQL(", ").join(values))


def _row(record: sql.Composable, columns: Sequence[str], columns_count: int) -> sql.Composable:
    """The row as JSON text, of these columns alone; `columns_count` of them are all."""
    if len(columns) == columns_count:
        return sql.SQL("row_to_json({})::text").format(record)
    kept = sql.SQL(", ").join(sql.SQL("{}.{}").format(record, sql.Identifier(column)) for column in columns)
    # With the star, because a column may have the same name.
    return sql.SQL("(SELECT row_to_json(kept.*)::text FROM (SELECT {}) AS kept)").format(kept)


def detach(connection: psycopg.Connection[Any], resource: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
    """Take a resource's triggers off and forget it, in one transaction. What was captured before is still delivered.

    Raises UsageInvalid if there is no such resource, it is one of Clarion's own, or a subscription listens for it;
    EnvironmentRefused as `attach`.
    """
    with _one_change("detach", connection, lock_timeout_s):
        row = connection.execute(
            "SELECT schema_name, table_name FROM clarion.resources WHERE name = %s", (resource,)
        ).fetchone()
        if row is None:
            raise UsageInvalid(f"detach: there is no resource {resource}", "`clarion attach` lists what is attached")
        if resource in {own.resource for own in OWN_RESOURCES}:
            raise UsageInvalid(f"detach: {resource} is Clarion's own")
        listening = connection.execute(
            "SELECT count(*) FROM clarion.subscriptions WHERE resource = %s AND deleted IS NULL", (resource,)
        ).fetchone()
        if listening is not None and listening[0]:
            raise UsageInvalid(f"detach: {listening[0]} subscriptions listen for {resource}", "delete them first")
        # First: what is not registered is not watched by the guard.
        connection.execute("DELETE FROM clarion.resources WHERE name = %s", (resource,))
        table = sql.Identifier(*row)
        for trigger in (TRIGGER, TRUNCATE_TRIGGER):
            connection.execute(sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(trigger), table))
        _detach_members(connection, table.as_string(connection))
        function = sql.Identifier(FUNCTIONS_SCHEMA, _function_name(resource))
        connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(function))


def _detach_members(connection: psycopg.Connection[Any], table: str) -> None:
    for schema, name, trigger in connection.execute(
        """SELECT n.nspname, c.relname, t.tgname FROM clarion.tables_of(to_regclass(%s)) AS member (oid)
           JOIN pg_class c ON c.oid = member.oid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = ANY (%s) AND t.tgparentid = 0""",
        (table, [TRIGGER, TRUNCATE_TRIGGER]),
    ).fetchall():
        statement = sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger), sql.Identifier(schema, name))
        connection.execute(statement)
