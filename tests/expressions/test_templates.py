"""The templates that ship: whatever a row holds, each service takes the message, and nothing of the row becomes markup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.expressions.program import load_program
from clarion.expressions.render import render_template
from clarion.expressions.row import Values
from clarion.factory.tables import Base, Issue
from clarion.ledger.change import Captured
from harness.chat import ISSUE, SERVICES, SHIPPED, Service

ALL = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)

Row = dict[str, Any]


def rendered(service: Service, old: Row | None, new: Row | None, object_id: str = "42", **who: Any) -> Any:
    """The message, as it is sent."""
    action = "c" if old is None else "d" if new is None else "u"
    fields = {"actor_id": None, "actor_name": None, "correlation_id": None} | who
    rows = {"old": _row_text(old), "new": _row_text(new)}
    change = Captured(1, 1, None, "ISSUES", action, object_id, 1, 1, None, None, **fields, **rows)
    return json.loads(render_template(Values(change), load_program(service.template.read_text())))


def _row_text(row: Row | None) -> str | None:
    return None if row is None else json.dumps(row, ensure_ascii=False)


def test_every_template_that_ships_is_tried_here() -> None:
    assert {service.template for service in SERVICES.values()} == set(SHIPPED.iterdir())


OLD = {
    "id": 42,
    "status": "todo",
    "title": "Bent pin",
    "run_id": None,
    "labels": ["a", "b"],
    "note": "",
    "spec": {"w": 1},
}
NEW = OLD | {"status": "done", "run_id": 7, "labels": [], "note": "x", "spec": None}


def test_a_teams_card_shows_who_did_what_and_each_changed_field_before_and_after() -> None:
    (attachment,) = rendered(SERVICES["teams"], OLD, NEW, actor_name="Ada")["attachments"]
    lines = ["".join(run["text"] for run in block["inlines"]) for block in attachment["content"]["body"]]
    assert lines == [
        "ISSUES 42",
        "updated by Ada",
        "status: todo → done",
        "run_id: none → 7",
        "labels: a list of 2 → a list of 0",
        "note: (empty) → x",
        "spec: an object of 1 → none",
    ]


def test_a_slack_message_has_a_line_for_notifications_and_two_columns() -> None:
    message = rendered(SERVICES["slack"], OLD, NEW, actor_name="Ada")
    assert message["text"] == "ISSUES 42 updated"
    header, who, *sections = message["blocks"]
    assert (header["text"]["text"], who["elements"][0]["text"]) == ("ISSUES 42", "updated by Ada")
    assert [[field["text"] for field in section["fields"]] for section in sections][:2] == [
        ["status:", "todo → done"],
        ["run_id:", "none → 7"],
    ]


def test_a_google_chat_card_has_a_widget_for_each_changed_field() -> None:
    (card,) = rendered(SERVICES["google-chat"], OLD, NEW, actor_name="Ada")["cardsV2"]
    assert card["card"]["header"] == {"title": "ISSUES 42", "subtitle": "updated by Ada"}
    (section,) = card["card"]["sections"]
    assert section["widgets"][0] == {"decoratedText": {"text": "status", "bottomLabel": "todo → done"}}


def test_google_chat_sees_a_text_up_to_its_first_less_than() -> None:
    message = rendered(SERVICES["google-chat"], {"limit": "none"}, {"limit": "R&D: 1 < 2 <b>"})
    (widget,) = message["cardsV2"][0]["card"]["sections"][0]["widgets"]
    assert widget["decoratedText"]["bottomLabel"] == "none → R&D: 1 …"


@ALL
@pytest.mark.parametrize(("old", "new", "did"), [(None, NEW, "created"), (OLD, NEW, "updated"), (OLD, None, "deleted")])
def test_each_says_what_happened(service: Service, old: Row | None, new: Row | None, did: str) -> None:
    message = rendered(service, old, new, actor_name="Ada")
    assert service.faults(message) == []
    assert f'"{did} by Ada"' in json.dumps(message)
    assert did in json.dumps(rendered(service, old, new))
    assert "by" not in json.dumps(rendered(service, {"a": 1}, {"a": 2})).split()


@ALL
def test_of_many_changed_fields_the_first_eight_are_shown_and_the_others_counted(service: Service) -> None:
    names = [f"field_{number}" for number in range(11)]
    shown = json.dumps(rendered(service, dict.fromkeys(names, 1), dict.fromkeys(names, 2)))
    assert [name for name in names if name in shown] == names[:8]
    assert '"and 3 more"' in shown
    assert "more" not in json.dumps(rendered(service, dict.fromkeys(names[:8], 1), dict.fromkeys(names[:8], 2)))


@ALL
def test_a_field_that_only_one_of_the_rows_has_is_shown(service: Service) -> None:
    """A column that was added or dropped meanwhile."""
    shown = json.dumps(rendered(service, {"gone": 1}, {"came": 2}), ensure_ascii=False)
    assert "1 → none" in shown
    assert "none → 2" in shown


# ---------------------------------------------------------------- whatever a row holds

HOSTILE = "†"
"""A character that only rows have here."""
_LONG = 10_000
_characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
_texts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "*a* _b_ ~c~ `d` [e](https://example.com)",
            "<!channel> <@U012AB3CD> <https://example.com|click> &lt;",
            "<b>a</b><a href='https://example.com'>b</a>",
            "# a\n- b\n1. c\n> d",
            "{{DATE(2026-11-24T01:02:03Z)}} ${object.title}",
            "<users/all> @all :tada:",
            "\u202e\u200b\ufeff\x1b[31m",
            "👩‍👩‍👧‍👦" * 40,
            "\U0001d518" * 200,
        ]
    ),
    st.text(_characters, max_size=20),
).map(lambda text: f"{text}{HOSTILE}" if text.strip() else text)
_long_texts = st.sampled_from(["x", "\n", "\x01", "<", "*", "💩", '"', "\\", ","]).map(
    lambda one: one * (_LONG // len(json.dumps(one, ensure_ascii=False).strip('"'))) + HOSTILE
)
_circumstances = st.none() | _texts | _long_texts.map(lambda text: text[:300])
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from([[column.name for column in table.columns] for table in Base.metadata.tables.values()])


@st.composite
def _rows(draw: st.DrawFn) -> tuple[Row, Row]:
    """Two rows of one of the factory's tables, or of a resource whose names nobody foresaw."""
    names = draw(_names | st.lists(_texts, min_size=1, max_size=10, unique=True))
    values = {name: draw(_json) for name in names}
    old = values | {name: draw(_json) for name in draw(st.lists(st.sampled_from(names), max_size=12))}
    if draw(st.booleans()):
        old[draw(st.sampled_from(names))] = draw(_long_texts)
        values[draw(st.sampled_from(names))] = draw(_long_texts)
    return old, values


