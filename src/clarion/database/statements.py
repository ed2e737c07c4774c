"""Statements in `.sql` files, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from importlib.resources import files

import orjson

_HEADER = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def load_statements(package: str, file_name: str) -> dict[str, str]:
    """The file's statements by the name in their `-- name: ` line, comments kept for the server's logs.

    `{name}` in a statement stands for what goes by that name, which may have such parts itself. Raises ValueError if a name
    occurs twice, KeyError for one that stands for nothing.
    """
    parts = _HEADER.split(files(package).joinpath(file_name).read_text(encoding="utf-8"))
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{package}/{file_name}: a statement's name occurs twice")
    texts = {name: body.strip().removesuffix(";") for name, body in zip(names, bodies, strict=True)}

    def whole(text: str) -> str:
        return _PART.sub(lambda part: whole(texts[part[1]]), text)

    return {name: whole(text) for name, text in texts.items()}


def array_text(values: Iterable[int | datetime | None]) -> str:
    """PostgreSQL's text of an array, for a parameter that the statement casts: the driver's own encoding takes ten times as long.

    It is JSON's in other brackets, as long as no value has to be escaped.
    """
    return f"{{{orjson.dumps(list(values))[1:-1].decode()}}}"
