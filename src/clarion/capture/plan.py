"""Which statements attach and detach a resource, in order. They are what `--plan` prints and what is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from clarion.capture.attachment import OWN_RESOURCES, Attachment, OnTruncate, check_names
from clarion.capture.names import (
    FUNCTIONS_SCHEMA,
    ORGANISATION_MARK,
    TRIGGER,
    TRUNCATE_ROWS_TRIGGER,
    TRUNCATE_TRIGGER,
    function_names,
)
from clarion.capture.publishers import plan_drop
from clarion.capture.table import Member, Table, read_table, statement, suggestion
from clarion.capture.trigger import Functions
from clarion.core.errors import UsageInvalid
from clarion.database.roles import Roles

Connection = psycopg.Connection[Any]


def plan_attach(connection: Connection, attachment: Attachment, roles: Roles) -> list[sql.Composed]:
    """The statements that attach one table, for what the database holds now. Raises UsageInvalid."""
    check_names(attachment)
    _check_free(connection, attachment)
    table = read_table(connection, attachment)
    organisation, organisation_id = attachment.organisation, None
    # Until all is on again the guard leaves the table alone: one step after the other cannot be whole.
    statements = [sql.SQL("SELECT clarion.note_attaching({})").format(sql.Literal(attachment.resource))]
    if attachment.named_organisation_column is None and organisation is not None:
        found = connection.execute("SELECT id FROM clarion.organisations WHERE name = %s", (organisation,)).fetchone()
        organisation_id = None if found is None else found[0]
        if found is None:
            statements.append(sql.SQL("SELECT clarion.ensure_organisation({})").format(sql.Literal(organisation)))
    statements.append(_register(attachment, table))
    for name, made in Functions(attachment, table, organisation_id).statements().items():
        awaited = organisation is not None and attachment.named_organisation_column is None and organisation_id is None
        statements.append(_with_organisation(made, organisation) if awaited and organisation else made)
        statements += _owned(name, roles)
    for member in table.members:
        statements += _triggers(attachment, table, member)
    # What `clarion doctor` and the guard compare with from now on, and what the history tells.
    statements.append(sql.SQL("SELECT clarion.note_attached({})").format(sql.Literal(attachment.resource)))
    return statements


def _check_free(connection: Connection, attachment: Attachment) -> None:
    for name, schema, table in connection.execute(
        "SELECT name, schema_name, table_name FROM clarion.resources WHERE name = %s OR (schema_name, table_name) = (%s, %s)",
        (attachment.resource, attachment.schema, attachment.table),
    ).fetchall():
        if table is None:
            raise UsageInvalid(
                f"attach: {name} is published by the application",
                f"`clarion detach {name}` first, or choose another name",
            )
        if (name, schema, table) != (attachment.resource, attachment.schema, attachment.table):
            raise UsageInvalid(
                f"attach: {schema}.{table} is attached as {name}",
                f"`clarion detach {name}` first, or choose another name",
            )


def _register(attachment: Attachment, table: Table) -> sql.Composed:
    values: dict[str, sql.Composable] = {
        "name": sql.Literal(attachment.resource),
        "singular": sql.Literal(attachment.singular),
        "description": sql.Literal(attachment.description or f"Rows of {attachment.qualified}."),
        "schema_name": sql.Literal(attachment.schema),
        "table_name": sql.Literal(attachment.table),
        "key_columns": sql.Literal(list(table.keys)),
        "excluded_columns": sql.SQL("{}::name[]").format(sql.Literal(list(attachment.excluded_columns))),
        "organisation_column": sql.Literal(attachment.named_organisation_column),
        "organisation_id": sql.SQL("NULL"),
        "label_column": sql.Literal(attachment.label_column),
        "on_truncate": sql.Literal(attachment.on_truncate.value),
    }
    if attachment.named_organisation_column is None:
        values["organisation_id"] = sql.SQL("(SELECT id FROM clarion.organisations WHERE name = {})").format(
            sql.Literal(attachment.organisation)
        )
    columns = [sql.Identifier(name) for name in values]
    return sql.SQL(
        "INSERT INTO clarion.resources ({columns})\nVALUES ({values})\nON CONFLICT (name) DO UPDATE SET {changes}"
    ).format(
        columns=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(values.values()),
        changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(column) for column in columns[1:]),
    )


def _with_organisation(made: sql.Composed, organisation: str) -> sql.Composed:
    """Makes the function with the id that the organisation will have got by then."""
    return sql.SQL(
        "DO $attach$\nBEGIN\nEXECUTE replace($function${made}$function$, {mark},\n"
        "    (SELECT id::text FROM clarion.organisations WHERE name = {organisation}));\nEND $attach$"
    ).format(made=made, mark=sql.Literal(ORGANISATION_MARK), organisation=sql.Literal(organisation))


def _owned(function: str, roles: Roles) -> list[sql.Composed]:
    """Nobody may call it, and it runs as the capture role (the one that reads runs as whoever truncates)."""
    names = {"function": sql.Identifier(FUNCTIONS_SCHEMA, function), "capture": sql.Identifier(roles.capture)}
    return [
        sql.SQL("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC").format(**names),
        sql.SQL("ALTER FUNCTION {function}() OWNER TO {capture}").format(**names),
    ]


def _triggers(attachment: Attachment, table: Table, member: Member) -> Iterator[sql.Composed]:
    functions, is_root = function_names(attachment.resource), member.oid == table.oid
    wanted = {TRUNCATE_TRIGGER: ("clarion", "refuse_truncate")}
    if attachment.on_truncate is OnTruncate.DELETE:
        wanted[TRUNCATE_TRIGGER] = (FUNCTIONS_SCHEMA, functions["truncate"])
        wanted[TRUNCATE_ROWS_TRIGGER] = (FUNCTIONS_SCHEMA, functions["truncate_rows"])
    elif TRUNCATE_ROWS_TRIGGER in member.triggers:
        yield sql.SQL("DROP TRIGGER {} ON {}").format(
            sql.Identifier(TRUNCATE_ROWS_TRIGGER), sql.Identifier(member.schema, member.table)
        )
    if is_root or not member.is_partition:
        wanted[TRIGGER] = (FUNCTIONS_SCHEMA, functions["capture"])
    for trigger, function in wanted.items():
        yield from put_trigger(
            member.schema,
            member.table,
            trigger,
            function,
            attachment.resource,
            is_child=not is_root and not member.is_partition,
        )


def put_trigger(
    schema: str, table: str, trigger: str, function: tuple[str, str], resource: str, *, is_child: bool
) -> list[sql.Composed]:
    """The statements that put one of the triggers on a table, to fire in every session."""
    argument: sql.Composable = sql.SQL("")
    if trigger == TRUNCATE_TRIGGER:
        # So that it is known whose it is, wherever the table goes.
        argument = sql.Literal(resource)
    elif is_child:
        # It may have columns that the attached table has not.
        argument = sql.Literal("child")
    names = {"trigger": sql.Identifier(trigger), "table": sql.Identifier(schema, table)}
    when = "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW" if trigger == TRIGGER else "BEFORE TRUNCATE ON {}"
    return [
        sql.SQL("CREATE OR REPLACE TRIGGER {trigger} {when} EXECUTE FUNCTION {function}({argument})").format(
            when=sql.SQL(when).format(names["table"]), function=sql.Identifier(*function), argument=argument, **names
        ),
        sql.SQL("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}").format(**names),
    ]


def plan_detach(connection: Connection, resource: str) -> list[sql.Composed]:
    """The statements that take a resource's triggers off, wherever they are. Raises UsageInvalid."""
    found = connection.execute("SELECT name, table_name IS NULL FROM clarion.resources ORDER BY name").fetchall()
    known = [row[0] for row in found]
    own = {attachment.resource for attachment in OWN_RESOURCES}
    if resource not in known:
        near = suggestion(resource, [name for name in known if name not in own])
        raise UsageInvalid(
            f"detach: there is no resource {resource}", near or "`clarion attach` lists what is attached"
        )
    if resource in own:
        raise UsageInvalid(f"detach: {resource} is Clarion's own")
    listening = connection.execute(
        "SELECT count(*) FROM clarion.subscriptions WHERE resource = %s AND deleted IS NULL", (resource,)
    ).fetchone()
    if listening is not None and listening[0]:
        raise UsageInvalid(f"detach: {listening[0]} subscriptions listen for {resource}", "delete them first")
    # First: the history tells what it was until now, and what is not registered is not watched by the guard.
    forget = sql.SQL("SELECT clarion.forget_resource({})").format(sql.Literal(resource))
    if (resource, True) in found:
        return [forget, *plan_drop(connection, resource)]
    functions = function_names(resource)
    statements: list[sql.Composed] = [forget]
    statements += [
        sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger), sql.Identifier(schema, table))
        for schema, table, trigger in connection.execute(
            statement("triggers_of_resource"), (list(functions.values()), TRUNCATE_TRIGGER, resource)
        ).fetchall()
    ]
    statements += [
        sql.SQL("DROP FUNCTION IF EXISTS {}()").format(sql.Identifier(FUNCTIONS_SCHEMA, function))
        for function in functions.values()
    ]
    return statements
