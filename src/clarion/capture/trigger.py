"""The text of a resource's trigger functions, put together from the parts in attach.sql."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import LiteralString, cast

from psycopg import sql

from clarion.capture.attachment import Attachment, OnTruncate
from clarion.capture.names import ORGANISATION_MARK, TRUNCATE_ROWS_TRIGGER, function_names
from clarion.capture.table import Table


def _parts() -> dict[str, LiteralString]:
    """The parts by name, without the comments before them: what is created is found in the catalogue as it stands here."""
    text = files("clarion.capture").joinpath("attach.sql").read_text(encoding="utf-8")
    _, *named = re.split(r"^-- name: (\w+)\n(?:--.*\n)*", text, flags=re.MULTILINE)
    return {name: cast("LiteralString", part.rstrip("\n")) for name, part in zip(named[::2], named[1::2], strict=True)}


_PARTS = _parts()


def _part(name: str, **values: sql.Composable) -> sql.Composed:
    return sql.SQL(_PARTS[name]).format(**values)


@dataclass(frozen=True, slots=True)
class _Side:
    """The record that a row is read from, and the function's variables for what is read of it."""

    record: sql.SQL
    key: sql.SQL
    organisation: sql.SQL
    organisation_id: sql.SQL
    row: sql.SQL
    kept: sql.SQL
    stable: sql.SQL


_OLD = _Side(
    record=sql.SQL("OLD"),
    key=sql.SQL("key_old"),
    organisation=sql.SQL("organisation_old"),
    organisation_id=sql.SQL("organisation_id_old"),
    row=sql.SQL("row_old"),
    kept=sql.SQL("kept_old"),
    stable=sql.SQL("stable_old"),
)
_NEW = _Side(
    record=sql.SQL("NEW"),
    key=sql.SQL("key_new"),
    organisation=sql.SQL("organisation_new"),
    organisation_id=sql.SQL("organisation_id_new"),
    row=sql.SQL("row_new"),
    kept=sql.SQL("kept_new"),
    stable=sql.SQL("stable_new"),
)
_GONE = replace(_OLD, record=sql.SQL("(gone.t)"))
_NULL = sql.SQL("NULL")


