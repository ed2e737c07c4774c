"""Which triggers have to be there: on each attached table, its partitions and the children that inherit from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from clarion.capture.attachment import OnTruncate
from clarion.capture.names import FUNCTIONS_SCHEMA, TRIGGER, TRUNCATE_ROWS_TRIGGER, TRUNCATE_TRIGGER, function_names
from clarion.capture.plan import put_trigger
from clarion.capture.table import statement


@dataclass(frozen=True, slots=True)
class WantedTrigger:
    """A trigger that has to be on a table, in state ALWAYS, with this function.

    `cloned`: on a partition, where PostgreSQL itself puts it and takes it away with the partitioned table's.
    `is_child`: the table inherits from the attached one.
    """

    resource: str
    relation: int
    schema: str
    table: str
    trigger: str
    function_schema: str
    function: str
    cloned: bool
    is_child: bool


def wanted_triggers(connection: psycopg.Connection[Any]) -> list[WantedTrigger]:
    """All of them, resource by resource, the attached table first. A resource whose table is gone has none."""
    wanted = []
    for resource, attached, relation, schema, table, is_partition, on_truncate in connection.execute(
        statement("wanted")
    ).fetchall():
        names = function_names(resource)
        triggers = {TRIGGER: (FUNCTIONS_SCHEMA, names["capture"]), TRUNCATE_TRIGGER: ("clarion", "refuse_truncate")}
        if on_truncate == OnTruncate.DELETE:
            triggers[TRUNCATE_TRIGGER] = (FUNCTIONS_SCHEMA, names["truncate"])
            triggers[TRUNCATE_ROWS_TRIGGER] = (FUNCTIONS_SCHEMA, names["truncate_rows"])
        wanted += [
            WantedTrigger(
                resource,
                relation,
                schema,
                table,
                trigger,
                function_schema,
                function,
                cloned=is_partition and trigger == TRIGGER,
                is_child=relation != attached and not is_partition,
            )
            for trigger, (function_schema, function) in triggers.items()
        ]
    return wanted


def put_missing_triggers(connection: psycopg.Connection[Any]) -> list[WantedTrigger]:
    """Puts on what is missing, in another state than ALWAYS or has another function; which these were.

    In the caller's transaction, as a role that may do so. Clones are left alone: attach the table again for those.
    """
    present = {
        (relation, trigger): (schema, function, state)
        for relation, trigger, schema, function, state in connection.execute(statement("present")).fetchall()
    }
    missing = [
        trigger
        for trigger in wanted_triggers(connection)
        if not trigger.cloned
        and present.get((trigger.relation, trigger.trigger)) != (trigger.function_schema, trigger.function, "A")
    ]
    for trigger in missing:
        for step in put_trigger(
            trigger.schema,
            trigger.table,
            trigger.trigger,
            (trigger.function_schema, trigger.function),
            trigger.resource,
            is_child=trigger.is_child,
        ):
            connection.execute(step)
    return missing
