"""What commands print: tables for people, JSON for programs, colours only where they are wanted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click


def colours_wanted(stream: TextIO | None = None) -> bool:
    """True on a terminal, unless NO_COLOR is set to anything (no-color.org) or the terminal is dumb."""
    stream = sys.stdout if stream is None else stream
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def styled(text: str, colour: str | None = None, *, bold: bool = False) -> str:
    """`text` in a colour of click's names, or as it is where colours are not wanted."""
    return click.style(text, fg=colour, bold=bold) if colours_wanted() else text


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, two blanks apart; the last one is never padded."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    click.echo(styled(_line(headings, widths), bold=True))
    for row in cells:
        click.echo(_line(row, widths))


def print_json(value: object) -> None:
    """One indented JSON document; what JSON does not know becomes text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