@ALL
@given(
    _rows(), _circumstances.map(lambda key: (key or "").replace(HOSTILE, "")), _circumstances, st.sampled_from("cud")
)
def test_every_change_makes_a_message_that_is_taken_and_formats_nothing(
    service: Service, rows: tuple[Row, Row], object_id: str, actor: str | None, action: str
) -> None:
    old, new = None if action == "c" else rows[0], None if action == "d" else rows[1]
    message = rendered(service, old, new, object_id=object_id, actor_name=actor)
    assert service.faults(message) == []
    for text in service.markup(message):
        assert not set(text) & {HOSTILE, "<", "*", "`", ">"}, text


@ALL
@pytest.mark.parametrize("character", ["\x01", '"', "💩", "ä", "<"])
def test_a_message_with_everything_as_long_as_it_gets_is_within_the_limit(service: Service, character: str) -> None:
    """A control character takes most: six characters of JSON."""
    names = [character * 60 + str(number) for number in range(9)]
    row = dict.fromkeys(names, character * 300)
    edited = {name: f"{value}x" for name, value in row.items()}
    assert service.faults(rendered(service, row, edited, object_id=character * 300, actor_name=character * 300)) == []


@pytest.mark.parametrize("character", ["\x01", '"', "💩", "ä"])
def test_the_longest_card_of_an_issue_is_within_the_limit(character: str) -> None:
    names = ("title", "status", "cause_condition", "expected_condition")
    issue = dict.fromkeys(names, character * 300) | {"run_id": 2**62}
    assert ISSUE.faults(rendered(ISSUE, None, issue, object_id="9" * 20, actor_name=character * 300)) == []


