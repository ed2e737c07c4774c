"""The key-encryption key, rotated under a running deployment.

The order of a rotation, with what each crash leaves:

1. The new key is written to `<name>.next`. Crash: the database still names the old key, which is in place.
2. One transaction wraps every sealed value anew and changes the fingerprint. Crash: all of it, or nothing.
3. The old key becomes `<name>.previous`, then the new one takes its place. Crash: the database names the key at
   `<name>.next`; whatever starts next takes that and completes this step.

Whoever runs meanwhile holds the old key and, when a value does not open, looks at all three places; the new key is at
one of them before the first value is wrapped with it. Whoever seals holds the key (`HOLD_KEY`), so that nothing is sealed
with the old one once the values are wrapped anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from clarion.capture.attach import TRIGGER
from clarion.capture.guard import window_of_transaction
from clarion.core.clock import Random
from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.database.acts import tell_person
from clarion.sender.endpoint import (
    client_key_binding,
    header_binding,
    idempotency_binding,
    previous_secret_binding,
    secret_binding,
    signing_key_binding,
)
from clarion.sender.seal import (
    Sealer,
    SecretUnreadable,
    fingerprint,
    load_key,
    next_path,
    promote_next,
    write_key,
)

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = logging.getLogger(__name__)

_SEALING = "clarion.sealing"
_ROTATION = "clarion.encryption_key"
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Sealed:
    """One column of sealed values; `columns` is what `binding` is made of."""

    table: str
    column: str
    columns: tuple[str, ...]
    binding: Callable[..., str]


_SEALED = (
    _Sealed("receivers", "shared_secret_sealed", ("organisation_id", "id"), secret_binding),
    _Sealed("receivers", "previous_secret_sealed", ("organisation_id", "id"), previous_secret_binding),
    _Sealed("receivers", "client_key_sealed", ("organisation_id", "id"), client_key_binding),
    _Sealed("headers", "value_sealed", ("organisation_id", "receiver_id", "key"), header_binding),
    _Sealed("signing_keys", "private_key_sealed", ("public_key",), signing_key_binding),
    _Sealed("idempotency_keys", "answer_sealed", ("client_id", "key"), idempotency_binding),
)


@dataclass(frozen=True, slots=True)
class Rotated:
    """The new key's fingerprint, how many values it opens now, and how many no key opened before either."""

    fingerprint: str
    rewrapped: int
    unreadable: int


HOLD_KEY = f"SELECT pg_advisory_xact_lock_shared(hashtext('{_SEALING}'))"
"""From this statement on the database's key stays the same until the transaction ends."""


async def use_held_key(connection: AsyncConnection, sealer: Sealer) -> None:
    """Make `sealer` use the database's key, after HOLD_KEY in the same transaction.

    Raises EnvironmentRefused if this process cannot find that key.
    """
    # A statement of its own: it must see what was committed while the lock was waited for.
    stored = await connection.scalar(_stored_fingerprint())
    if stored not in {None, sealer.fingerprint} and not sealer.use(stored):
        raise _other_key()


async def hold_key(connection: AsyncConnection, sealer: Sealer) -> None:
    """HOLD_KEY and `use_held_key` in a transaction that is under way. Raises EnvironmentRefused."""
    from sqlalchemy import text

    await connection.execute(text(HOLD_KEY))
    await use_held_key(connection, sealer)


@cache
def _stored_fingerprint() -> Select[Any]:
    from sqlalchemy import select

    from clarion.database import tables

    return select(tables.deployment.c.secret_key_fingerprint)


def hold_key_for_command(connection: psycopg.Connection[Any], sealer: Sealer) -> None:
    """As `hold_key`, for commands and for the start."""
    connection.execute(HOLD_KEY)
    stored = stored_fingerprint(connection)
    if stored not in {None, sealer.fingerprint} and not sealer.use(str(stored)):
        raise _other_key()


def _other_key() -> EnvironmentRefused:
    return EnvironmentRefused(
        "this process does not have the key-encryption key that the database's secrets are sealed with",
        "put it at CLARION_SECRET_KEY_FILE of every host",
    )


def stored_fingerprint(connection: psycopg.Connection[Any]) -> str | None:
    """The fingerprint of the key that the database's secrets are sealed with; None before the first start."""
    row = connection.execute("SELECT secret_key_fingerprint FROM clarion.deployment").fetchone()
    return row[0] if row else None


def finish_rotation(connection: psycopg.Connection[Any], path: Path, stored: str) -> None:
    """Complete a rotation that was cut short after its transaction: the key at `<path>.next` takes its place.

    Nothing happens while another process rotates, or where files cannot be moved: the key is found where it is.
    """
    if not _is_next(path, stored) or not _try_lock(connection):
        return
    try:
        # Anew under the lock: another start may have moved it, or another rotation begun.
        if _is_next(path, stored_fingerprint(connection)):
            promote_next(path)
            _log.warning("a rotation of the encryption key that was cut short is complete: %s", path)
    except EnvironmentRefused as error:
        _log.warning("%s", error)
    finally:
        _unlock(connection)


def _is_next(path: Path, stored: str | None) -> bool:
    try:
        return fingerprint(load_key(next_path(path))) == stored
    except EnvironmentRefused:
        return False


