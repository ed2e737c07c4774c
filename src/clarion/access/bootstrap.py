"""The first way in: organisations, clients and keys made by whoever may work on the database itself, past the API.

All that is made or revoked stands in the history of the organisation that it belongs to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from sqlalchemy import Connection, func, insert, literal, null, select, update
from sqlalchemy.dialects.postgresql import JSONB

from clarion.access.clients import FIELDS, KIND
from clarion.access.clients import OBJECT_TYPE as CLIENT_TYPE
from clarion.access.fields import NAME_LENGTH_MAX
from clarion.access.keys import OBJECT_TYPE as KEY_TYPE
from clarion.access.keys import PREFIX_LENGTH, key_hash, new_key
from clarion.access.organisations import OWN_ORGANISATION
from clarion.access.principal import Role
from clarion.core.clock import Random
from clarion.core.encoding import timestamp
from clarion.core.errors import UsageInvalid
from clarion.database import tables
from clarion.database.acts import PERSON, person

BOOTSTRAP_CLIENT = "bootstrap"
_BOOTSTRAP_PREFIX = "bootstrap"
_KEY_LENGTH_MIN = 32


def create_key(
    connection: Connection,
    organisation_name: str,
    client_name: str,
    role: Role,
    random: Random,
    *,
    kind: str = "MACHINE",
    readable_resources: Collection[str] | None = None,
    publishable_resources: Collection[str] | None = None,
) -> str:
    """A new key in clear for a client of an organisation, both made when absent.

    `readable_resources` None: a new client reads all. `publishable_resources` None: a new client publishes what its role
    lets it. Runs in the caller's transaction, as the schema's owner. Raises UsageInvalid if a name is unusable, a resource
    is not registered, or the client exists with another role or other resources than those that are given: a key must not
    silently mean something else than was asked for.
    """
    for what, name in (("organisation", organisation_name), ("client", client_name)):
        if not 1 <= len(name.strip()) <= NAME_LENGTH_MAX or not name.isprintable():
            raise UsageInvalid(f"the {what}'s name must have 1 to {NAME_LENGTH_MAX} printable characters")
    if kind not in {"MACHINE", "PERSON"}:
        raise UsageInvalid("a client is a MACHINE or a PERSON")
    _become_owner(connection)
    given = {
        column: sorted(set(resources))
        for column, resources in (
            ("readable_resources", readable_resources),
            ("publishable_resources", publishable_resources),
        )
        if resources is not None
    }
    _require_registered(connection, {one for resources in given.values() for one in resources})
    organisation_id = _organisation(connection, organisation_name)
    client = _ensure_client(connection, organisation_id, client_name, role, kind, given)
    _require_same(client, organisation_name, client_name, {"role": role.value, **given})
    key = new_key(random)
    _insert_key(connection, client, key, key[:PREFIX_LENGTH])
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
    organisation_id = _organisation(connection, OWN_ORGANISATION)
    client = _ensure_client(connection, organisation_id, BOOTSTRAP_CLIENT, Role.ADMINISTRATOR, "MACHINE", {})
    found = connection.execute(
        select(tables.api_keys.c.id, tables.api_keys.c.client_id, tables.api_keys.c.revoked).where(
            tables.api_keys.c.hash == key_hash(key)
        )
    ).one_or_none()
    if found is not None and found.client_id != client.id:
        raise UsageInvalid("CLARION_BOOTSTRAP_API_KEY: this key belongs to another client", "choose a key of its own")
    own = tables.api_keys.c.client_id == client.id
    keys = tables.api_keys
    former = connection.execute(
        update(keys)
        .where(own, keys.c.prefix == _BOOTSTRAP_PREFIX, keys.c.hash != key_hash(key), keys.c.revoked.is_(None))
        .values(revoked=func.now())
        .returning(keys.c.id, keys.c.revoked)
    ).all()
    for key_id, revoked in former:
        after = {"revoked": timestamp(revoked)}
        _record(connection, organisation_id, "REVOKE", KEY_TYPE, key_id, {"revoked": None}, after)
    if found is None:
        _insert_key(connection, client, key, _BOOTSTRAP_PREFIX)
    elif found.revoked is not None:
        connection.execute(update(keys).where(keys.c.id == found.id).values(revoked=None, revoked_by_id=None))
        before = {"revoked": timestamp(found.revoked)}
        _record(connection, organisation_id, "UPDATE", KEY_TYPE, found.id, before, {"revoked": None})


@dataclass(frozen=True, slots=True)
class _Client:
    id: int
    organisation_id: int
    name: str
    kind: str
    role: str
    active: bool
    readable_resources: list[str] | None
    publishable_resources: list[str]


def _require_registered(connection: Connection, resources: Collection[str]) -> None:
    """Raises UsageInvalid for a resource that there is not."""
    names = tables.resources.c.name
    unknown = set(resources) - set(connection.execute(select(names).where(names.in_(resources))).scalars())
    if unknown:
        raise UsageInvalid(
            f"no resource is registered as {', '.join(sorted(unknown))}", "`clarion attach` registers a table"
        )


def _require_same(client: _Client, organisation_name: str, client_name: str, given: Mapping[str, object]) -> None:
    """Raises UsageInvalid if the client has another role, or other resources, than those that are given."""
    for column, value in given.items():
        present = getattr(client, column)
        if present != value:
            words = present if isinstance(present, str) else "all" if present is None else ", ".join(present) or "none"
            raise UsageInvalid(
                f"client {client_name!r} of organisation {organisation_name!r} exists with "
                f"{column.replace('_', ' ')} {words}",
                "name the same, or another client",
            )


def _become_owner(connection: Connection) -> None:
    """Act as the schema's owner until the transaction ends; its name is in the database."""
    connection.execute(select(func.set_config("role", select(tables.deployment.c.owner_role).scalar_subquery(), True)))
    # One at a time, so that two processes that start together agree on who makes what.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("clarion.clients"))))
    connection.execute(select(func.set_config(PERSON, person(), True)))


