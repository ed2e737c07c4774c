"""Request headers that a receiver wants with every request; their values are sealed, for they are often credentials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.errors import RequestRefused
from clarion.core.ids import ClientId, OrganisationId, ReceiverId
from clarion.database import tables
from clarion.registry import rights, rows
from clarion.registry.fields import refused
from clarion.sender.endpoint import header_binding
from clarion.sender.request import header_refusal, headers_refusal
from clarion.sender.seal import Sealer

OBJECT_TYPE = "WebhookHeader"
KEY_LENGTH_MAX = 200
MASK = "********"

_SEAL_BYTES = 89
"""What sealing adds to a value, so that the length of a sealed value tells that of the value."""


@dataclass(frozen=True, slots=True)
class HeaderDraft:
    """A header as the caller gave it; `repr` keeps the value to itself."""

    key: str
    value: str

    def __repr__(self) -> str:
        return f"HeaderDraft({self.key!r}, hidden)"


@dataclass(frozen=True, slots=True)
class Header:
    """A header as stored, without its value."""

    id: int
    receiver_id: ReceiverId
    key: str
    etag: str
    created: datetime
    updated: datetime
    created_by_id: ClientId | None
    updated_by_id: ClientId | None


def check_headers(drafts: Sequence[HeaderDraft]) -> tuple[HeaderDraft, ...]:
    """The headers of a new receiver. Raises RequestRefused naming `input.headers.<index>.key` or `.value`."""
    for index, draft in enumerate(drafts):
        check_key(draft.key, f"input.headers.{index}.key")
        check_value(draft.value, f"input.headers.{index}.value")
        if any(draft.key.lower() == other.key.lower() for other in drafts[:index]):
            raise refused("is there twice (names do not differ by case): leave one out", f"input.headers.{index}.key")
    refusal = headers_refusal([(draft.key, draft.value) for draft in drafts])
    if refusal is not None:
        raise refused(refusal, "input.headers")
    return tuple(drafts)


def check_key(key: str, field: str) -> None:
    """Raises RequestRefused if a header may not have this name."""
    refusal = header_refusal(key, "")
    if refusal is None and len(key) > KEY_LENGTH_MAX:
        refusal = f"a header's name has at most {KEY_LENGTH_MAX} characters"
    if refusal is not None:
        raise refused(refusal, field)


def check_value(value: str, field: str) -> None:
    """Raises RequestRefused if no header may have this value."""
    refusal = header_refusal("x-any", value)
    if refusal is not None:
        raise refused(refusal, field)


async def insert_headers(
    connection: AsyncConnection,
    principal: Principal,
    receiver_id: ReceiverId,
    drafts: Sequence[HeaderDraft],
    sealer: Sealer,
) -> list[Header]:
    """The headers as stored, in their order. The caller has checked them and holds the receiver."""
    if not drafts:
        return []
    written = await connection.execute(
        insert(tables.headers)
        .values(
            [
                {
                    "organisation_id": principal.organisation_id,
                    "receiver_id": receiver_id,
                    "key": draft.key,
                    "value_sealed": _sealed(sealer, principal.organisation_id, receiver_id, draft),
                    "created_by_id": principal.client_id,
                    "updated_by_id": principal.client_id,
                }
                for draft in drafts
            ]
        )
        .returning(*_COLUMNS)
    )
    headers = sorted((_header(row) for row in written), key=lambda header: header.id)
    await history.record(
        connection,
        principal,
        [history.Entry("CREATE", OBJECT_TYPE, str(header.id), after=_shown(header)) for header in headers],
    )
    return headers


async def create_header(
    connection: AsyncConnection, principal: Principal, receiver_id: ReceiverId, draft: HeaderDraft, sealer: Sealer
) -> Header:
    """The new header. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `input.receiverId`, INVALID_INPUT."""
    principal.require(Permission.WEBHOOKS_WRITE)
    check_key(draft.key, "input.key")
    check_value(draft.value, "input.value")
    receiver = await rows.locked_receiver(connection, principal, receiver_id, "input.receiverId")
    rights.require_control(principal, receiver, "input.receiverId")
    await _check_beside_others(connection, principal, receiver_id, draft, len(draft.value), None)
    return (await insert_headers(connection, principal, receiver_id, [draft], sealer))[0]


async def update_header(
    connection: AsyncConnection,
    principal: Principal,
    header_id: int,
    etag: str,
    given: Mapping[str, Any],
    sealer: Sealer,
) -> Header:
    """The header after the change of `key`, `value` or both.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `input.id`, CONFLICT on `input.etag`, INVALID_INPUT.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    for name, check in (("key", check_key), ("value", check_value)):
        if name in given:
            if given[name] is None:
                raise refused("must have a value; leave it out to keep it as it is", f"input.{name}")
            check(given[name], f"input.{name}")
    row = await _locked(connection, principal, header_id, "input.id")
    rows.compare_etag(row.etag, etag, "webhook header", "input.etag")
    before = _header(row)
    if "value" not in given and given.get("key", before.key) == before.key:
        return before
    value = given.get("value")
    if value is None:
        # The sealed value is bound to the name, so a new name needs it sealed anew.
        old_binding = header_binding(principal.organisation_id, row.receiver_id, row.key)
        value = sealer.unseal(row.value_sealed, old_binding).decode()
    draft = HeaderDraft(given.get("key", row.key), value)
    await _check_beside_others(connection, principal, row.receiver_id, draft, len(value), header_id)
    written = await connection.execute(
        update(tables.headers)
        .where(tables.headers.c.id == header_id, tables.headers.c.organisation_id == principal.organisation_id)
        .values(
            key=draft.key,
            value_sealed=_sealed(sealer, principal.organisation_id, row.receiver_id, draft),
            **rows.changed_by(principal),
        )
        .returning(*_COLUMNS)
    )
    after = _header(written.one())
    new = _shown(after) | ({"valueChanged": True} if "value" in given else {})
    await history.record(
        connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(header_id), _shown(before), new)]
    )
    return after


