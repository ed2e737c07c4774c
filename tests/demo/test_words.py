"""Deliveries in words and lines, and what goes through the pipe."""

from __future__ import annotations

import io
import os
import pty
from dataclasses import replace
from typing import Any

import pytest

from clarion.demo.books import Books
from clarion.demo.delivery import Delivery, OpenedIssue, read_report
from clarion.demo.handle import _within
from clarion.demo.terminal import Terminal
from clarion.demo.words import Tally, change_words, delivery_lines, quantile

UPDATE = Delivery(
    path="monitoring",
    received_at="2026-11-24T01:02:03.000000+00:00",
    is_verified=True,
    did="monitoring on: Clean room",
    ms=17.4,
    webhook_id="evt_a_5",
    event_id=5,
    resource="RUN_STEPS",
    action="UPDATE",
    object_id="42",
    changed=("started_at", "status", "available_to_work"),
    data={"status": "in_progress", "started_at": "now", "available_to_work": True},
    previous={"status": "todo", "started_at": None, "available_to_work": False},
)


def _terminal(width: int, *, unicode: bool = True, colours: bool = False) -> Terminal:
    encoding = "utf-8" if unicode else "ascii"
    return Terminal(io.TextIOWrapper(io.BytesIO(), encoding=encoding), colours, unicode, width)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (UPDATE, "RUN_STEPS update 42  status: todo → in_progress"),
        (replace(UPDATE, changed=("started_at",)), "RUN_STEPS update 42  started_at: none → now"),
        (replace(UPDATE, changed=()), "RUN_STEPS update 42  "),
        (
            replace(UPDATE, changed=("a", "b", "c"), data={"a": 1, "b": [2], "c": 3}, previous={}),
            "RUN_STEPS update 42  a: none → 1, b: none → [2], 1 more",
        ),
        (
            replace(UPDATE, resource="ISSUES", action="CREATE", object_id="7", data={"title": "Bent\npin " + "x" * 50}),
            f"ISSUES create 7  Bent pin {'x' * 26}…",
        ),
        (replace(UPDATE, action="DELETE", data={}), "RUN_STEPS delete 42"),
        (replace(UPDATE, resource="", card=("New issue", "Bent pin")), "a card  Bent pin"),
        (replace(UPDATE, resource=""), "a body of another's making"),
    ],
)
def test_a_change_in_words(given: Delivery, words: str) -> None:
    assert change_words(given) == words


def test_a_line_breaks_where_the_terminal_is_narrow() -> None:
    (wide,) = delivery_lines(UPDATE, _terminal(200))
    assert "17 ms  ✓ monitoring  RUN_STEPS update 42  status: todo → in_progress" in wide
    assert wide.endswith("  ⇒ monitoring on: Clean room")
    first, second = delivery_lines(UPDATE, _terminal(80))
    assert first.endswith("todo → in_progress")
    assert second.strip() == "⇒ monitoring on: Clean room"


def test_colours_and_signs_are_only_used_where_they_can_be_shown() -> None:
    assert "\x1b[" in delivery_lines(UPDATE, _terminal(200, colours=True))[0]
    (plain,) = delivery_lines(UPDATE, _terminal(200, unicode=False))
    assert plain.isascii()
    assert "ok monitoring" in plain
    assert "todo -> in_progress" in plain


@pytest.mark.parametrize(
    ("settings", "colours", "unicode"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, True),
        ({"CODE": "ascii"}, True, False),
    ],
)
def test_a_real_terminal_gets_colours_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], colours: bool, unicode: bool
) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "90", **settings}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding=settings.get("CODE", "utf-8")) as stream, os.fdopen(ours, "rb"):
        terminal = Terminal.of(stream)
    assert (terminal.colours, terminal.unicode, terminal.width) == (colours, unicode, 90)


def test_what_is_refused_shows_nothing_of_the_request() -> None:
    refused = Delivery("qa", UPDATE.received_at, is_verified=False, did="refused: no signature matches")
    (line,) = delivery_lines(refused, _terminal(200))
    assert "✗ qa" in line
    assert "a request that does not verify" in line


@pytest.mark.parametrize(
    "report",
    [
        UPDATE,
        replace(UPDATE, opened=OpenedIssue("c", (("ISSUES", "CREATE", "1"),))),
        replace(UPDATE, card=("New issue", "Bent pin")),
    ],
)
def test_reports_come_out_of_the_pipe_as_they_went_in(report: Delivery) -> None:
    assert read_report(report.line()) == report


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.5, 5.0), ([1, 2, 3, 4], 0.5, 2), ([1, 2, 3], 0.5, 2), (range(1, 101), 0.99, 99), ([1, 2], 0.99, 2)],
)
def test_a_quantile_is_the_nearest_rank(values: Any, share: float, expected: float) -> None:
    assert quantile(list(values), share) == expected


def test_a_tally_without_deliveries_has_no_latency() -> None:
    assert Tally().words() == "0 deliveries, 0 verified"


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        ("12.00", 11.98, 12.02, True),
        ("12.02", 11.98, 12.02, True),
        ("12.021", 11.98, 12.02, False),
        ("-5", None, 4, True),
        ("5", None, None, True),
        ("n/a", 1, 2, False),
        (None, 1, 2, False),
    ],
)
def test_a_value_is_validated_as_a_decimal(value: str | None, low: Any, high: Any, expected: bool) -> None:
    assert _within(value, low, high) is expected


def test_the_books_act_once_on_what_is_delivered_at_least_once() -> None:
    books = Books()
    assert not books.is_known("evt_a_1")
    books.remember("evt_a_1")
    assert books.is_known("evt_a_1")
    assert books.open_non_conformance("7", "Bent pin") == books.open_non_conformance("7", "Bent pin") == 1
    assert books.raise_stock("A-1", 2) == 2
    assert books.raise_stock("A-1", 3) == 5
    books.watch(3, "10")
    books.watch(3, "11")
    assert books.unwatch("10") == (3, True)
    assert books.unwatch("10") is None
    assert books.unwatch("11") == (3, False)
    assert books.book_order("1", None, "1.00", "USD") == books.book_order("1", 2, "2.00", "USD") == 1
