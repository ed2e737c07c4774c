"""JSON as text: objects are split and joined without touching the bytes of their values.

A row travels from the trigger to the receiver as PostgreSQL printed it. Parsing it into Python
numbers would lose digits of a numeric, so only the outermost object is ever taken apart.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import orjson

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def split_object(text: str | bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value as the bytes it was written with.

    Raises ValueError for anything but one JSON object.
    """
    try:
        return {name: bytes(raw) for name, raw in _OBJECT.decode(text).items()}
    except msgspec.DecodeError as error:
        raise ValueError(f"not a JSON object: {error}") from error


def quote(text: str) -> bytes:
    """`text` as a JSON string; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as `2026-11-24T01:02:03.456789Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}Z"
