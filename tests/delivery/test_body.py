"""The body is a pure function of the ledger row and keeps every digit that PostgreSQL printed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from clarion.core.encoding import _split_slowly
from clarion.delivery.body import BODY_BYTES_MAX, render
from clarion.delivery.event import Event
from clarion.ledger.change import Change

AT = datetime(2026, 11, 24, 1, 2, 3, 456789, tzinfo=UTC)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), values, max_size=5)


def event(action: str, old: str | None, new: str | None, **other: Any) -> Event:
    change = Change(9, 48211, "RUN_STEPS", action, "42", AT, AT + timedelta(milliseconds=3), None, None, None, old, new)
    return Event(1, 123456, 0, 1, 5, 7, 311, 0, structs.replace(change, **other))


def test_the_body_reads_as_documented() -> None:
    row = '{"id":42,"status":"%s","cost":12345678901234567890.12345678901234567890,"n":1.00}'
    body = render(
        event("u", row % "todo", row % "in_progress", actor_id="17", actor_name="operator 17", correlation_id="c-1")
    )
    assert body.startswith(
        b'{"event_id":123456,"subscription_id":7,"resource":"run_steps","action":"update","object_id":"42"'
    )
    assert b"12345678901234567890.12345678901234567890" in body
    assert json.loads(body) == {
        "event_id": 123456,
        "subscription_id": 7,
        "resource": "run_steps",
        "action": "update",
        "object_id": "42",
        "change_id": 48211,
        "sequence": 311,
        "occurred_at": "2026-11-24T01:02:03.456789Z",
        "recorded_at": "2026-11-24T01:02:03.459789Z",
        "actor": {"id": "17", "name": "operator 17"},
        "correlation_id": "c-1",
        "changed": ["status"],
        "data": json.loads(row % "in_progress"),
        "previous": {"status": "todo"},
    }


@given(rows, rows)
def test_changed_and_previous_are_the_fields_whose_text_differs(old: dict[str, object], new: dict[str, object]) -> None:
    body = json.loads(render(event("u", json.dumps(old), json.dumps(new))))
    differing = {name for name in old.keys() | new.keys() if json.dumps(old.get(name)) != json.dumps(new.get(name))}
    differing |= old.keys() ^ new.keys()
    assert set(body["changed"]) == differing
    assert body["previous"] == {name: old[name] for name in differing if name in old}
    assert body["data"] == new


@given(rows, st.sampled_from("cd"))
def test_create_carries_the_new_row_and_delete_the_old(row: dict[str, object], action: str) -> None:
    text = json.dumps(row)
    body = json.loads(render(event(action, text if action == "d" else None, text if action == "c" else None)))
    assert (body["data"], body["previous"], body["changed"]) == (row, {}, [])


@given(st.text(), st.text(), st.text())
def test_names_from_outside_cannot_break_out_of_their_strings(object_id: str, actor: str, correlation: str) -> None:
    body = render(event("c", None, "{}", object_id=object_id, actor_name=actor, correlation_id=correlation))
    parsed = json.loads(body)
    if object_id.isprintable() and actor.isprintable() and correlation.isprintable():
        assert (parsed["object_id"], parsed["actor"]["name"], parsed["correlation_id"]) == (
            object_id,
            actor,
            correlation,
        )


def test_times_are_utc_with_microseconds_whatever_zone_the_driver_gave() -> None:
    paris = timezone(timedelta(hours=1))
    shifted = event("c", None, "{}", occurred_at=AT.astimezone(paris).replace(microsecond=0))
    assert json.loads(render(shifted))["occurred_at"] == "2026-11-24T01:02:03.000000Z"


def test_data_that_does_not_fit_is_left_out_and_said_so() -> None:
    body = render(event("u", '{"a":1}', '{"a":"%s"}' % ("x" * BODY_BYTES_MAX)))
    parsed = json.loads(body)
    assert len(body) <= BODY_BYTES_MAX
    assert (parsed["data"], parsed["data_omitted"], parsed["changed"]) == (None, True, ["a"])
    assert parsed["event_id"] == 123456


@pytest.mark.parametrize(
    "value",
    [
        '{"nul":"\\u0000","lone":"\\ud800","big":1e400,"big":2}',
        "[" * 5000 + "]" * 5000,
        '"},{\\"a\\":[\\\\"',
        " [1 ,\n 2] ",
    ],
)
def test_values_that_parsers_refuse_pass_through_and_are_compared(value: str) -> None:
    old, new = (f'{{"id":1,"j":{value},"n":{number}}}' for number in ("1.0", "1.00"))
    body = render(event("u", old, new))
    assert new.encode() in body
    assert b'"changed":["n"],' in body
    assert body.endswith(b'"previous":{"n":1.0}}')
    changed = render(event("u", '{"id":1,"j":null,"n":1.0}', new))
    assert b'"changed":["j","n"]' in changed
    back = render(event("u", new, '{"id":1,"j":null,"n":1.00}'))
    assert back.endswith(b'"previous":{"j":%b}}' % value.strip().encode())


@given(rows)
def test_the_slow_way_of_splitting_agrees_with_the_quick_one(row: dict[str, object]) -> None:
    encoded = json.dumps(row, ensure_ascii=False, indent=1).encode()
    assert {n: json.loads(v) for n, v in _split_slowly(encoded).items()} == row
