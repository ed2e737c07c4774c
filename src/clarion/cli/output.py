"""What commands print: tables for people, JSON for programs, colours only where they are wanted."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

import click

_CONTROLS = "\x7f-\x9f\xad\u2028\u2029\ud800-\udfff"
_DIRECTIONS = "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_ACTS_ON_TERMINALS = re.compile(f"[\x00-\x1f{_CONTROLS}{_DIRECTIONS}]")
_ACTS_WITHIN_JSON = re.compile(f"[{_CONTROLS}{_DIRECTIONS}]")
_COLUMN_WIDTH_MIN = 8
_COLOURED = {"STATE", "STATUS", "OUTCOME"}
_BETWEEN_COLUMNS = 2


def inert(text: str) -> str:
    r"""`text` on one line, with nothing that a terminal would act on: controls and marks of direction become `\x1b`."""
    return _ACTS_ON_TERMINALS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def inert_json(document: str) -> str:
    r"""A JSON document that means the same, with what a terminal would act on as `\u001b`."""
    return _ACTS_WITHIN_JSON.sub(lambda found: json.dumps(found[0])[1:-1], document)


def colours_wanted(stream: TextIO | None = None) -> bool:
    """True on a terminal, unless NO_COLOR is set to anything (no-color.org) or the terminal is dumb."""
    stream = sys.stdout if stream is None else stream
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def styled(text: str, colour: str | None = None, *, bold: bool = False) -> str:
    """`text` in a colour of click's names, or as it is where colours are not wanted."""
    return click.style(text, fg=colour, bold=bold) if colours_wanted() else text


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, two blanks apart; the last one is never padded."""
    _print_cells(headings, [["" if cell is None else str(cell) for cell in row] for row in rows])


def print_fitting_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """As `print_table`, for what strangers wrote: cells are inert, and on a terminal the widest are cut to fit it."""
    cells = [["" if cell is None else inert(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        widths = _fitting(_widths(headings, cells), shutil.get_terminal_size().columns)
        cells = [[_cut(cell, width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    cells = [
        [status_styled(cell) if heading in _COLOURED else cell for heading, cell in zip(headings, row, strict=True)]
        for row in cells
    ]
    _print_cells(headings, cells)


def print_json(value: object) -> None:
    """One indented JSON document; what JSON does not know becomes text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def status_styled(status: str) -> str:
    """A word that says how something stands, in the colour that says the same."""
    colours = {"DELIVERED": "green", "SUCCEEDED": "green", "active": "green", "PENDING": "yellow", "HELD": "yellow"}
    bad = status in {"FAILED", "EXPIRED", "REVOKED"} or status.startswith("inactive")
    return styled(status, "red" if bad else colours.get(status))


def _print_cells(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = _widths(headings, cells)
    click.echo(styled(_line(headings, widths), bold=True))
    for row in cells:
        click.echo(_line(row, widths))


def _widths(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(_width(line[column]) for line in [headings, *cells]) for column in range(len(headings))]


def _fitting(widths: list[int], room: int) -> list[int]:
    """The widths, the widest made narrower until all fit, or none can be made narrower."""
    widths = list(widths)
    while sum(widths) + _BETWEEN_COLUMNS * (len(widths) - 1) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _COLUMN_WIDTH_MIN:
            break
        widths[widest] -= 1
    return widths


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while text and _width(text) >= width:
        text = text[:-1]
    return f"{text}…"


def _width(text: str) -> int:
    """How many columns of a terminal `text` takes, without its colours."""
    return sum(_character_width(character) for character in click.unstyle(text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return (" " * _BETWEEN_COLUMNS).join(padded).rstrip()
