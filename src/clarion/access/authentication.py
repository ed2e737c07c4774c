"""From a key to the client behind it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.keys import key_hash
from clarion.access.last_used import KeyUses
from clarion.access.principal import Origin, Principal, Role
from clarion.core.clock import Clock
from clarion.core.ids import ClientId, OrganisationId

CACHED_NS_MAX = 1_000_000_000
"""How long an answer may be used again: a revoked key is refused after one second at the latest."""

_ENTRIES_MAX = 10_000
_KEY_LENGTH_MAX = 512
_SCHEMES = frozenset({"bearer", "token"})


def presented_key(header: str | None) -> str | None:
    """The key in an Authorization header: `Bearer <key>`, `Token <key>` or the bare key; None if there is none."""
    if header is None:
        return None
    text = header.strip()
    scheme, _, rest = text.partition(" ")
    key = rest.strip() if scheme.lower() in _SCHEMES else text
    return key if 0 < len(key) <= _KEY_LENGTH_MAX and key.lower() not in _SCHEMES else None


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until_ns: int


class KeyCache:
    """Principals of keys seen within the last second, by hash. Unknown keys are not kept: a new key works at once.

    What comes in is noted in `uses`, once a second for a key that is in use all the time.
    """

    def __init__(self, clock: Clock, uses: KeyUses) -> None:
        self._clock = clock
        self._uses = uses
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def get(self, hashed: bytes) -> Principal | None:
        known = self._known.get(hashed)
        if known is None:
            return None
        if self._clock.monotonic_ns() >= known.until_ns:
            del self._known[hashed]
            return None
        return known.principal

    def put(self, hashed: bytes, principal: Principal) -> None:
        if principal.origin.api_key_id is not None:
            self._uses.note(principal.origin.api_key_id)
        self._known[hashed] = _Known(principal, self._clock.monotonic_ns() + CACHED_NS_MAX)
        self._known.move_to_end(hashed)
        while len(self._known) > _ENTRIES_MAX:
            self._known.popitem(last=False)


def hash_of_header_key(key: str) -> bytes:
    """The hash of a key that came in a header, whose bytes the server decoded as Latin-1."""
    return key_hash(key.encode("latin-1"))


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A key that is known but opens nothing any more: whose it is, and why."""

    principal: Principal
    reason: str


async def refused_key(connection: AsyncConnection, hashed: bytes) -> RefusedKey | None:
    """Whose key it is that has this hash and was refused; None if nobody's, or if it is of use after all."""
    found = func.clarion.client_of_refused_key(hashed).table_valued(
        "key_id", "client_id", "client_name", "client_kind", "client_role", "organisation_id", "reason"
    )
    row = (await connection.execute(select(found).where(true()))).one_or_none()
    if row is None:
        return None
    principal = Principal(
        ClientId(row.client_id),
        row.client_name,
        row.client_kind,
        Role(row.client_role),
        OrganisationId(row.organisation_id),
        origin=Origin(api_key_id=row.key_id),
    )
    return RefusedKey(principal, row.reason)


async def principal_of_key(connection: AsyncConnection, hashed: bytes) -> Principal | None:
    """The client whose key has this hash, or None: unknown, revoked, expired, or the client is inactive.

    The organisation is not known before; the function in the database looks at this one row and returns nothing else.
    """
    found = func.clarion.client_of_key(hashed).table_valued(
        "key_id",
        "client_id",
        "client_name",
        "client_kind",
        "client_role",
        "organisation_id",
        "readable_resources",
        "publishable_resources",
    )
    row = (await connection.execute(select(found).where(true()))).one_or_none()
    if row is None:
        return None
    return Principal(
        ClientId(row.client_id),
        row.client_name,
        row.client_kind,
        Role(row.client_role),
        OrganisationId(row.organisation_id),
        None if row.readable_resources is None else frozenset(row.readable_resources),
        frozenset(row.publishable_resources),
        Origin(api_key_id=row.key_id),
    )
