"""What differs between a change's old and new row. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import ne
from typing import NamedTuple

import msgspec

from clarion.core.encoding import split_object
from clarion.ledger.change import Action


class Difference(NamedTuple):
    """The fields that differ, in the order of the row, and the whole old row; both empty but for an UPDATE."""

    names: list[str]
    old: Mapping[str, msgspec.Raw]


_NOTHING = Difference([], {})
_UPDATE = Action.UPDATE.value


def difference(action: str, old: str | None, new: str | None) -> Difference:
    """Fields differ if their text does; one that only the old row has comes last. Raises ValueError for rows that are none."""
    if action != _UPDATE or old is None or new is None:
        return _NOTHING
    before, after = split_object(old), split_object(new)
    if list(before) == list(after):  # nearly always: two rows of one table
        names = list(compress(after, map(ne, before.values(), after.values())))
    else:
        names = [name for name, value in after.items() if before.get(name) != value]
        names += [name for name in before if name not in after]
    return Difference(names, before)


def changed_names(action: str, old: str | None, new: str | None) -> list[str]:
    """The names alone. Raises ValueError for rows that are none."""
    return difference(action, old, new).names
