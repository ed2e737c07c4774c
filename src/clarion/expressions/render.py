"""The body that a template makes: its map as JSON with sorted keys, the same bytes wherever it is made. Pure."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import orjson

from clarion.expressions.program import EvaluationFailed, Program
from clarion.expressions.row import Values

BODY_BYTES_MAX = 256 * 1024


def render_template(values: Values, template: Program) -> bytes:
    """UTF-8 JSON of at most 256 KiB. Raises EvaluationFailed.

    Timestamps become RFC 3339 text in UTC, durations seconds as `3.5s`, bytes base64, as CEL's own mapping to JSON has it
    (cel-spec, "JSON data conversion").
    """
    result = values.evaluate(template)
    if not isinstance(result, dict):
        raise EvaluationFailed("the template's result is no map")
    body = orjson.dumps(_plain(result), option=orjson.OPT_SORT_KEYS)
    if len(body) > BODY_BYTES_MAX:
        raise EvaluationFailed(f"the template's result has {len(body)} bytes, a body has {BODY_BYTES_MAX} at most")
    return body


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not isfinite(value):
                raise EvaluationFailed("a number of the template's result is none that JSON has: NaN or infinite")
            return value
        case dict():
            for key in value:
                if not isinstance(key, str):
                    raise EvaluationFailed("a key of the template's result is no text")
            return {key: _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            whole, rest = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
            seconds = f"{whole}.{rest:06}".rstrip("0").rstrip(".")
            return f"{'-' if value < timedelta(0) else ''}{seconds}s"
        case bytes() | bytearray():
            return b64encode(value).decode()
        case _:
            raise EvaluationFailed("the template's result holds something that JSON has no form for")
