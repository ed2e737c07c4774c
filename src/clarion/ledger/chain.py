"""The hash chain over an organisation's changes: who holds one link can prove all that came before it.

link = SHA-256(previous link | metadata | payload digest), from a genesis of 32 zero bytes.

metadata is, each as UTF-8 behind its length in 4 bytes big-endian: organisation id, change id, recorded_at in
microseconds since 1970 UTC, resource, action (`c`, `u` or `d`), object id.

payload digest = SHA-256(salt | old row | new row | context), absent rows as nothing. context is nothing when the change
has neither actor nor correlation id, else the JSON array [actor id, actor name, correlation id]. Both rows are JSON
objects and the action says which are there, so the parts cannot be confused. The salt keeps the digest from being
guessed, and lets a payload be erased later while the chain still verifies.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

import orjson

GENESIS = bytes(32)
SALT_BYTES = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def payload_digest(
    salt: bytes,
    old: str | None,
    new: str | None,
    actor_id: str | None,
    actor_name: str | None,
    correlation_id: str | None,
) -> bytes:
    """32 bytes that stand for the payload inside a link."""
    parts = [salt]
    if old is not None:
        parts.append(old.encode())
    if new is not None:
        parts.append(new.encode())
    if actor_id is not None or actor_name is not None or correlation_id is not None:
        parts.append(orjson.dumps([actor_id, actor_name, correlation_id]))
    return sha256(b"".join(parts)).digest()


def since_1970_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def link(
    previous: bytes,
    organisation_id: int,
    change_id: int,
    recorded_us: int,
    resource: str,
    action: str,
    object_id: str,
    payload: bytes,
) -> bytes:
    """The change's link, 32 bytes; `payload` is its payload digest, `previous` the link of change_id - 1.

    `recorded_us` is its recorded_at in microseconds since 1970 UTC.
    """
    number, key = b"%d" % change_id, object_id.encode()
    parts = (
        previous,
        _framed(organisation_id),
        len(number).to_bytes(4, "big"),
        number,
        _framed(recorded_us),
        _framed(resource, action),
        len(key).to_bytes(4, "big"),
        key,
        payload,
    )
    return sha256(b"".join(parts)).digest()


@lru_cache(maxsize=4096)
def _framed(*parts: int | str) -> bytes:
    """Parts that come again and again, each behind its length."""
    encoded = [str(part).encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