async def delete_header(connection: AsyncConnection, principal: Principal, header_id: int, etag: str) -> None:
    """Delete a header. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`."""
    principal.require(Permission.WEBHOOKS_WRITE)
    row = await _locked(connection, principal, header_id, "id")
    rows.compare_etag(row.etag, etag, "webhook header", "etag")
    await connection.execute(
        delete(tables.headers).where(
            tables.headers.c.id == header_id, tables.headers.c.organisation_id == principal.organisation_id
        )
    )
    await history.record(
        connection, principal, [history.Entry("DELETE", OBJECT_TYPE, str(header_id), before=_shown(_header(row)))]
    )


async def headers_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, Header]:
    """Those of the organisation's headers that have these ids."""
    headers = tables.headers.c
    found = await connection.execute(
        select(tables.headers).where(headers.organisation_id == organisation_id, headers.id.in_(ids))
    )
    return {row.id: _header(row) for row in found}


async def headers_of_receivers(
    connection: AsyncConnection, organisation_id: OrganisationId, receiver_ids: Sequence[int], first: int
) -> dict[int, list[Header]]:
    """The first headers of each receiver, by receiver id."""
    statement = rows.first_of_each(tables.headers, tables.headers.c.receiver_id, receiver_ids, organisation_id, first)
    found: dict[int, list[Header]] = {}
    for row in await connection.execute(statement):
        found.setdefault(row.receiver_id, []).append(_header(row))
    return found


def _sealed(sealer: Sealer, organisation_id: OrganisationId, receiver_id: int, draft: HeaderDraft) -> bytes:
    return sealer.seal(draft.value.encode(), header_binding(organisation_id, receiver_id, draft.key))


async def _locked(connection: AsyncConnection, principal: Principal, header_id: int, field: str) -> Row[Any]:
    """The header, held with its receiver. Raises RequestRefused: NOT_FOUND, FORBIDDEN."""
    receiver_id = await rows.receiver_of(connection, tables.headers, principal, header_id)
    if receiver_id is None:
        raise rows.not_found("webhook header", field)
    try:
        receiver = await rows.locked_receiver(connection, principal, receiver_id, field)
    except RequestRefused:
        raise rows.not_found("webhook header", field) from None
    headers = tables.headers.c
    row = (
        await connection.execute(
            select(tables.headers).where(headers.organisation_id == principal.organisation_id, headers.id == header_id)
        )
    ).one_or_none()
    if row is None:
        raise rows.not_found("webhook header", field)
    rights.require_control(principal, receiver, field)
    return row


async def _check_beside_others(
    connection: AsyncConnection,
    principal: Principal,
    receiver_id: int,
    draft: HeaderDraft,
    value_length: int,
    own_id: int | None,
) -> None:
    """Raises RequestRefused if the receiver's headers would be too many, too long, or two of one name."""
    headers = tables.headers.c
    others = await connection.execute(
        select(headers.key, (func.octet_length(headers.value_sealed) - _SEAL_BYTES).label("value_length")).where(
            headers.organisation_id == principal.organisation_id,
            headers.receiver_id == receiver_id,
            headers.id != (own_id or 0),
        )
    )
    lengths = [(row.key, row.value_length) for row in others]
    if any(key.lower() == draft.key.lower() for key, _length in lengths):
        raise refused(
            "the receiver has a header of this name (names do not differ by case): update that one", "input.key"
        )
    # Values of the same lengths stand for those that are sealed.
    refusal = headers_refusal([(key, "x" * length) for key, length in lengths] + [(draft.key, "x" * value_length)])
    if refusal is not None:
        raise refused(refusal, "input.value")


_COLUMNS = (
    tables.headers.c.id,
    tables.headers.c.receiver_id,
    tables.headers.c.key,
    tables.headers.c.etag,
    tables.headers.c.created,
    tables.headers.c.updated,
    tables.headers.c.created_by_id,
    tables.headers.c.updated_by_id,
)


def _header(row: Row[Any]) -> Header:
    return Header(
        row.id,
        ReceiverId(row.receiver_id),
        row.key,
        row.etag,
        row.created,
        row.updated,
        rows.optional_client(row.created_by_id),
        rows.optional_client(row.updated_by_id),
    )


def _shown(header: Header) -> dict[str, Any]:
    return {"receiverId": header.receiver_id, "key": header.key}
