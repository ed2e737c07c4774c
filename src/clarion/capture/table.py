"""What attaching has to know of a table, and what of it is refused."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from clarion.capture.attachment import Attachment
from clarion.capture.names import BODY_QUOTES, TRIGGER, function_name
from clarion.core.errors import UsageInvalid
from clarion.database.statements import load_statements

_SQL = load_statements("clarion.capture", "table.sql")


@dataclass(frozen=True, slots=True)
class Member:
    """The attached table, a partition of it or an INHERITS child, at any depth.

    `is_partition`: PostgreSQL puts the row trigger there by itself. `captured_by` is the function of the capture trigger
    that is on it.
    """

    oid: int
    schema: str
    table: str
    is_partition: bool
    partition_columns: tuple[str, ...]
    columns: tuple[str, ...]
    triggers: tuple[str, ...]
    captured_by: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is now. `columns` are name and number; `unseen` those whose values no trigger sees."""

    oid: int
    is_partitioned: bool
    columns_ever_count: int
    columns: dict[str, int]
    unseen: frozenset[str]
    keys: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def partition_columns(self) -> frozenset[str]:
        """The columns that say which partition a row is in, on any level."""
        return frozenset(column for member in self.members for column in member.partition_columns)


def statement(name: str) -> bytes:
    """A statement of table.sql, for psycopg."""
    return _SQL[name].encode()


def read_table(connection: psycopg.Connection[Any], attachment: Attachment) -> Table:
    """The table with the key that the attachment names. Raises UsageInvalid for what cannot be attached."""
    found = connection.execute(statement("table"), (attachment.schema, attachment.table)).fetchone()
    if found is None:
        raise UsageInvalid(
            f"attach: there is no table {attachment.qualified}", "name it as schema.table; views have no changes"
        )
    oid, is_partitioned, columns_ever_count = found
    columns = connection.execute(statement("columns"), (oid,)).fetchall()
    keys = attachment.key_columns or tuple(
        row[0] for row in connection.execute(statement("primary_key"), (oid,)).fetchall()
    )
    if not keys:
        raise UsageInvalid(
            f"attach: {attachment.qualified} has no primary key",
            "name the columns of a unique, not null, not deferrable key",
        )
    members = connection.execute(statement("members"), (oid, TRIGGER, oid)).fetchall()
    table = Table(
        oid,
        is_partitioned,
        columns_ever_count,
        {name: number for name, number, _ in columns},
        frozenset(name for name, _, seen in columns if not seen),
        keys,
        tuple(_member(row) for row in members),
    )
    _check_members(attachment, table)
    _check_columns(attachment, table)
    _check_key(attachment, table, [row[0] for row in connection.execute(statement("unique_keys"), (oid,)).fetchall()])
    return table


def _member(row: tuple[Any, ...]) -> Member:
    oid, schema, table, is_partition, partition_columns, columns, triggers, captured_by = row
    return Member(
        oid, schema, table, is_partition, tuple(partition_columns), tuple(columns), tuple(triggers), captured_by
    )


def _check_members(attachment: Attachment, table: Table) -> None:
    function = function_name(attachment.resource)
    for member in table.members:
        if member.captured_by in {None, function}:
            continue
        if member.oid == table.oid:
            raise UsageInvalid(
                f"attach: {attachment.qualified} is a partition of a table that is attached, or inherits from one",
                "its changes are captured there",
            )
        raise UsageInvalid(
            f"attach: {member.schema}.{member.table} belongs to {attachment.qualified} and is attached by itself",
            "detach it first: `clarion attach` lists what is attached",
        )


def _check_columns(attachment: Attachment, table: Table) -> None:
    organisation_column, label = attachment.named_organisation_column, attachment.label_column
    everywhere = {column for member in table.members for column in member.columns}
    for column in (*table.keys, *filter(None, (organisation_column, label))):
        if column not in table.columns:
            raise UsageInvalid(*_unknown(attachment, column, table.columns))
    for column in attachment.excluded_columns:
        # A child's own may be excluded too.
        if column not in everywhere:
            raise UsageInvalid(*_unknown(attachment, column, everywhere))
    for quote in BODY_QUOTES:
        if any(quote in column for column in table.columns):
            # It would end the function's body, and what follows it would run with the rights of whoever attaches.
            raise UsageInvalid(f"attach: {attachment.qualified} has a column with {quote} in its name")
    for column in filter(None, (organisation_column, label)):
        if column in table.unseen:
            raise UsageInvalid(f"attach: {column} is computed when it is read, so no change holds it")
    if set(table.keys) & set(attachment.excluded_columns):
        raise UsageInvalid("attach: a key column cannot be excluded")
    if label in attachment.excluded_columns:
        raise UsageInvalid(
            f"attach: {label} names the object for people and is excluded", "take another column as label"
        )


def _unknown(attachment: Attachment, column: str, columns: Collection[str]) -> tuple[str, str]:
    return f"attach: {attachment.qualified} has no column {column}", suggestion(column, columns)


def suggestion(name: str, known: Collection[str]) -> str:
    """'did you mean …?' with the nearest of the known names; empty if none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _check_key(attachment: Attachment, table: Table, unique_keys: Sequence[Sequence[str]]) -> None:
    wanted = set(table.keys)
    for found in unique_keys:
        # PostgreSQL wants the partition columns in each key; which of them name the object is the application's to say.
        if wanted == set(found) or (wanted < set(found) and set(found) - wanted <= table.partition_columns):
            return
    raise UsageInvalid(
        f"attach: ({', '.join(table.keys)}) is no unique, not null, not deferrable key of {attachment.qualified}",
        "without one the order of an object's changes cannot be kept",
    )
