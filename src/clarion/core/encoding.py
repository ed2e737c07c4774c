"""JSON as text: objects are split and joined without touching the bytes of their values.

A row travels from the trigger to the receiver as PostgreSQL printed it. Parsing it into Python
numbers would lose digits of a numeric, so only the outermost object is ever taken apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
import orjson

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


def split_object(text: str) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each value as it was written; equal if written with the same bytes.

    Takes all that PostgreSQL's json type takes: lone surrogates, any nesting, numbers of any size.
    Raises ValueError for anything but one JSON object.
    """
    encoded = text.encode()
    try:
        return _OBJECT.decode(encoded)
    except (msgspec.DecodeError, RecursionError):
        return {name: msgspec.Raw(value) for name, value in _split_slowly(encoded).items()}


def _split_slowly(encoded: bytes) -> dict[str, bytes]:
    """As `split_object`, by looking at quotes and brackets alone."""
    members: dict[str, bytes] = {}
    depth, name, begun = 0, None, 0
    for token in _TOKEN.finditer(encoded):
        match token.group():
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
                if depth == 0 and name is not None:
                    members[name] = encoded[begun : token.start()].strip()
            case b"," if depth == 1 and name is not None:
                members[name] = encoded[begun : token.start()].strip()
                name = None
            case b":" if depth == 1 and name is not None and begun < 0:
                begun = token.end()
            case string if depth == 1 and name is None and string[:1] == b'"':
                name, begun = json.loads(string), -1
    if depth != 0 or encoded[:1] != b"{" or any(value == b"" for value in members.values()):
        raise ValueError("not a JSON object")
    return members


def join_object(members: Iterable[tuple[str, msgspec.Raw]]) -> str:
    """A JSON object with the values as they were written."""
    parts = [f"{quote_name(name)}:{str(value, 'utf-8')}" for name, value in members]
    return f"{{{','.join(parts)}}}"


@lru_cache(maxsize=10_000)
def quote_name(name: str) -> str:
    """As `quote`, for names, of which there are few."""
    return quote(name)


def quote(text: str) -> str:
    """`text` as a JSON string; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(text).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")).decode()


def quote_timestamp(moment: datetime) -> str:
    """A JSON string of RFC 3339 in UTC with microseconds, as `"2026-11-24T01:02:03.456789Z"`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    if moment.microsecond == 0:  # which orjson would leave out
        return f'"{moment.replace(tzinfo=None).isoformat()}.000000Z"'
    return orjson.dumps(moment, option=orjson.OPT_UTC_Z).decode()


def timestamp(moment: datetime) -> str:
    """As `quote_timestamp`, without the quotes."""
    return quote_timestamp(moment)[1:-1]
