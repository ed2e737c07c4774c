"""What the factory really changed, from Clarion's ledger."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from clarion.database.address import DatabaseAddress
from clarion.database.check import connect

_CHANGES: Final = """
SELECT change_id, resource, CASE action WHEN 'c' THEN 'CREATE' WHEN 'u' THEN 'UPDATE' ELSE 'DELETE' END, object_id,
       correlation_id, occurred_at, actor_id, actor_name, old, new
FROM clarion.ledger JOIN clarion.organisations ON organisations.id = organisation_id
WHERE organisations.name = 'default' AND """


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """One change; `occurred_at` in ISO 8601, `old` and `new` are empty where there is no such row."""

    change_id: int
    resource: str
    action: str
    object_id: str
    correlation_id: str
    occurred_at: str
    actor: dict[str, Any]
    old: dict[str, Any]
    new: dict[str, Any]

    @property
    def change(self) -> tuple[str, str, str]:
        """Resource, action and object, as an act names its changes."""
        return self.resource, self.action, self.object_id


def changes_of_acts(address: DatabaseAddress, correlation_ids: Collection[str]) -> list[LedgerChange]:
    """All changes that acts with these correlation ids made, those of the database's roll-ups included, in their order."""
    return list(_read(address, "correlation_id = ANY (%s) ORDER BY change_id", [list(correlation_ids)]))


def change_of_id(address: DatabaseAddress, change_id: int) -> LedgerChange:
    """The change with this number, which must exist."""
    (found,) = _read(address, "change_id = %s", [change_id])
    return found


def strangers_among(address: DatabaseAddress, changes: Collection[LedgerChange]) -> list[LedgerChange]:
    """Changes between the first and the last of these that none of their acts made."""
    numbers = [one.change_id for one in changes]
    own = {one.correlation_id for one in changes}
    between = _read(address, "change_id BETWEEN %s AND %s ORDER BY change_id", [min(numbers), max(numbers)])
    return [one for one in between if one.correlation_id not in own]


def _read(address: DatabaseAddress, where: str, values: list[Any]) -> Iterator[LedgerChange]:
    with connect(address, autocommit=True) as connection:
        rows = connection.execute((_CHANGES + where).encode(), values).fetchall()
    for change_id, resource, action, object_id, correlation_id, occurred_at, actor_id, actor_name, old, new in rows:
        yield LedgerChange(
            change_id,
            resource,
            action,
            object_id,
            correlation_id or "",
            occurred_at.isoformat(),
            {"id": actor_id, "name": actor_name},
            {} if old is None else json.loads(old),
            {} if new is None else json.loads(new),
        )
