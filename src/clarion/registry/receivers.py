"""Receivers: the registered HTTPS endpoints of integrators, and their shared secrets."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.clock import Random
from clarion.core.encoding import timestamp
from clarion.core.ids import ClientId, OrganisationId, ReceiverId
from clarion.database import tables
from clarion.database.filters import Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of
from clarion.registry import fields, rights, rows
from clarion.registry.fields import Field, Notice, refused
from clarion.registry.headers import HeaderDraft, check_headers, insert_headers
from clarion.sender.certificates import (
    EXPIRES_SOON,
    CertificateRefused,
    KeyRefused,
    check_authorities,
    check_client_certificate,
)
from clarion.sender.endpoint import client_key_binding, previous_secret_binding, secret_binding
from clarion.sender.policy import Policy, Rule
from clarion.sender.resolve import check_uri
from clarion.sender.seal import Sealer, SecretUnreadable
from clarion.sender.sign import new_secret, secret_bytes, secret_refusal

_log = logging.getLogger(__name__)

SECRET_BYTES_MIN = 24
OBJECT_TYPE = "WebhookReceiver"

SIGNATURES = ("V1", "V1A", "ION")
OVERLAP_SECONDS_MAX = 7 * 86_400
ORDERINGS = ("PER_OBJECT", "NONE")


def _shared_secret(value: str, field: str) -> str:
    refusal = secret_refusal(value)
    if refusal is not None:
        raise refused(refusal, field)
    if len(secret_bytes(value)) < SECRET_BYTES_MIN:
        raise refused(f"must have at least {SECRET_BYTES_MIN} bytes of key material", field)
    return value


FIELDS: tuple[Field, ...] = (
    Field("name", "name", fields.name),
    Field("description", "description", fields.description, nullable=True),
    Field("webhook_uri", "webhookUri", lambda value, _field: value),
    Field("content_type", "contentType", fields.content_type),
    Field("expected_response_code", "expectedResponseCode", fields.whole_number(200, 599), nullable=True),
    Field("active", "active", fields.flag),
    Field("retry_schedule", "retrySchedule", fields.retry_schedule),
    Field("timeout_seconds", "timeoutSeconds", fields.whole_number(1, 30)),
    Field("concurrency", "concurrency", fields.whole_number(1, 64)),
    Field("rate_limit_per_second", "rateLimitPerSecond", fields.whole_number(1, 100_000), nullable=True),
    Field("ordering", "ordering", fields.one_of(*ORDERINGS)),
    Field("lane_block_max_seconds", "laneBlockMaxSeconds", fields.whole_number(1, fields.MONTH_SECONDS), nullable=True),
    Field("signatures", "signatures", fields.some_of(*SIGNATURES)),
    Field("ca_certificates", "caCertificates", lambda value, _field: value, nullable=True),
    Field("client_certificate", "clientCertificate", lambda value, _field: value, nullable=True),
    Field("readable_resources", "readableResources", rights.check_rights, nullable=True),
)
_CLIENT_KEY_FIELD = Field("client_key", "clientPrivateKey", lambda value, _field: value, nullable=True)
_SECRET_FIELD = Field("shared_secret", "sharedSecret", _shared_secret)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver as stored, without its secret; `shared_secret_hint` is the secret's last four characters."""

    id: ReceiverId
    organisation_id: OrganisationId
    name: str
    description: str | None
    webhook_uri: str
    content_type: str
    expected_response_code: int | None
    active: bool
    disabled_reason: str | None
    retry_schedule: Sequence[int]
    timeout_seconds: int
    concurrency: int
    rate_limit_per_second: int | None
    ordering: str
    lane_block_max_seconds: int | None
    signatures: Sequence[str]
    ca_certificates: str | None
    client_certificate: str | None
    readable_resources: Sequence[str] | None
    previous_secret_until: datetime | None
    shared_secret_hint: str
    etag: str
    created: datetime
    updated: datetime
    created_by_id: ClientId | None
    updated_by_id: ClientId | None
    deleted: datetime | None


@dataclass(frozen=True, slots=True)
class ReceiverChange:
    """Checked values of a receiver to be, or to be changed. `warnings` are for its owner. `repr` hides the secrets.

    `client_key` is the key of `values["client_certificate"]`, None with that being None.
    """

    values: Mapping[str, Any]
    headers: tuple[HeaderDraft, ...]
    shared_secret: str | None
    client_key: str | None
    warnings: tuple[Notice, ...]

    def __repr__(self) -> str:
        return f"ReceiverChange({sorted(self.values)})"


