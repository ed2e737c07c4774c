"""An application's values as JSON text, each spelled as PostgreSQL's row_to_json spells a column of that type.

So a published object and a captured row of the same values read the same: numbers keep their digits, moments are UTC,
bytes are hexadecimal digits after a backslash and an x.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, NoReturn
from uuid import UUID

DATA_BYTES_MAX: Final = 1024 * 1024
"""How long the JSON of one object may be, in bytes of UTF-8."""

_DEPTH_MAX: Final = 100
_DIGITS_BEFORE_MAX: Final = 131072
_DIGITS_AFTER_MAX: Final = 16383
"""What PostgreSQL's numeric holds before and after the decimal point."""


class JsonRefused(ValueError):
    """A value that is no JSON; the message begins with where it stands, as `data.lines[2].price: `."""


def object_text(name: str, value: Mapping[str, object] | str) -> str:
    """The JSON text of an object that is called `name` in errors; text is taken as JSON and left as it is written.

    Raises JsonRefused for what JSON cannot hold (NaN, infinity, a lone surrogate, a key that is no text), for types that
    PostgreSQL has no spelling for, for what is no object, and above DATA_BYTES_MAX.
    """
    text = _checked(name, value) if isinstance(value, str) else "".join(_pieces(name, value, 0))
    if not text.lstrip(" \t\r\n").startswith("{"):
        _refuse(name, "must be an object: a mapping, or the JSON text of one")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        _refuse(name, "is not Unicode text")
    if length > DATA_BYTES_MAX:
        _refuse(name, f"{length} bytes of JSON, {DATA_BYTES_MAX} are allowed")
    return text


def _refuse(place: str, why: str) -> NoReturn:
    raise JsonRefused(f"{place}: {why}")


def _checked(name: str, text: str) -> str:
    def constant(word: str) -> NoReturn:
        _refuse(name, f"holds {word}, which is not JSON")

    try:
        # Numbers as text: nothing is computed here, and a number may have any length.
        json.loads(text, parse_constant=constant, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        _refuse(name, f"is no JSON text: {error}")
    except RecursionError:
        _refuse(name, "is nested too deep")
    return text


def _pieces(place: str, value: object, depth: int) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        _refuse(place, f"is nested more than {_DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        yield "{"
        for number, (key, member) in enumerate(value.items()):
            if not isinstance(key, str):
                _refuse(place, f"has the key {key!r}, which is no text")
            yield f"{',' if number else ''}{_string(place, key)}:"
            yield from _pieces(f"{place}.{key}", member, depth + 1)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for number, member in enumerate(value):
            if number:
                yield ","
            yield from _pieces(f"{place}[{number}]", member, depth + 1)
        yield "]"
    else:
        yield _scalar(place, value)


def _scalar(place: str, value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _string(place, value)
        case int():
            return int.__repr__(value)
        case float():
            if not math.isfinite(value):
                _refuse(place, f"{value} is not JSON")
            return float.__repr__(value)
        case Decimal():
            return _decimal(place, value)
        case dt.datetime():
            return f'"{_moment(value)}"'
        case dt.date():
            return f'"{value.isoformat()}"'
        case dt.time() if value.tzinfo is None:
            return f'"{_trimmed(value.isoformat(timespec="microseconds"))}"'
        case UUID():
            return f'"{value}"'
        case bytes() | bytearray() | memoryview():
            return f'"\\\\x{value.hex()}"'
        case _:
            _refuse(place, f"a {type(value).__name__} has no spelling as JSON; turn it into text or a number")


def _string(place: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(place, "is not Unicode text: it has a lone surrogate")
    # str() of a member of an enumeration is its name.
    return json.dumps(str.__str__(value), ensure_ascii=False)


def _decimal(place: str, value: Decimal) -> str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        _refuse(place, f"{value} is not JSON")
    if value.adjusted() >= _DIGITS_BEFORE_MAX or exponent < -_DIGITS_AFTER_MAX:
        _refuse(place, "has more digits than a numeric of PostgreSQL")
    return format(value, "f")


def _moment(value: dt.datetime) -> str:
    if value.tzinfo is None:
        return _trimmed(value.isoformat(timespec="microseconds"))
    in_utc = value.astimezone(dt.UTC).replace(tzinfo=None)
    return f"{_trimmed(in_utc.isoformat(timespec='microseconds'))}+00:00"


def _trimmed(text: str) -> str:
    """Without the zeros at the end of the fraction, as PostgreSQL prints it."""
    return text.rstrip("0").removesuffix(".")