def rotate(
    connection: psycopg.Connection[Any],
    path: Path,
    current: bytes,
    new: bytes,
    random: Random,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Rotated:
    """Wrap all sealed values with `new` instead of `current`, the key at `path`, and put it there.

    Raises UsageInvalid if `new` is in use already, EnvironmentRefused if another rotation runs or a file cannot be written.
    """
    if new == current:
        raise UsageInvalid("the new key-encryption key is in use already", "nothing was changed")
    if not _try_lock(connection):
        raise EnvironmentRefused(
            "another rotation of the encryption key is under way", "wait until it has ended; nothing was changed"
        )
    try:
        _write_next(path, new, random)
        progress(f"the new key is at {next_path(path)}")
        done = _rewrap_all(connection, current, new, random, progress)
        progress("the database is sealed with the new key")
        promote_next(path)
        progress(f"the new key is at {path}")
    finally:
        _unlock(connection)
    return done


def _write_next(path: Path, new: bytes, random: Random) -> None:
    following = next_path(path)
    if following.exists():
        try:
            if load_key(following) == new:
                return
        except EnvironmentRefused:
            pass  # what stands there is no key: written anew
    write_key(following, new, random)


def _rewrap_all(
    connection: psycopg.Connection[Any],
    current: bytes,
    new: bytes,
    random: Random,
    progress: Callable[[str], None],
) -> Rotated:
    sealer = Sealer(new, random, lambda: (current,))
    connection.rollback()
    with connection.transaction():
        connection.execute("SELECT set_config('role', owner_role, true) FROM clarion.deployment")
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (_SEALING,))
        if stored_fingerprint(connection) != fingerprint(current):
            raise EnvironmentRefused("the encryption key was rotated meanwhile", "start again; nothing was changed")
        captured = ("receivers", "headers")
        # How a value is wrapped is no change that anybody subscribed to. Switched off and on inside the transaction: others
        # wait with their writes, and a crash leaves the triggers as they were.
        with window_of_transaction(connection, "the encryption key is rotated", by="clarion keys"):
            for table in captured:
                connection.execute(_ALTER.format(sql.Identifier(table), sql.SQL("DISABLE"), sql.Identifier(TRIGGER)))
        rewrapped = unreadable = 0
        for sealed in _SEALED:
            good, bad = _rewrap_column(connection, sealed, sealer)
            rewrapped, unreadable = rewrapped + good, unreadable + bad
            progress(f"{sealed.table}.{sealed.column}: {good} rewrapped" + (f", {bad} did not open" if bad else ""))
        for table in captured:
            connection.execute(_ALTER.format(sql.Identifier(table), sql.SQL("ENABLE ALWAYS"), sql.Identifier(TRIGGER)))
        connection.execute("UPDATE clarion.deployment SET secret_key_fingerprint = %s", (fingerprint(new),))
        tell_person(connection)
        connection.execute(_RECORD, (fingerprint(new), fingerprint(current), fingerprint(new)))
    return Rotated(fingerprint(new), rewrapped, unreadable)


_ALTER = sql.SQL("ALTER TABLE clarion.{} {} TRIGGER {}")

_RECORD = """
    SELECT clarion.record_act(NULL, 'UPDATE', 'EncryptionKey', %s,
                              jsonb_build_object('fingerprint', %s::text), jsonb_build_object('fingerprint', %s::text))
"""


def _rewrap_column(connection: psycopg.Connection[Any], sealed: _Sealed, sealer: Sealer) -> tuple[int, int]:
    """How many values were wrapped anew, and how many did not open and are left as they are."""
    names = {
        "table": sql.Identifier(sealed.table),
        "column": sql.Identifier(sealed.column),
        "columns": sql.SQL(", ").join(map(sql.Identifier, sealed.columns)),
    }
    read = sql.SQL(
        "SELECT id, {column}, {columns} FROM clarion.{table} WHERE {column} IS NOT NULL AND id > %s ORDER BY id LIMIT %s"
    )
    write = sql.SQL(
        "UPDATE clarion.{table} t SET {column} = n.sealed "
        "FROM unnest(%s::bigint[], %s::bytea[]) AS n (id, sealed) WHERE t.id = n.id"
    )
    last = rewrapped = unreadable = 0
    # A batch at a time: answers that are kept may be many, and large.
    while rows := connection.execute(read.format(**names), (last, _BATCH)).fetchall():
        ids: list[int] = []
        values: list[bytes] = []
        for row_id, value, *parts in rows:
            try:
                values.append(sealer.rewrap(value, sealed.binding(*parts)))
                ids.append(row_id)
            except SecretUnreadable:
                unreadable += 1
                _log.error("%s.%s of row %s does not open and is left as it is", sealed.table, sealed.column, row_id)
        connection.execute(write.format(**names), (ids, values))
        last, rewrapped = rows[-1][0], rewrapped + len(ids)
    return rewrapped, unreadable


def _try_lock(connection: psycopg.Connection[Any]) -> bool:
    """One rotation at a time; the lock is the session's, so that it outlives the transaction and not the process."""
    row = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (_ROTATION,)).fetchone()
    return bool(row and row[0])


def _unlock(connection: psycopg.Connection[Any]) -> None:
    if not connection.closed:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", (_ROTATION,))
        connection.commit()
