from __future__ import annotations

import csv
import io

import pytest

from clarion.cli.csv_text import csv_cell, csv_line


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, ""),
        (5, "5"),
        (-5, "-5"),
        (True, "True"),
        ("=1+1", "'=1+1"),
        ('=HYPERLINK("https://example.com")', '"\'=HYPERLINK(""https://example.com"")"'),
        ("+49 30 1234", "'+49 30 1234"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", '"\'\t=1"'),
        ("\r=1", '"\'\r=1"'),
        ("  =1", "'  =1"),
        ("a=1", "a=1"),
        ('say "no"', '"say ""no"""'),
        ("a,b", '"a,b"'),
        ("two\nlines", '"two\nlines"'),
        (" blank ", '" blank "'),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_made_a_text(value: object, cell: str) -> None:
    assert csv_cell(value) == cell


def test_another_reader_finds_what_was_written() -> None:
    values = ["a", 'b "c", d', "two\r\nlines", "", 7, "ä=", " x"]
    (read,) = csv.reader(io.StringIO(csv_line(values), newline=""))
    assert read == [str(value) for value in values]
    assert csv_line(["a", None]) == "a,\r\n"