async def check_receiver(
    given: Mapping[str, Any],
    headers: Sequence[HeaderDraft],
    policy: Policy,
    now: datetime,
    rules: Callable[[], Awaitable[tuple[Rule, ...]]],
) -> ReceiverChange:
    """The given values (by column, `shared_secret` and `client_key`), checked at the time `now`; `rules` as of `check_uri`.

    Takes up to 4 s for the lookup of a host's name. To be called outside of any transaction. Never contacts the receiver.
    Raises RequestRefused naming the input: INVALID_INPUT, or ADDRESS_NOT_ALLOWED for a destination that policy forbids.
    """
    values = fields.checked(FIELDS, given)
    secrets = fields.checked([_SECRET_FIELD], given)
    drafts = check_headers(headers)
    warnings = _check_certificates(values, given, now)
    if "webhook_uri" in values:
        found = await check_uri(values["webhook_uri"], policy, rules)
        warnings += [Notice(one.code, "input.webhookUri", one.message) for one in found]
    if "active" in values:
        values["disabled_reason"] = None if values["active"] else "MANUAL"
    return ReceiverChange(values, drafts, secrets.get("shared_secret"), given.get("client_key"), tuple(warnings))


def _check_certificates(values: Mapping[str, Any], given: Mapping[str, Any], now: datetime) -> list[Notice]:
    """What the owner should know of authorities and client certificate. Raises RequestRefused naming the input."""
    fields.checked([_CLIENT_KEY_FIELD], given)
    warnings: list[Notice] = []
    authorities, certificate, key = (
        *(values.get(name) for name in ("ca_certificates", "client_certificate")),
        given.get("client_key"),
    )
    if authorities is not None:
        field = "input.caCertificates"
        try:
            end = check_authorities(authorities, now)
        except CertificateRefused as refusal:
            raise refused(str(refusal), field) from None
        if end - now < EXPIRES_SOON:
            warnings.append(Notice("CA_CERTIFICATE_EXPIRES", field, f"an authority ends on {end:%Y-%m-%d}"))
    if ("client_certificate" in values) != ("client_key" in given) or (certificate is None) != (key is None):
        raise refused("clientCertificate and clientPrivateKey go together, both or neither", "input.clientCertificate")
    if certificate is not None and key is not None:
        field = "input.clientCertificate"
        try:
            end = check_client_certificate(certificate, key, now)
        except KeyRefused as refusal:
            raise refused(str(refusal), _CLIENT_KEY_FIELD.input_name) from None
        except CertificateRefused as refusal:
            raise refused(str(refusal), field) from None
        if end - now < EXPIRES_SOON:
            warnings.append(Notice("CLIENT_CERTIFICATE_EXPIRES", field, f"the certificate ends on {end:%Y-%m-%d}"))
    return warnings


async def create_receiver(
    connection: AsyncConnection, principal: Principal, change: ReceiverChange, sealer: Sealer, random: Random
) -> tuple[Receiver, str]:
    """The new receiver with its headers, and its shared secret in clear: the caller's own, or a fresh one.

    It may be sent what the client may read, unless told otherwise. Raises RequestRefused (FORBIDDEN), also on
    `input.readableResources`.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    values = {"readable_resources": rights.own_rights(principal), **change.values}
    rights.require_grantable(principal, (), values["readable_resources"])
    # The id is drawn first, because the sealed secret is bound to it.
    receiver_id = (await connection.execute(_NEXT_ID)).scalar_one()
    secret = change.shared_secret or new_secret(random)
    row = (
        await connection.execute(
            _INSERT,
            {
                "id": receiver_id,
                "organisation_id": principal.organisation_id,
                "created_by_id": principal.client_id,
                "updated_by_id": principal.client_id,
                **_sealed(sealer, principal.organisation_id, receiver_id, secret),
                **values,
                **_sealed_key(sealer, principal.organisation_id, receiver_id, change),
            },
        )
    ).one()
    receiver = Receiver(*row)
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(receiver.id), after=_shown(receiver))]
    )
    await insert_headers(connection, principal, receiver.id, change.headers, sealer)
    return receiver, secret


async def update_receiver(
    connection: AsyncConnection,
    principal: Principal,
    receiver_id: ReceiverId,
    etag: str,
    change: ReceiverChange,
    sealer: Sealer,
) -> Receiver:
    """The receiver after the change; what it does not name stays. Nothing is written if nothing differs.

    Raises RequestRefused: FORBIDDEN (also on `input.id` and `input.readableResources`), NOT_FOUND on `input.id`, CONFLICT on
    `input.etag`.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    row = await rows.locked_receiver(connection, principal, receiver_id, "input.id")
    before = _receiver(row)
    rows.compare_etag(before.etag, etag, "webhook receiver", "input.etag")
    values = {column: value for column, value in change.values.items() if getattr(before, column) != value}
    if change.shared_secret is not None:
        values |= _sealed(sealer, principal.organisation_id, receiver_id, change.shared_secret)
        values |= {"previous_secret_sealed": None, "previous_secret_until": None}
    if "client_certificate" in change.values:
        values |= _sealed_key(sealer, principal.organisation_id, receiver_id, change)
        values["client_certificate"] = change.values["client_certificate"]
    if not values:
        return before
    rights.require_control(principal, before, "input.id", values)
    rights.require_grantable(
        principal, before.readable_resources, values.get("readable_resources", before.readable_resources)
    )
    written = await connection.execute(
        update(tables.receivers)
        .where(tables.receivers.c.id == receiver_id, tables.receivers.c.organisation_id == principal.organisation_id)
        .values(**values, **rows.changed_by(principal))
        .returning(*_COLUMNS)
    )
    after = Receiver(*written.one())
    old, new = history.difference(_shown(before), _shown(after))
    if change.shared_secret is not None:
        new["sharedSecretChanged"] = True
    await history.record(connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(receiver_id), old, new)])
    return after