class Functions:
    """The trigger functions of one attachment. `organisation_id` is the fixed one's, None if there is none yet."""

    def __init__(self, attachment: Attachment, table: Table, organisation_id: int | None) -> None:
        self._attachment = attachment
        self._table = table
        self._resource = sql.Literal(attachment.resource)
        self._organisation_id: sql.Composable = (
            sql.SQL(ORGANISATION_MARK) if organisation_id is None else sql.Literal(organisation_id)
        )
        hidden = {*attachment.excluded_columns, *table.unseen}
        self._kept = [column for column in table.columns if column not in hidden]
        self._excluded = [column for column in attachment.excluded_columns if column in table.columns]
        self._all_shown = not hidden
        self._stable_keys = [key for key in table.keys if key not in table.partition_columns]

    def statements(self) -> dict[str, sql.Composed]:
        """What makes each function, by its name."""
        names = function_names(self._attachment.resource)
        made = {names["capture"]: self._capture(names["capture"])}
        if self._attachment.on_truncate is OnTruncate.DELETE:
            made[names["truncate"]] = _part(
                "truncate",
                function=sql.Identifier(names["truncate"]),
                rows_trigger=sql.Literal(TRUNCATE_ROWS_TRIGGER),
            )
            made[names["truncate_rows"]] = self._truncate_rows(names["truncate_rows"])
        return made

    def _capture(self, function: str) -> sql.Composed:
        moves = self._table.is_partitioned
        return _part(
            "capture",
            function=sql.Identifier(function),
            resource=self._resource,
            variables=self._variables(_OLD, _NEW, moves=moves),
            read_both=self._read(_OLD, _NEW),
            read_old=self._read(_OLD),
            read_new=self._read(_NEW),
            same=self._same(),
            deleted=self._deleted(sql.SQL("OLD.ctid")),
            created=_part("created", resource=self._resource, **self._owner(_NEW), **_circumstances()),
            note_delete=self._note_delete() if moves else sql.SQL(""),
            find_delete=self._find_delete() if moves else sql.SQL(""),
            settings=_part("settings"),
            **self._owner(_NEW),
            **_circumstances(),
        )

    def _truncate_rows(self, function: str) -> sql.Composed:
        return _part(
            "truncate_rows",
            function=sql.Identifier(function),
            settings=_part("settings"),
            variables=self._variables(_OLD),
            read_old=self._read(_GONE),
            # The cursor yields rows, not their places.
            deleted=self._deleted(_NULL),
        )

    def _variables(self, *sides: _Side, moves: bool = False) -> sql.Composed:
        names = [name for side in sides for name in (side.key, side.organisation, side.row)]
        names += [side.stable for side in sides if moves]
        declared = [sql.SQL("{} text;").format(name) for name in names]
        declared += [sql.SQL("{} bigint;").format(side.organisation_id) for side in sides]
        declared += [sql.SQL("problem text;").format(), *([sql.SQL("moving text;").format()] if moves else [])]
        return sql.SQL("\n    ").join(declared)

    def _owner(self, side: _Side) -> dict[str, sql.Composable]:
        """Whose row it is, as the side's columns of the outbox; as a literal where it is always the same."""
        attachment = self._attachment
        names = (
            ("organisation_old", "organisation_id_old") if side is _OLD else ("organisation_new", "organisation_id_new")
        )
        if attachment.organisation_column:
            return dict(zip(names, (side.organisation, _NULL), strict=True))
        if attachment.organisation_id_column:
            return dict(zip(names, (_NULL, side.organisation_id), strict=True))
        return dict(zip(names, (_NULL, self._organisation_id), strict=True))

    def _deleted(self, old_ctid: sql.SQL) -> sql.Composed:
        return _part("deleted", resource=self._resource, old_ctid=old_ctid, **self._owner(_OLD), **_circumstances())

    def _same(self) -> sql.Composed:
        """Whether the object is the same before and after, and of the same organisation."""
        same = [sql.SQL("key_old = key_new").format()]
        if self._attachment.organisation_column:
            same.append(sql.SQL("organisation_old IS NOT DISTINCT FROM organisation_new").format())
        if self._attachment.organisation_id_column:
            same.append(sql.SQL("organisation_id_old IS NOT DISTINCT FROM organisation_id_new").format())
        return sql.SQL(" AND ").join(same)

    def _note_delete(self) -> sql.Composed:
        return sql.SQL("\n") + self._stable(_OLD) + _part("note_delete", resource=self._resource)

    def _find_delete(self) -> sql.Composed:
        return sql.SQL("\n") + self._stable(_NEW) + _part("find_delete", resource=self._resource)

    def _stable(self, side: _Side) -> sql.Composed:
        """What of the key stays when the row moves, if that is all of it: whichever way the key was read."""
        if len(self._stable_keys) < len(self._table.keys):
            return sql.Composed([])
        return sql.SQL("        ") + _assign(side.stable, side.key) + sql.SQL("\n")

    def _read(self, *sides: _Side) -> sql.Composed:
        """Reads the sides, whatever became of the columns."""
        read = [] if self._all_shown else [self._rows(sides)]
        read += [self._side(side) for side in sides]
        nothing = [_assign(side.key, sql.SQL("coalesce({}, '')").format(side.key)) for side in sides]
        return _part(
            "read",
            read=sql.SQL("\n            ").join(read),
            read_anyhow=sql.SQL("\n").join(self._anyhow(side) for side in sides),
            or_nothing=sql.SQL(" ").join(nothing),
        )

    def _rows(self, sides: Sequence[_Side]) -> sql.Composed:
        rows, sources = [], []
        for side in sides:
            columns = [sql.SQL("{}.{}").format(side.record, sql.Identifier(column)) for column in self._kept]
            # With the star, because a column may have the same name.
            rows.append(sql.SQL("row_to_json({}.*)::text").format(side.kept))
            sources.append(sql.SQL("(SELECT {}) AS {}").format(sql.SQL(", ").join(columns), side.kept))
        # A trigger's record is asked for columns by name, and has no field of a name that is gone. A cursor's row is not.
        checked = list(self._table.columns) if _GONE in sides else self._excluded
        return _part(
            "rows",
            rows=sql.SQL(", ").join(rows),
            targets=sql.SQL(", ").join(side.row for side in sides),
            sources=sql.SQL(", ").join(sources),
            oid=sql.Literal(self._table.oid),
            count=sql.Literal(self._table.columns_ever_count),
            numbers=_array([self._table.columns[column] for column in checked]),
            names=_array(checked),
            checked_count=sql.Literal(len(checked)),
        )

    def _side(self, side: _Side) -> sql.Composed:
        """Reads key, organisation and row of one side by the columns' names."""
        attachment, keys, record = self._attachment, self._table.keys, side.record
        statements = [_assign(side.key, _key(record, keys))]
        if attachment.organisation_column:
            column = sql.Identifier(attachment.organisation_column)
            statements.append(_assign(side.organisation, sql.SQL("{}.{}::text").format(record, column)))
        statements += self._organisation_by_id(side)
        if self._all_shown:
            statements.append(_assign(side.row, sql.SQL("row_to_json({})::text").format(record)))
        if self._table.is_partitioned and side is not _GONE and 0 < len(self._stable_keys) < len(keys):
            statements.append(_assign(side.stable, _array_of(record, self._stable_keys)))
        return sql.SQL("\n            ").join(statements)

    def _organisation_by_id(self, side: _Side) -> list[sql.Composed]:
        if not self._attachment.organisation_id_column:
            return []
        column = sql.Identifier(self._attachment.organisation_id_column)
        return [_assign(side.organisation_id, sql.SQL("{}.{}").format(side.record, column))]

    def _anyhow(self, side: _Side) -> sql.Composed:
        table, organisation = self._table, self._attachment.organisation_column
        read = _part(
            "anyhow",
            key=side.key,
            organisation=side.organisation,
            row=side.row,
            record=side.record,
            oid=sql.Literal(table.oid),
            keys=_array(table.keys),
            key_numbers=_array([table.columns[key] for key in table.keys]),
            excluded=_array(self._attachment.excluded_columns),
            excluded_numbers=_array([table.columns[column] for column in self._excluded]),
            organisation_column=sql.Literal(organisation),
            organisation_number=sql.Literal(table.columns[organisation] if organisation else None),
        )
        return sql.SQL(" ").join([read, *self._organisation_by_id(side)])


def _circumstances() -> dict[str, sql.Composable]:
    return {"circumstances": _part("circumstances")}


def _assign(variable: sql.SQL, value: sql.Composable) -> sql.Composed:
    return sql.SQL("{} := {};").format(variable, value)


def _array(values: Sequence[str] | Sequence[int]) -> sql.Literal:
    return sql.Literal("{" + ",".join(_element(value) for value in values) + "}")


def _element(value: str | int) -> str:
    """The value inside of an array's text."""
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'


def _key(record: sql.SQL, keys: Sequence[str]) -> sql.Composed:
    """The object id: the key column as text, or a JSON array of several as text."""
    if len(keys) == 1:
        # Empty, should the column have lost its NOT NULL since.
        return sql.SQL("coalesce({}.{}::text, '')").format(record, sql.Identifier(keys[0]))
    return _array_of(record, keys)


def _array_of(record: sql.SQL, columns: Sequence[str]) -> sql.Composed:
    values = [sql.SQL("{}.{}::text").format(record, sql.Identifier(column)) for column in columns]
    return sql.SQL("json_build_array({})::text").format(sql.SQL(", ").join(values))
