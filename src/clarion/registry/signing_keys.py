"""The deployment's Ed25519 keys (v1a): the first one made at the start, others by rotation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from clarion.core.clock import Random
from clarion.database.acts import tell_person
from clarion.registry.encryption_key import hold_key_for_command
from clarion.sender.endpoint import signing_key_binding
from clarion.sender.seal import Sealer
from clarion.sender.signing_key import SEED_BYTES, jwk, public_key, whpk


@dataclass(frozen=True, slots=True)
class NewSigningKey:
    """A key that was made: `whpk_…`, its RFC 7638 thumbprint, from when it signs, and until when those before it do."""

    public_key: str
    kid: str
    signs_from: datetime
    former_until: datetime


def ensure_signing_key(connection: psycopg.Connection[Any], sealer: Sealer, random: Random) -> None:
    """Make the first key if there is none, and commit. At every start, in any number of processes, without harm."""
    if connection.execute("SELECT FROM clarion.signing_keys LIMIT 1").fetchone() is not None:
        connection.rollback()
        return
    _begin(connection, sealer)
    if connection.execute("SELECT FROM clarion.signing_keys LIMIT 1").fetchone() is None:
        _insert(connection, sealer, random, 0)
    connection.commit()


def rotate(
    connection: psycopg.Connection[Any], sealer: Sealer, random: Random, *, overlap_s: float, announce_s: float
) -> NewSigningKey:
    """A new key that is published at once and signs after `announce_s`; all before it sign for `overlap_s` longer.

    Both moments are whole seconds, as the timestamps of requests are. Committed.
    """
    _begin(connection, sealer)
    public, signs_from = _insert(connection, sealer, random, announce_s)
    row = connection.execute(
        "SELECT to_timestamp(ceil(extract(epoch FROM %s::timestamptz) + %s))", (signs_from, overlap_s)
    ).fetchone()
    assert row is not None
    connection.execute(
        "UPDATE clarion.signing_keys SET signs_until = least(signs_until, %s) WHERE public_key <> %s", (row[0], public)
    )
    made = NewSigningKey(whpk(public), jwk(public)["kid"], signs_from, row[0])
    tell_person(connection)
    connection.execute(_RECORD, (made.kid, made.public_key, signs_from, row[0]))
    connection.commit()
    return made


def _begin(connection: psycopg.Connection[Any], sealer: Sealer) -> None:
    """A transaction of the schema's owner that makes keys, one at a time."""
    connection.rollback()
    hold_key_for_command(connection, sealer)
    connection.execute("SELECT set_config('role', owner_role, true) FROM clarion.deployment")
    connection.execute("LOCK TABLE clarion.signing_keys IN SHARE ROW EXCLUSIVE MODE")


def _insert(
    connection: psycopg.Connection[Any], sealer: Sealer, random: Random, announce_s: float
) -> tuple[bytes, datetime]:
    seed = random.token(SEED_BYTES)
    public = public_key(seed)
    row = connection.execute(
        "INSERT INTO clarion.signing_keys (public_key, private_key_sealed, signs_from) "
        "VALUES (%s, %s, to_timestamp(floor(extract(epoch FROM clock_timestamp()) + %s))) RETURNING signs_from",
        (public, sealer.seal(seed, signing_key_binding(public)), announce_s),
    ).fetchone()
    assert row is not None
    return public, row[0]


_RECORD = """
    SELECT clarion.record_act(NULL, 'CREATE', 'SigningKey', %s, NULL,
           jsonb_build_object('publicKey', %s::text, 'signsFrom', %s::timestamptz, 'formerSignsUntil', %s::timestamptz))
"""
