"""The file that `clarion attach --file` reads: tables, one `[[resource]]` each.

[[resource]]
resource = "PURCHASE_ORDERS"
table = "public.purchase_order"
exclude = ["internal_note"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clarion.capture.attachment import Attachment, OnTruncate, check_names
from clarion.capture.table import suggestion
from clarion.core.errors import UsageInvalid

_TEXTS = ("resource", "table", "organisation", "organisation_column", "description", "singular", "label", "truncate")
_LISTS = ("key", "exclude")
_REQUIRED = ("resource", "table")


def read_resources(path: Path) -> list[Attachment]:
    """What the file attaches, in its order. Raises UsageInvalid with the file, the table and what is wrong with it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageInvalid(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageInvalid(f"{path}: not UTF-8 text at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageInvalid(f"{path}: not TOML: {error}") from error
    for name in document:
        if name != "resource":
            raise UsageInvalid(
                f"{path}: {name!r} is not known at the top of the file",
                suggestion(name, ["resource"]) or "each table is a [[resource]]",
            )
    entries = document.get("resource", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageInvalid(f"{path}: 'resource' is not a list of tables", "begin each one with [[resource]]")
    if not entries:
        raise UsageInvalid(f"{path}: nothing to attach", "each table is a [[resource]]")
    attachments = [_attachment(path, number, entry) for number, entry in enumerate(entries, start=1)]
    for what in ("resource", "qualified"):
        seen = [getattr(attachment, what) for attachment in attachments]
        if twice := sorted({name for name in seen if seen.count(name) > 1}):
            raise UsageInvalid(f"{path}: {twice[0]} stands there twice")
    return attachments


def _attachment(path: Path, number: int, entry: Mapping[str, Any]) -> Attachment:
    name = entry.get("resource")
    where = f"{path}: {name}" if isinstance(name, str) else f"{path}: resource {number}"
    for key, value in entry.items():
        if key not in {*_TEXTS, *_LISTS}:
            raise UsageInvalid(
                f"{where}: {key!r} is not known",
                suggestion(key, {*_TEXTS, *_LISTS} - entry.keys()) or f"known are {', '.join((*_TEXTS, *_LISTS))}",
            )
        if key in _TEXTS and not isinstance(value, str):
            raise UsageInvalid(f"{where}: {key!r} is not a text", f'write {key} = "…"')
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageInvalid(f"{where}: {key!r} is not a list of texts", f'write {key} = ["…"]')
    for key in _REQUIRED:
        if not entry.get(key):
            raise UsageInvalid(f"{where}: {key!r} is missing")
    if "organisation" in entry and "organisation_column" in entry:
        raise UsageInvalid(f"{where}: 'organisation' and 'organisation_column' exclude each other")
    try:
        attachment = attachment_of(
            entry["table"],
            entry["resource"],
            keys=tuple(entry.get("key", ())),
            excluded=tuple(entry.get("exclude", ())),
            organisation=entry.get("organisation", "default"),
            organisation_column=entry.get("organisation_column"),
            description=entry.get("description", ""),
            singular=entry.get("singular"),
            label=entry.get("label"),
            truncate=entry.get("truncate", "refuse"),
        )
        check_names(attachment)
    except UsageInvalid as error:
        raise UsageInvalid(f"{where}: {error.message.removeprefix('attach: ')}", error.hint) from error
    return attachment


def attachment_of(
    table: str,
    resource: str,
    *,
    keys: tuple[str, ...],
    excluded: tuple[str, ...],
    organisation: str,
    organisation_column: str | None,
    description: str,
    singular: str | None,
    label: str | None,
    truncate: str,
) -> Attachment:
    """As people write it, in the file or on the command line: `table` as schema.table, `truncate` as refuse or delete."""
    schema, _, name = table.rpartition(".")
    if not name:
        raise UsageInvalid(f"attach: {table!r} names no table", "name it as schema.table")
    if truncate not in {"refuse", "delete"}:
        raise UsageInvalid(
            f"attach: truncate is {truncate!r}", suggestion(truncate, ["refuse", "delete"]) or "take refuse or delete"
        )
    return Attachment(
        resource=resource,
        table=name,
        schema=schema or "public",
        singular=singular,
        description=description,
        key_columns=keys,
        excluded_columns=excluded,
        organisation=None if organisation_column else organisation,
        organisation_column=organisation_column,
        label_column=label,
        on_truncate=OnTruncate(truncate.upper()),
    )
