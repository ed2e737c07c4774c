"""Registered header values in a receiver's answer: some send requests back, and answers are kept and shown. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

HIDDEN = "********"
PRIVATE_LENGTH_MIN = 8
"""What is shorter is no secret, and stands in answers by chance."""

Headers = tuple[tuple[str, str], ...]


def private_values(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """What to hide of these registered headers, longest first: each value, its last word (the token behind `Bearer`),
    and both as JSON writes them.
    """
    words = {word for _, value in headers for word in (value, value.rpartition(" ")[2])}
    written = words | {json.dumps(word)[1:-1] for word in words}
    return tuple(sorted((word for word in written if len(word) >= PRIVATE_LENGTH_MIN), key=len, reverse=True))


def without_private(
    headers: Headers, body: bytes, private: Sequence[str], body_bytes_max: int
) -> tuple[Headers, bytes]:
    """Headers and body of an answer with each of the `private` values replaced by `********`.

    A body of `body_bytes_max` may have been cut inside of a value: what then stands of it at the end is replaced, too.
    """
    for value in private:
        if any(value in content for _, content in headers):
            headers = tuple((name, content.replace(value, HIDDEN)) for name, content in headers)
        raw = value.encode("ascii")
        if len(body) == body_bytes_max:
            begun = next((n for n in range(len(raw) - 1, PRIVATE_LENGTH_MIN - 1, -1) if body.endswith(raw[:n])), 0)
            body = body[:-begun] + HIDDEN.encode("ascii") if begun else body
        if raw in body:
            body = body.replace(raw, HIDDEN.encode("ascii"))
    return headers, body
