"""CSV that a spreadsheet may open: a cell that it would take for a formula is made a text."""

from __future__ import annotations

from collections.abc import Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that is run as a formula, or hides one from a look at its first character."""


def csv_line(values: Sequence[object]) -> str:
    """One line of RFC 4180, ended by CR LF. None is an empty cell; see `csv_cell` for texts."""
    return ",".join(csv_cell(value) for value in values) + "\r\n"


def csv_cell(value: object) -> str:
    """A value as one cell: a text that would be a formula begins with an apostrophe, which spreadsheets do not show.

    Numbers stay numbers. Quoted where it has a comma, a quotation mark, a tab, a line break, or blanks around it.
    """
    if value is None:
        return ""
    text = str(value)
    is_number = isinstance(value, int | float)
    if not is_number and text.lstrip(" ").startswith(_FORMULA):
        text = "'" + text
    if any(character in text for character in ',"\r\n\t') or text != text.strip(" "):
        return '"' + text.replace('"', '""') + '"'
    return text
