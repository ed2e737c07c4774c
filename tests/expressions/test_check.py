"""What can never work on a resource's rows is refused where it stands; what may work is let pass."""

from __future__ import annotations

import pytest

from clarion.expressions.columns import Shape, ValueKind
from clarion.expressions.program import CONDITION_LENGTH_MAX, ExpressionRefused, compile_condition, compile_template

COLUMNS = {
    "id": ValueKind.WHOLE,
    "status": ValueKind.TEXT,
    "title": ValueKind.TEXT,
    "price": ValueKind.DECIMAL,
    "quantity": ValueKind.WHOLE,
    "spec": ValueKind.ANY,
    "tags": ValueKind.LIST,
    "done": ValueKind.TRUTH,
    "Größe": ValueKind.TEXT,
}
ORDERS = Shape("PURCHASE_ORDERS", "UPDATE", COLUMNS, frozenset({"secret"}))

ACCEPTED = [
    'object.status == "approved" && oldObject.status != "approved"',
    'object.status in ["approved", "rejected"]',
    "object.price > 3",
    "object.price == 3",
    "object.quantity > 1.5",
    "object.price * 2.0 > 3.0",
    "object.quantity + 1 > oldObject.quantity",
    "object.done",
    "!object.done",
    "object.status == null",
    "has(object.status)",
    "object.spec.width > 3",
    'object.spec.finish == "black"',
    "object.spec.all(key, object.spec[key] != null)",
    'object.tags.exists(tag, tag == "urgent")',
    'object.tags[0] == "urgent"',
    "object == oldObject",
    '"status" in changed',
    'changed.exists(name, name.startsWith("st"))',
    "changed.size() > 1",
    'object["Größe"] == "XL"',
    'object[changed[0]] == "x"',
    'timestamp(object.title) > timestamp("2026-01-01T00:00:00Z") - duration("1h")',
    'object.title.matches("^PO-[0-9]+$")',
    "string(object.price) == string(object.quantity)",
    'actor.name == "robot" || actor.id == null',
    'action == "UPDATE" && resource == "PURCHASE_ORDERS" && objectId != ""',
    'object.done ? object.status == "x" : true',
    "dyn(object.status) == 3",
    'object.title.lowerAscii().trim().contains("bolt")',
    '["a", "b"].exists(one, one == object.status)',
]


@pytest.mark.parametrize("source", ACCEPTED)
def test_what_can_work_is_accepted(source: str) -> None:
    compile_condition(source, ORDERS)


