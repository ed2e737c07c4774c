"""Clients and their API keys. A key is shown once, when it is made; only its SHA-256 is stored."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from clarion.access.principal import Role
from clarion.core.clock import Random
from clarion.core.errors import UsageInvalid
from clarion.database import tables

BOOTSTRAP_ORGANISATION = "default"
BOOTSTRAP_CLIENT = "bootstrap"
_BOOTSTRAP_PREFIX = "bootstrap"
_NAME_LENGTH_MAX = 200
_KEY_LENGTH_MIN = 32


def new_key(random: Random) -> str:
    """A key `clk_<8>_<43>`: eight hex digits to tell keys apart, then 32 random bytes in URL-safe base64."""
    tail = base64.urlsafe_b64encode(random.token(32)).rstrip(b"=").decode()
    return f"clk_{random.token(4).hex()}_{tail}"


def key_hash(key: str | bytes) -> bytes:
    """SHA-256 of the key's UTF-8 bytes, 32 bytes: what is stored and looked up."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def create_key(
    connection: Connection,
    organisation_name: str,
    client_name: str,
    role: Role,
    random: Random,
    *,
    kind: str = "MACHINE",
) -> str:
    """A new key in clear for a client of an organisation, both made when absent.

    Runs in the caller's transaction, as the schema's owner. Raises UsageInvalid if a name is unusable, or if the client
    exists with another role: a key must not silently mean something else than was asked for.
    """
    for what, name in (("organisation", organisation_name), ("client", client_name)):
        if not 1 <= len(name.strip()) <= _NAME_LENGTH_MAX or not name.isprintable():
            raise UsageInvalid(f"the {what}'s name must have 1 to {_NAME_LENGTH_MAX} printable characters")
    if kind not in {"MACHINE", "PERSON"}:
        raise UsageInvalid("a client is a MACHINE or a PERSON")
    _become_owner(connection)
    client = _ensure_client(connection, _ensure_organisation(connection, organisation_name), client_name, role, kind)
    if client.role != role:
        raise UsageInvalid(
            f"client {client_name!r} of organisation {organisation_name!r} exists with role {client.role}",
            "name that role, or another client",
        )
    key = new_key(random)
    _insert_key(connection, client, key, key[:12], client_name)
    return key


def ensure_bootstrap(connection: Connection, key: str) -> None:
    """Let `key` open organisation `default` as its administrator client `bootstrap`; without harm when it does already.

    The setting says which key is the bootstrap key: one that was set before and is another now is revoked.
    Runs in the caller's transaction, as the schema's owner. Raises UsageInvalid if the key is too short or is another
    client's.
    """
    if len(key) < _KEY_LENGTH_MIN:
        raise UsageInvalid(f"CLARION_BOOTSTRAP_API_KEY: must have at least {_KEY_LENGTH_MIN} characters")
    _become_owner(connection)
    organisation_id = _ensure_organisation(connection, BOOTSTRAP_ORGANISATION)
    client = _ensure_client(connection, organisation_id, BOOTSTRAP_CLIENT, Role.ADMINISTRATOR, "MACHINE")
    found = connection.execute(
        select(tables.api_keys.c.client_id, tables.api_keys.c.revoked).where(tables.api_keys.c.hash == key_hash(key))
    ).one_or_none()
    if found is not None and found.client_id != client.id:
        raise UsageInvalid("CLARION_BOOTSTRAP_API_KEY: this key belongs to another client", "choose a key of its own")
    own = tables.api_keys.c.client_id == client.id
    connection.execute(
        update(tables.api_keys)
        .where(
            own,
            tables.api_keys.c.prefix == _BOOTSTRAP_PREFIX,
            tables.api_keys.c.hash != key_hash(key),
            tables.api_keys.c.revoked.is_(None),
        )
        .values(revoked=func.now())
    )
    if found is None:
        _insert_key(connection, client, key, _BOOTSTRAP_PREFIX, BOOTSTRAP_CLIENT)
    elif found.revoked is not None:
        connection.execute(
            update(tables.api_keys).where(own, tables.api_keys.c.hash == key_hash(key)).values(revoked=None)
        )


@dataclass(frozen=True, slots=True)
class _Client:
    id: int
    organisation_id: int
    role: str


def _become_owner(connection: Connection) -> None:
    """Act as the schema's owner until the transaction ends; its name is in the database."""
    connection.execute(select(func.set_config("role", select(tables.deployment.c.owner_role).scalar_subquery(), True)))
    # One at a time, so that two processes that start together agree on who makes what.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("clarion.clients"))))


def _ensure_organisation(connection: Connection, name: str) -> int:
    # Looked at first: even an INSERT of no row would move the configuration's version.
    by_name = select(tables.organisations.c.id).where(tables.organisations.c.name == name)
    found = connection.execute(by_name).scalar_one_or_none()
    if found is None:
        found = connection.execute(
            insert(tables.organisations).values(name=name).returning(tables.organisations.c.id)
        ).scalar_one()
    return int(found)


def _ensure_client(connection: Connection, organisation_id: int, name: str, role: Role, kind: str) -> _Client:
    found = connection.execute(
        select(tables.clients.c.id, tables.clients.c.role).where(
            tables.clients.c.organisation_id == organisation_id, tables.clients.c.name == name
        )
    ).one_or_none()
    if found is not None:
        return _Client(found.id, organisation_id, found.role)
    client_id = connection.execute(
        insert(tables.clients)
        .values(organisation_id=organisation_id, name=name, kind=kind, role=role.value)
        .returning(tables.clients.c.id)
    ).scalar_one()
    return _Client(client_id, organisation_id, role.value)


def _insert_key(connection: Connection, client: _Client, key: str, prefix: str, client_name: str) -> None:
    key_id = connection.execute(
        insert(tables.api_keys)
        .values(organisation_id=client.organisation_id, client_id=client.id, prefix=prefix, hash=key_hash(key))
        .returning(tables.api_keys.c.id)
    ).scalar_one()
    connection.execute(
        insert(tables.history).values(
            organisation_id=client.organisation_id,
            client_id=None,
            client_name="command line",
            action="CREATE",
            object_type="ApiKey",
            object_id=str(key_id),
            before=None,
            after={"client": client_name, "role": client.role, "prefix": prefix},
        )
    )
