"""Looks for secrets in whatever a deployment produced, in every form that a secret takes on its way.

Forms: as it is, hexadecimal, base64 and its URL-safe twin in all three alignments, URL-encoded, escaped for JSON; of a
`whsec_` secret its 32 bytes as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
from psycopg import sql

_FORM_BYTES_MIN = 12
"""What is shorter stands everywhere by chance."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret where none may be; the secret itself is not shown again."""

    place: str
    secret: str
    form: str


def forms(secret: str) -> dict[str, bytes]:
    """The byte strings to look for, by the form's name."""
    raw = secret.encode()
    found = _forms(raw) | {
        "URL-encoded": quote(secret, safe="").encode(),
        "URL-encoded, plus": quote_plus(secret).encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
    }
    if secret.startswith("whsec_"):
        with suppress(ValueError):
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            found["without whsec_"] = raw.removeprefix(b"whsec_")
            found |= {f"its bytes, {name}": form for name, form in _forms(key).items()}
    return {name: form for name, form in found.items() if len(form) >= _FORM_BYTES_MIN}


def _forms(raw: bytes) -> dict[str, bytes]:
    found = {"raw": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for shift in range(3):
        # Behind `shift` other bytes and before any: only the characters that depend on nothing else.
        first = (shift * 8 + 5) // 6
        last = (shift + len(raw)) * 8 // 6
        encoded = base64.b64encode(bytes(shift) + raw)
        found[f"base64, {shift}"] = encoded[first:last]
        found[f"base64url, {shift}"] = base64.urlsafe_b64encode(bytes(shift) + raw)[first:last]
    return found


def search(places: Iterable[tuple[str, bytes]], secrets: Mapping[str, str]) -> list[Hit]:
    """Every secret (by its name) found in one of the places (name and content)."""
    wanted = [(name, form, pattern) for name, secret in secrets.items() for form, pattern in forms(secret).items()]
    return [Hit(place, name, form) for place, content in places for name, form, pattern in wanted if pattern in content]


def tables(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, bytes]]:
    """Every table of the database in full, as COPY writes it; bytea is hexadecimal there."""
    names = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    assert names
    for schema, table in names:
        with connection.cursor().copy(
            sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(schema, table))
        ) as copy:
            yield f"table {schema}.{table}", b"".join(bytes(piece) for piece in copy)


def files(directory: Path, without: Iterable[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """Every file below a directory; what ends while we look is left out."""
    left_out = {path.resolve() for path in without}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.resolve() not in left_out:
            with suppress(FileNotFoundError):
                yield f"file {path.relative_to(directory)}", path.read_bytes()


def command_lines(pids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """What every user of the machine may read about a process: its arguments."""
    for pid in pids:
        with suppress(OSError):
            yield f"command line of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()
