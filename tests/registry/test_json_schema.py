"""JSON Schemas of published objects: what is refused at once, what an object is told, and that neither can take long."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from clarion.registry.json_schema import (
    DIGITS_MAX,
    EXPONENT_MAX,
    PATTERNS_MAX,
    SCHEMA_BYTES_MAX,
    WORK_MAX,
    CompiledSchema,
    DataRefused,
    SchemaRefused,
    compile_schema,
    schema_text,
)

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def compiled(schema: object) -> CompiledSchema:
    return compile_schema(schema_text(schema))


def refusal(schema: CompiledSchema, text: str) -> tuple[str, str]:
    with pytest.raises(DataRefused) as refused:
        schema.check(text)
    return refused.value.path, str(refused.value)


def nested(levels: int) -> Any:
    return {} if levels == 0 else {"not": nested(levels - 1)}


def doubling(steps: int, keyword: str) -> Any:
    steps_of = {f"s{n}": {keyword: [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/s0", "$defs": {**steps_of, f"s{steps}": {}}}


REFUSED: dict[str, tuple[object, str]] = {
    "no object": ([], "must be a JSON object"),
    "true": (True, "must be a JSON object"),
    "a type that there is not": ({"type": "objekt"}, "is no JSON Schema at type"),
    "http": ({"$ref": "http://127.0.0.1:9/x"}, "leads out of the schema"),
    "https inside": ({"properties": {"a": {"items": {"$ref": "https://example.com/x#/y"}}}}, "leads out of the schema"),
    "a file": ({"$ref": "file:///etc/passwd"}, "leads out of the schema"),
    "a remote reference that nothing uses": (
        {"$defs": {"a": {"$ref": "http://127.0.0.1:9/x"}}},
        "retrieving it failed",
    ),
    "relative to a base": ({"$id": "http://example.com/a", "$ref": "b"}, "leads out of the schema"),
    "another base inside": ({"properties": {"a": {"$id": "http://example.com/a"}}}, "outermost object alone"),
    "nowhere": ({"$ref": "#/$defs/a"}, "leads nowhere"),
    "no schema": ({"$ref": "#/$defs/a", "$defs": {"a": 5}}, "leads to no schema"),
    "another draft": ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be"),
    "a remote draft": ({"$schema": "http://127.0.0.1:9/meta"}, "$schema must be"),
    "a draft that is no text": ({"$schema": 7}, "$schema must be"),
    "a dynamic reference": ({"$dynamicRef": "#a"}, "take $ref"),
    "itself": ({"$ref": "#"}, "look at one value"),
    "itself by another": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}, "look at one value"),
    "doubling": (doubling(22, "allOf"), "look at one value"),
    "doubling of choices": (doubling(22, "anyOf"), "look at one value"),
    "doubling with each level of the data": (
        {"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]},
        "look at one value",
    ),
    "too deep": (nested(50), "nested more than 50 deep"),
    "far too deep": (nested(800), "nested more than 50 deep"),
    "too large": ({"description": "x" * SCHEMA_BYTES_MAX}, "bytes"),
    "NUL": ({"description": "\x00"}, "NUL"),
    "lone surrogate": ({"description": "\ud800"}, "is no JSON"),
    "looking ahead": ({"pattern": "(?=a)b"}, "is no JSON Schema at pattern"),
    "looking back": ({"pattern": r"(a)\1"}, "is no JSON Schema at pattern"),
    "a huge repetition": ({"pattern": "(a{1000}){1000}"}, "is no JSON Schema at pattern"),
    "too many patterns": ({"patternProperties": {f"^{n}$": True for n in range(PATTERNS_MAX + 1)}}, "patterns"),
    "many numbers to compare with": ({"enum": [n + 0.5 for n in range(2_000)]}, "too many things"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_schema_that_could_harm_is_refused_at_once(kind: str) -> None:
    schema, message = REFUSED[kind]
    began = time.monotonic()
    with pytest.raises(SchemaRefused) as refused:
        schema_text(schema)
    assert time.monotonic() - began < 1
    assert message in str(refused.value)
    assert len(str(refused.value)) <= 500


def test_ordinary_schemas_are_accepted() -> None:
    for schema in (
        {},
        {"$schema": DRAFT, "$id": "https://example.com/shipment.json", "type": "object"},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "object"}}},
        # A tree: each value is looked at once, however deep it is.
        {"properties": {"children": {"items": {"$ref": "#"}}}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$anchor": {"type": "string"}}},
        {
            "properties": {f"field_{n}": {"type": ["string", "null"]} for n in range(1_000)},
            "additionalProperties": False,
        },
        {"oneOf": [{"properties": {"kind": {"const": f"kind {n}"}, "n": {"type": "integer"}}} for n in range(100)]},
        {"properties": {"state": {"enum": [f"state {n}" for n in range(1_000)]}}},
        {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
    ):
        assert compile_schema(schema_text(schema)).width >= 1


def test_an_object_is_told_where_it_fails_and_what_is_expected_but_not_what_it_said() -> None:
    schema = compiled(
        {
            "type": "object",
            "properties": {
                "quantity": {"type": "number", "minimum": 0, "multipleOf": 0.01},
                "state": {"enum": ["OPEN", "SHIPPED"]},
                "lines": {"items": {"properties": {"part": {"type": "string", "pattern": "^[A-Z]+$"}}}},
            },
            "required": ["quantity"],
            "additionalProperties": False,
        }
    )
    schema.check('{"quantity": 1.23, "state": "OPEN", "lines": [{"part": "BOLT"}]}')
    schema.check('{"quantity": 1.0}')
    assert refusal(schema, '{"quantity": 1.234}') == ("quantity", "the value is not a multiple of 0.01")
    assert refusal(schema, '{"quantity": "secret"}') == ("quantity", 'the value is not of type "number"')
    assert refusal(schema, '{"quantity": 1, "state": "secret"}') == (
        "state",
        'the value is not one of "OPEN" or "SHIPPED"',
    )
    path, message = refusal(schema, '{"quantity": 1, "lines": [{}, {"part": "secret"}]}')
    assert path == "lines.1.part"
    assert "secret" not in message
    assert refusal(schema, "{}") == ("", '"quantity" is a required property')
    assert "'quantty'" in refusal(schema, '{"quantity": 1, "quantty": 2}')[1]


def test_numbers_are_compared_exactly() -> None:
    schema = compiled({"properties": {"n": {"maximum": 9007199254740993, "multipleOf": 0.1}}})
    schema.check('{"n": 9007199254740993}')
    assert refusal(schema, '{"n": 9007199254740993.1}')[0] == "n"
    assert refusal(schema, '{"n": 9007199254740994}')[0] == "n"
    schema.check('{"n": 1111111.1}')


def test_what_a_schema_cannot_be_asked_about_is_refused() -> None:
    schema = compiled({})
    for number in (
        "9" * (DIGITS_MAX + 1),
        "1." + "3" * DIGITS_MAX,
        f"1e{EXPONENT_MAX + 1}",
        "1e-999999999",
        "1e999999999999",
    ):
        assert "number" in refusal(schema, f'{{"n": {number}}}')[1]
        assert number not in refusal(schema, f'{{"n": {number}}}')[1]
    assert refusal(schema, '{"a": 1, "a": 2}') == ("", "has a member twice")
    assert refusal(schema, '{"b": {"a": 1, "a": 2}}')[1] == "has a member twice"


SLOW: dict[str, tuple[object, str]] = {
    "patterns": (
        {"additionalProperties": {"allOf": [{"pattern": rf"(\w{{30}}x){{{n}}}"} for n in range(2, 40)]}},
        '{"a": "' + "ä" * 40_000 + '"}',
    ),
    "a classic": ({"additionalProperties": {"pattern": "^(a+)+$"}}, '{"a": "' + "a" * 900_000 + '!"}'),
    "choices": (
        {"additionalProperties": {"items": {"oneOf": [{"const": n + 0.5} for n in range(80)]}}},
        '{"a": [' + ",".join(["100.25"] * 800) + "]}",
    ),
    "unique at each level": (
        {
            "additionalProperties": {"$ref": "#/$defs/a"},
            "$defs": {"a": {"uniqueItems": True, "items": {"$ref": "#/$defs/a"}}},
        },
        '{"a": ' + "[" * 98 + ",".join(f"{n}.5" for n in range(50_000)) + "]" * 98 + "}",
    ),
    "long numbers": (
        {"additionalProperties": {"items": {"multipleOf": 0.001, "minimum": 0.5}}},
        '{"a": [' + ",".join(["9" * DIGITS_MAX] * 16_000) + "]}",
    ),
    "unevaluated": (
        {"anyOf": [{"properties": {f"p{n}": {"type": "integer"}}} for n in range(100)], "unevaluatedProperties": False},
        "{" + ",".join(f'"p{n}": "x"' for n in range(3_000)) + "}",
    ),
    "a thousand errors": ({"additionalProperties": {"items": {"type": "string"}}}, '{"a": [' + "1," * 300_000 + "1]}"),
}


@pytest.mark.parametrize("kind", SLOW)
def test_no_object_takes_long_to_check(kind: str) -> None:
    schema, text = SLOW[kind]
    asked = compiled(schema)
    began = time.process_time()
    with suppress(DataRefused):
        asked.check(text)
    assert time.process_time() - began < 2


def test_an_object_that_would_take_too_long_is_not_begun() -> None:
    schema = compiled({"additionalProperties": {"items": {"oneOf": [{"const": n + 0.5} for n in range(80)]}}})
    text = '{"a": [' + ",".join(["100.25"] * 100_000) + "]}"
    assert schema.work(text) > WORK_MAX
    began = time.process_time()
    assert "too large" in refusal(schema, text)[1]
    assert time.process_time() - began < 0.1
