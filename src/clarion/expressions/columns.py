"""What an expression may look at: the columns of a resource, and which kind of value each is in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from types import MappingProxyType


class ValueKind(Enum):
    """What a value is to an expression; the text is how messages call it."""

    TEXT = "text"
    WHOLE = "a whole number"
    DECIMAL = "a decimal number"
    TRUTH = "true or false"
    LIST = "a list"
    MAP = "a map"
    ROW = "a row"
    NULL = "null"
    TIMESTAMP = "a timestamp"
    DURATION = "a duration"
    BYTES = "bytes"
    ANY = "a value of any kind"


COLUMN_KINDS = MappingProxyType(
    {
        kind.name: kind
        for kind in (ValueKind.TEXT, ValueKind.WHOLE, ValueKind.DECIMAL, ValueKind.TRUTH, ValueKind.LIST, ValueKind.ANY)
    }
)
"""The kinds that columns have, by the names that the catalogue's query gives them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The rows that an expression will see.

    `columns` None: the resource has no table, so that any field may be there. `excluded` columns never leave the
    database. `action` is CREATE, UPDATE or DELETE: a created object has no `oldObject`, a deleted one no `object`.
    """

    resource: str
    action: str
    columns: Mapping[str, ValueKind] | None
    excluded: frozenset[str] = frozenset()

    @property
    def absent_row(self) -> str | None:
        """The variable that there is no row for, if any."""
        return {"CREATE": "oldObject", "DELETE": "object"}.get(self.action)

    @property
    def decimals(self) -> frozenset[str]:
        """The columns that are decimal numbers."""
        return frozenset(name for name, kind in (self.columns or {}).items() if kind is ValueKind.DECIMAL)

    def unknown_column(self, column: str) -> str:
        """What to say of a column that expressions and bodies do not know."""
        assert self.columns is not None
        if column in self.excluded:
            return f"column {column} of {self.resource} never leaves the database"
        close = get_close_matches(column, self.columns, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {_listed(self.columns)}"
        return f"{self.resource} has no column {column}: {hint}"


_LISTED_MAX = 12


def _listed(columns: Mapping[str, ValueKind]) -> str:
    shown = sorted(columns)
    more = len(shown) - _LISTED_MAX
    return ", ".join(shown[:_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")