def check_rotation(shared_secret: str | None, overlap_seconds: int) -> None:
    """Raises RequestRefused (INVALID_INPUT) for an own secret that is too weak, or an overlap outside of 0 to 7 days."""
    if shared_secret is not None:
        _shared_secret(shared_secret, "input.sharedSecret")
    fields.whole_number(0, OVERLAP_SECONDS_MAX)(overlap_seconds, "input.overlapSeconds")


async def rotate_secret(
    connection: AsyncConnection,
    principal: Principal,
    receiver_id: ReceiverId,
    etag: str,
    shared_secret: str | None,
    overlap_seconds: int,
    sealer: Sealer,
    random: Random,
) -> tuple[Receiver, str]:
    """The receiver with a new shared secret, and that in clear: the caller's own (`check_rotation`), or a fresh one.

    The former one signs beside it for `overlap_seconds`, to the next whole second; one that was still signing from an
    earlier rotation ends now. A former secret that does not open cannot sign and is dropped.
    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `input.id`, CONFLICT on `input.etag`, INVALID_INPUT for the same secret.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    row = await rows.locked_receiver(connection, principal, receiver_id, "input.id")
    rows.compare_etag(row.etag, etag, "webhook receiver", "input.etag")
    rights.require_control(principal, row, "input.id")
    secret = shared_secret or new_secret(random)
    values = _sealed(sealer, principal.organisation_id, receiver_id, secret)
    values |= {"previous_secret_sealed": None, "previous_secret_until": None}
    try:
        former = sealer.unseal(row.shared_secret_sealed, secret_binding(principal.organisation_id, receiver_id))
    except SecretUnreadable as error:
        _log.error("receiver %s: %s", receiver_id, error)
    else:
        if former == secret.encode():
            raise refused(
                "is the receiver's secret already: leave it out for a new one, or send another", "input.sharedSecret"
            )
        if overlap_seconds:
            binding = previous_secret_binding(principal.organisation_id, receiver_id)
            values["previous_secret_sealed"] = sealer.seal(former, binding)
            ends = func.extract("epoch", func.clock_timestamp()) + overlap_seconds
            values["previous_secret_until"] = func.to_timestamp(func.ceil(ends))
    written = await connection.execute(
        update(tables.receivers)
        .where(tables.receivers.c.id == receiver_id, tables.receivers.c.organisation_id == principal.organisation_id)
        .values(**values, **rows.changed_by(principal))
        .returning(*_COLUMNS)
    )
    after = Receiver(*written.one())
    until = after.previous_secret_until
    done = {"sharedSecretRotated": True, "previousSecretUntil": None if until is None else timestamp(until)}
    await history.record(
        connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(receiver_id), before={}, after=done)]
    )
    return after, secret


async def delete_receiver(
    connection: AsyncConnection, principal: Principal, receiver_id: ReceiverId, etag: str
) -> None:
    """Delete a receiver and its subscriptions; their rows stay for the audit record.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    row = await rows.locked_receiver(connection, principal, receiver_id, "id")
    rows.compare_etag(row.etag, etag, "webhook receiver", "etag")
    await connection.execute(
        update(tables.receivers)
        .where(tables.receivers.c.id == receiver_id, tables.receivers.c.organisation_id == principal.organisation_id)
        .values(deleted=func.now(), **rows.changed_by(principal))
    )
    subscriptions = tables.subscriptions
    ended = await connection.execute(
        update(subscriptions)
        .where(
            subscriptions.c.receiver_id == receiver_id,
            subscriptions.c.organisation_id == principal.organisation_id,
            subscriptions.c.deleted.is_(None),
        )
        .values(deleted=func.now(), **rows.changed_by(principal))
        .returning(subscriptions.c.id, subscriptions.c.resource, subscriptions.c.action)
    )
    entries = [history.Entry("DELETE", OBJECT_TYPE, str(receiver_id), before=_shown(_receiver(row)))]
    entries += [
        history.Entry(
            "DELETE",
            "WebhookSubscription",
            str(subscription.id),
            before={"receiverId": receiver_id, "resource": subscription.resource, "action": subscription.action},
        )
        for subscription in ended
    ]
    await history.record(connection, principal, entries)