def _organisation(connection: Connection, name: str) -> int:
    """The id of the organisation of this name, made when absent."""
    return int(connection.execute(select(func.clarion.ensure_organisation(name))).scalar_one())


def _ensure_client(
    connection: Connection,
    organisation_id: int,
    name: str,
    role: Role,
    kind: str,
    resources: Mapping[str, Sequence[str]],
) -> _Client:
    """The client as it is, or made with this role, kind and `resources`, columns that the database would fill otherwise."""
    clients = tables.clients
    columns = [clients.c[field.name] for field in dataclass_fields(_Client)]
    by_name = select(*columns).where(clients.c.organisation_id == organisation_id, clients.c.name == name)
    found = connection.execute(by_name).one_or_none()
    if found is None:
        made = insert(clients).values(
            organisation_id=organisation_id, name=name, kind=kind, role=role.value, **resources
        )
        found = connection.execute(made.returning(*columns)).one()
        after = {field.api_name: getattr(found, field.column) for field in (KIND, *FIELDS)}
        _record(connection, organisation_id, "CREATE", CLIENT_TYPE, found.id, None, after)
    return _Client(*found)


def _insert_key(connection: Connection, client: _Client, key: str, prefix: str) -> None:
    key_id = connection.execute(
        insert(tables.api_keys)
        .values(organisation_id=client.organisation_id, client_id=client.id, prefix=prefix, hash=key_hash(key))
        .returning(tables.api_keys.c.id)
    ).scalar_one()
    after = {"clientId": client.id, "prefix": prefix, "expires": None, "revoked": None}
    _record(connection, client.organisation_id, "CREATE", KEY_TYPE, key_id, None, after)


def _record(
    connection: Connection,
    organisation_id: int,
    action: str,
    object_type: str,
    object_id: int,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
) -> None:
    """An entry of what was done on the database itself, in the history of this organisation."""
    sides = (null() if side is None else literal(side, JSONB) for side in (before, after))
    connection.execute(select(func.clarion.record_act(organisation_id, action, object_type, str(object_id), *sides)))