_issues = st.fixed_dictionaries(
    {column.name: _json for column in Issue.__table__.columns}
    | {"title": _texts | _long_texts, "status": st.sampled_from(["pending", "resolved"])}
    | {"run_id": st.none() | st.integers(1, 2**40)}
    | dict.fromkeys(("cause_condition", "expected_condition"), st.none() | _texts | _long_texts)
)


@given(_issues, _circumstances)
def test_every_issue_makes_a_card_that_is_taken_and_formats_nothing(issue: Row, actor: str | None) -> None:
    message = rendered(ISSUE, None, issue, actor_name=actor)
    assert ISSUE.faults(message) == []
    assert list(ISSUE.markup(message))[1] == "New issue"
    assert not any(HOSTILE in text for text in ISSUE.markup(message))


# ---------------------------------------------------------------- the checks themselves


def _spoiled(message: Any) -> Iterator[tuple[str, Any]]:
    """The message with one thing wrong, in every place: a member gone, an unknown one, a value of another kind."""

    def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, one in items:
            yield (*path, key)
            yield from places(one, (*path, key))

    for path in places(message, ()):
        for spoil in ("wrong", "unknown", "empty"):
            copied = json.loads(json.dumps(message))
            at = copied
            for key in path[:-1]:
                at = at[key]
            if spoil == "wrong":
                at[path[-1]] = 3.5
            elif spoil == "unknown" and isinstance(at[path[-1]], dict):
                at[path[-1]]["surprise"] = 1
            elif spoil == "empty" and isinstance(at[path[-1]], list):
                at[path[-1]] = []
            else:
                continue
            yield f"{spoil} {path}", copied


@ALL
def test_a_message_with_anything_wrong_is_no_message(service: Service) -> None:
    message = rendered(service, OLD, NEW, actor_name="Ada")
    spoiled = list(_spoiled(message))
    assert len(spoiled) > 40
    assert [place for place, one in spoiled if not service.faults(one)] == []


@pytest.mark.parametrize(
    ("service", "spoil"),
    [
        ("slack", lambda m: m["blocks"][0]["text"].update(text="x" * 151)),
        ("slack", lambda m: m["blocks"][0]["text"].update(text="\U0001d518" * 76)),
        ("slack", lambda m: m["blocks"][0]["text"].update(text="")),
        ("slack", lambda m: m["blocks"][0]["text"].update(type="mrkdwn")),
        ("slack", lambda m: m["blocks"][2]["fields"].extend(m["blocks"][2]["fields"] * 5)),
        ("slack", lambda m: m["blocks"][2]["fields"][0].update(text="x" * 2001)),
        ("slack", lambda m: m["blocks"][2].pop("fields")),
        ("slack", lambda m: m["blocks"].extend([{"type": "divider"}] * 50)),
        ("slack", lambda m: m.pop("text")),
        ("teams", lambda m: m["attachments"][0]["content"]["body"][2]["inlines"][0].update(text="x" * 28 * 1024)),
        ("teams", lambda m: m["attachments"][0]["content"].update(version="1.5")),
        ("teams", lambda m: m["attachments"][0]["content"]["body"][0]["inlines"][0].pop("text")),
        ("teams", lambda m: m["attachments"][0]["content"]["body"][0]["inlines"][0].pop("type")),
        ("google-chat", lambda m: m["cardsV2"][0]["card"]["header"].update(title="x" * 32_000)),
        ("google-chat", lambda m: m["cardsV2"][0]["card"]["header"].pop("title")),
        ("google-chat", lambda m: m["cardsV2"][0]["card"]["sections"][0]["widgets"][0].update(divider={})),
        ("google-chat", lambda m: m["cardsV2"][0]["card"]["sections"][0]["widgets"][0]["decoratedText"].pop("text")),
    ],
)
def test_the_published_limits_are_looked_at(service: str, spoil: Callable[[Any], object]) -> None:
    message = rendered(SERVICES[service], OLD, NEW)
    assert SERVICES[service].faults(message) == []
    spoil(message)
    assert SERVICES[service].faults(message)