REFUSED = [
    ("object.statsu == 'x'", "line 1, column 8: PURCHASE_ORDERS has no column statsu: did you mean status?"),
    ("has(object.statsu)", "did you mean status?"),
    ("object['statsu'] == 'x'", "line 1, column 8: PURCHASE_ORDERS has no column statsu"),
    ("'statsu' == object.nothing_like_it", "there are Größe, done, id, price, quantity, spec, status, tags, title"),
    ("object.done &&\n  object.titel == 'x'", "line 2, column 10: PURCHASE_ORDERS has no column titel"),
    ("object.secret == 'x'", "column secret of PURCHASE_ORDERS never leaves the database"),
    ("object.quantity == '3'", "line 1, column 17: `==` cannot compare a whole number with text; put a number"),
    ("object.status == 3", "`==` cannot compare text with a whole number"),
    ("object.status > 3", "`>` cannot compare text with a whole number"),
    ("object.price == 'x'", "`==` cannot compare a decimal number with text"),
    ("object.done == 'true'", "true and false stand without quotes"),
    ("object.status in [1, 2]", "line 1, column 15: `in` compares text with a whole number, which is never equal"),
    ("object.status in 'open'", "cannot be used on dyn, string"),
    ("changed.exists(name, object.quantity == name)", "cannot compare a whole number with text"),
    ("object.status + object.quantity == 'x'", "`+` cannot be used on text and a whole number; convert with string"),
    ("object.price + object.quantity > 1.0", "write the number with a point (2.0), or convert with double"),
    ("object.price % object.price > 1.0", "`%` cannot be used"),
    ("object.quantity && object.done", "`&&` needs true or false, here it has a whole number"),
    ("object.quantity ? true : false", "`?` needs true or false"),
    ("object.quantity.startsWith('3')", "startsWith() is for text, here it has a whole number"),
    ("object.status > null", "`>` has no order for null"),
    ("object.tags < oldObject.tags", "`<` has no order for a list"),
    ("object.status.length == 3", "text has no field length"),
    ("object.quantity.all(x, true)", "a whole number has no elements to go through"),
    ("actor.nmae == 'x'", "actor has no nmae: there are id and name"),
    ("timestamp(object.title) == object.title", "convert text with timestamp"),
    ("status == 'x'", "line 1, column 1: there is no status: a column is read as object.status"),
    ("objct.status == 'x'", "there is no objct: did you mean object?"),
    ("object.status.lowerASCII() == 'x'", "did you mean lowerAscii?"),
    ("object.status = 'x'", "line 1, column 15: a single = compares nothing: write =="),
    ("object.status == ", "Syntax error: mismatched input 'the end'"),
    ("object.status.matches('(')", "line 1, column 23: the pattern is no regular expression (RE2): missing )"),
    ("object.status.replace('a', 'b') == 'x'", "replace() is not offered"),
    ("'%s'.format([object]) == 'x'", "format() is not offered"),
    ("object.quantity", "a condition is true or false, this is a whole number"),
    ("object.price * 2 > 3.0", "a number without a point is whole: write 2.0 for 2"),
    ("object.spec.all(a, object.spec.all(b, object.spec.all(c, a == b)))", "at most 2 deep"),
    (" + ".join(["object.status"] * 40) + " == ''", "nested too deeply"),
    (" ", "must not be empty"),
    ("true // " + "x" * CONDITION_LENGTH_MAX, "must have at most 4000 characters"),
    ("object.status == '\0'", "NUL"),
    ("object.status == '\ud800'", "is not Unicode text"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=lambda value: ascii(value[:40]))
def test_what_can_never_work_is_refused_where_it_stands(source: str, message: str) -> None:
    with pytest.raises(ExpressionRefused) as refused:
        compile_condition(source, ORDERS)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("action", "absent", "other"), [("CREATE", "oldObject", "object"), ("DELETE", "object", "oldObject")]
)
def test_a_row_that_an_action_has_not_is_not_asked_for(action: str, absent: str, other: str) -> None:
    shape = Shape("PURCHASE_ORDERS", action, COLUMNS)
    compile_condition(f"{other}.done", shape)
    with pytest.raises(ExpressionRefused, match=f"{absent} does not exist for {action}: .*; use {other}"):
        compile_condition(f"{absent}.done", shape)


@pytest.mark.parametrize("action", ["CREATE", "UPDATE", "DELETE"])
def test_one_expression_can_serve_every_action(action: str) -> None:
    shape = Shape("PURCHASE_ORDERS", action, COLUMNS)
    compile_condition('action == "UPDATE" ? object.done && !oldObject.done : true', shape)
    compile_condition('action != "DELETE" ? action == "CREATE" || object.done : oldObject.done', shape)
    with pytest.raises(ExpressionRefused, match="has no column dnoe"):
        compile_condition(f'action == "{action}" ? {"oldO" if action == "DELETE" else "o"}bject.dnoe : true', shape)


def test_of_a_resource_without_a_table_any_field_may_be_there() -> None:
    compile_condition('object.anything == "x" && object.other > 3', Shape("PUBLISHED", "UPDATE", None))


def test_a_template_is_a_map() -> None:
    compile_template('{"text": object.title, "changed": changed.map(name, {"name": name})}', ORDERS)
    for source, kind in (("object.title", "text"), ("[object]", "a list"), ("object", "a row")):
        with pytest.raises(ExpressionRefused, match=f"a template is a map, this is {kind}"):
            compile_template(source, ORDERS)