async def list_receivers(
    connection: AsyncConnection,
    organisation_id: OrganisationId,
    conditions: Sequence[Condition],
    sort: Sequence[SortKey],
    request: PageRequest,
) -> Page[Receiver]:
    """One page of the organisation's receivers, without deleted ones."""
    receivers = tables.receivers.c
    statement = select(*_COLUMNS).where(
        receivers.organisation_id == organisation_id, receivers.deleted.is_(None), *where(receivers, conditions)
    )
    found = [Receiver(*row) for row in await connection.execute(limited(statement, sort, request))]
    return page_of(found, sort, request, lambda receiver: [getattr(receiver, key.name) for key in sort])


async def count_receivers(
    connection: AsyncConnection, organisation_id: OrganisationId, conditions: Sequence[Condition]
) -> int:
    """How many receivers the whole filtered list has."""
    receivers = tables.receivers.c
    counted = await connection.execute(
        select(func.count()).where(
            receivers.organisation_id == organisation_id, receivers.deleted.is_(None), *where(receivers, conditions)
        )
    )
    return int(counted.scalar_one())


async def receivers_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, Receiver]:
    """Those of the organisation's receivers that have these ids, deleted ones included: the audit record names them."""
    receivers = tables.receivers.c
    found = await connection.execute(
        select(*_COLUMNS).where(receivers.organisation_id == organisation_id, receivers.id.in_(ids))
    )
    return {row.id: Receiver(*row) for row in found}


async def reveal_secrets(
    connection: AsyncConnection, principal: Principal, ids: Collection[int], sealer: Sealer
) -> dict[int, str]:
    """Shared secrets in clear by receiver id, without those that do not open; each reveal is recorded.

    The caller shows them only once its transaction is committed. Raises RequestRefused (FORBIDDEN).
    """
    principal.require(Permission.SECRETS_REVEAL)
    receivers = tables.receivers.c
    found = await connection.execute(
        select(receivers.id, receivers.shared_secret_sealed).where(
            receivers.organisation_id == principal.organisation_id, receivers.id.in_(ids)
        )
    )
    revealed: dict[int, str] = {}
    for row in found:
        binding = secret_binding(principal.organisation_id, row.id)
        try:
            revealed[row.id] = sealer.unseal(row.shared_secret_sealed, binding).decode()
        except SecretUnreadable as error:
            _log.error("receiver %s: %s", row.id, error)
    await history.record(
        connection, principal, [history.Entry("REVEAL", OBJECT_TYPE, str(receiver_id)) for receiver_id in revealed]
    )
    return revealed


def masked(hint: str) -> str:
    """A secret as shown to those who may not read it."""
    return f"********{hint}"


def _sealed(sealer: Sealer, organisation_id: OrganisationId, receiver_id: int, secret: str) -> dict[str, Any]:
    return {
        "shared_secret_sealed": sealer.seal(secret.encode(), secret_binding(organisation_id, receiver_id)),
        "shared_secret_hint": secret[-4:],
    }


def _sealed_key(
    sealer: Sealer, organisation_id: OrganisationId, receiver_id: int, change: ReceiverChange
) -> dict[str, Any]:
    if change.client_key is None:
        return {"client_key_sealed": None}
    binding = client_key_binding(organisation_id, receiver_id)
    return {"client_key_sealed": sealer.seal(change.client_key.encode(), binding)}


_COLUMNS = tuple(tables.receivers.c[field.name] for field in dataclass_fields(Receiver))
# Made once: to build a statement costs more than to run it.
_INSERT = insert(tables.receivers).returning(*_COLUMNS)
_NEXT_ID = select(func.nextval("clarion.receivers_id_seq"))


_receiver = rows.reader_of(Receiver)


def _shown(receiver: Receiver) -> dict[str, Any]:
    """What the history keeps of a receiver: every value that a caller may set, except the secret."""
    shown = {field.api_name: getattr(receiver, field.column) for field in FIELDS}
    return shown | {"disabledReason": receiver.disabled_reason}
