"""JSON Schema (2020-12) of published objects: what may be registered, and whether an object satisfies it. Pure.

Nothing is ever fetched: a reference leads to a place in the schema itself. Patterns run in time linear in the text. What an
object can cost is bounded before the library looks at it: by how many parts of the schema may look at one and the same
value, times the values that the object has.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

SCHEMA_BYTES_MAX: Final = 65_536
SCHEMA_DEPTH_MAX: Final = 50
PATTERNS_MAX: Final = 100
PARTS_MAX: Final = 1_000
"""How many parts of the schema may look at one value."""

WIDTH_MAX: Final = 10_000
"""The same with what each part does: a comparison of numbers, which are exact here, takes as long as ten looks."""

DIGITS_MAX: Final = 40
EXPONENT_MAX: Final = 100
"""Numbers beyond either are not compared; without a schema a number may have any length."""

WORK_MAX: Final = 2_000_000
"""Looks that one object may take: some 0.2 s at the very worst."""

_STATES_MAX: Final = 5_000
_PATTERN_BYTES_MAX: Final = 256 * 1024
"""Of one compiled pattern: what repetitions such as (a{1000}){1000} would exceed."""

_BYTES_PER_LOOK: Final = 16
"""A pattern passes so many bytes in the time of another look."""

_ENTRIES_PER_LOOK: Final = 8
_LOOKS_PER_NUMBER: Final = 10
_LOOKS_PER_COMPARISON: Final = 20
_SHOWN_LENGTH_MAX: Final = 300
_MASK: Final = "the value"
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFUSED: Final = {
    "$anchor": "write the place itself, as #/$defs/name",
    "$dynamicAnchor": "write the place itself, as #/$defs/name",
    "$dynamicRef": "take $ref",
    "$recursiveRef": "take $ref",
}
_WALKED: Final = ("required", "properties", "patternProperties")
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_OF_SAME: Final = ("not", "if", "then", "else")
_LISTS_OF_SAME: Final = ("allOf", "anyOf", "oneOf")
_OF_ANY_MEMBER: Final = ("additionalProperties", "unevaluatedProperties")
_OF_ENTRIES: Final = ("items", "contains", "unevaluatedItems")

_Node = Mapping[str, Any]


class SchemaRefused(ValueError):
    """A schema that cannot be registered; the message says what of it, and why."""


class DataRefused(ValueError):
    """An object that does not satisfy its schema. `path` leads to the value inside it, as `lines.2.quantity`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A schema that is ready to be asked."""

    validator: jsonschema_rs.Draft202012Validator
    width: int

    def work(self, text: str) -> int:
        """Looks that the object of this JSON text can take, at most."""
        values = 1 + text.count(",") + text.count("[") + 2 * text.count("{")
        return self.width * (values + len(text) // _BYTES_PER_LOOK)

    def check(self, text: str) -> None:
        """Raises DataRefused for the JSON text of an object that does not satisfy the schema, with the first place found."""
        if self.work(text) > WORK_MAX:
            raise DataRefused("", "is too large to be checked with the schema of its resource")
        try:
            value = json.loads(text, object_pairs_hook=_members, parse_int=_whole, parse_float=_decimal)
        except RecursionError:
            raise DataRefused("", "is nested too deep to be checked") from None
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            path = ".".join(str(step) for step in error.instance_path)
            message = error.message
            if len(message) > _SHOWN_LENGTH_MAX:
                message = f"{message[:_SHOWN_LENGTH_MAX]}…"
            raise DataRefused(path[:_SHOWN_LENGTH_MAX], message) from None


def schema_text(schema: object) -> str:
    """The schema as it is stored. Raises SchemaRefused for one that cannot be registered."""
    if not isinstance(schema, dict):
        raise SchemaRefused("must be a JSON object")
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError):
        raise SchemaRefused("is no JSON") from None
    if size > SCHEMA_BYTES_MAX:
        raise SchemaRefused(f"has {size} bytes, {SCHEMA_BYTES_MAX} are allowed")
    if "\\u0000" in text:
        raise SchemaRefused("must not have a NUL character")
    compile_schema(text)
    return text


def compile_schema(text: str) -> CompiledSchema:
    """The schema of this JSON text. Raises SchemaRefused."""
    schema: _Node = json.loads(text)
    _check_keywords(schema)
    width = _Widths(schema).largest()
    options = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES_MAX, dfa_size_limit=_PATTERN_BYTES_MAX * 4)
    try:
        validator = jsonschema_rs.Draft202012Validator(
            text, offline=True, validate_formats=True, ignore_unknown_formats=True, mask=_MASK, pattern_options=options
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        place = "/".join(str(step) for step in getattr(error, "instance_path", ()))
        raise SchemaRefused(f"is no JSON Schema{f' at {place}' if place else ''}: {error.message}"[:500]) from None
    return CompiledSchema(validator, width)


def members_of(text: str) -> frozenset[str] | None:
    """The only members that objects by the schema of this JSON text can have; None if it does not say so plainly."""
    schema: _Node = json.loads(text)
    properties = schema.get("properties")
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return frozenset(properties) if closed and isinstance(properties, dict) and properties else None


def _whole(source: str) -> int:
    if len(source) > DIGITS_MAX:
        raise DataRefused("", f"has a number of more than {DIGITS_MAX} digits, which its schema cannot be asked about")
    return int(source)


def _decimal(source: str) -> Decimal:
    if len(source) <= DIGITS_MAX:
        try:
            number = Decimal(source)
        except InvalidOperation:
            number = Decimal("Infinity")
        if number.is_finite() and abs(number.adjusted()) <= EXPONENT_MAX:
            return number
    raise DataRefused(
        "",
        f"has a number of more than {DIGITS_MAX} digits or beyond 1e±{EXPONENT_MAX}, which its schema cannot be asked about",
    )


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Which of them a receiver takes nobody knows.
        raise DataRefused("", "has a member twice")
    return members


def _check_keywords(schema: _Node) -> None:
    """Raises SchemaRefused for what is too deep, or has too many patterns, or names other documents."""
    draft = schema.get("$schema", _DRAFT)
    if not isinstance(draft, str) or draft.rstrip("#") != _DRAFT:
        raise SchemaRefused(f"$schema must be {_DRAFT}, or left out")
    patterns = 0
    nodes: list[tuple[object, int]] = [(schema, 1)]
    while nodes:
        node, depth = nodes.pop()
        if depth > SCHEMA_DEPTH_MAX:
            raise SchemaRefused(f"is nested more than {SCHEMA_DEPTH_MAX} deep")
        if isinstance(node, dict):
            for keyword, advice in _REFUSED.items():
                if isinstance(node.get(keyword), str):
                    raise SchemaRefused(f"{keyword} is not supported: {advice}")
            if depth > 1 and (isinstance(node.get("$id"), str) or isinstance(node.get("$schema"), str)):
                raise SchemaRefused("$id and $schema are for the outermost object alone")
            named = node.get("patternProperties")
            patterns += isinstance(node.get("pattern"), str) + (len(named) if isinstance(named, dict) else 0)
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        nodes.extend((child, depth + 1) for child in children)
    if patterns > PATTERNS_MAX:
        raise SchemaRefused(f"has {patterns} patterns, {PATTERNS_MAX} are allowed")


class _Widths:
    """How many parts of a schema look at the same value: at the object itself, and at each place inside it."""

    def __init__(self, schema: _Node) -> None:
        self._schema = schema

    def largest(self) -> int:
        """Raises SchemaRefused above WIDTH_MAX, which a reference that leads back to itself always is."""
        largest = 0
        states: list[tuple[Any, ...]] = [(self._schema,)]
        seen: set[tuple[int, ...]] = set()
        while states:
            state = states.pop()
            key = tuple(sorted(map(id, state)))
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > _STATES_MAX:
                raise SchemaRefused("has too many places that other parts of it apply to")
            together = self._together(state)
            largest = max(largest, sum(map(_weight, together)))
            if largest > WIDTH_MAX:
                raise _too_wide()
            states.extend(_inside(together))
        return largest

    def _together(self, state: tuple[Any, ...]) -> list[_Node]:
        """All parts that look at the value that the parts of the state look at."""
        found: list[_Node] = []
        waiting = list(state)
        while waiting:
            node = waiting.pop()
            if not isinstance(node, dict):
                continue
            found.append(node)
            if len(found) > PARTS_MAX:
                raise _too_wide()
            beside = list(self._beside(node))
            # To know what has been looked at, the library looks again.
            waiting += beside * (2 if "unevaluatedProperties" in node or "unevaluatedItems" in node else 1)
            if len(waiting) > 2 * PARTS_MAX:
                raise _too_wide()
        return found

    def _beside(self, node: _Node) -> Iterator[Any]:
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield self._target(reference)
        for name in _OF_SAME:
            if name in node:
                yield node[name]
        for name in _LISTS_OF_SAME:
            if isinstance(node.get(name), list):
                yield from node[name]
        if isinstance(node.get("dependentSchemas"), dict):
            yield from node["dependentSchemas"].values()

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#") or (reference != "#" and not reference.startswith("#/")):
            raise SchemaRefused(f"$ref {reference[:100]!r} leads out of the schema: only #/… is followed")
        target: Any = self._schema
        for step in unquote(reference[1:]).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and re.fullmatch(r"0|[1-9][0-9]{0,4}", name) and int(name) < len(target):
                target = target[int(name)]
            else:
                raise SchemaRefused(f"$ref {reference[:100]!r} leads nowhere")
        if not isinstance(target, dict | bool):
            raise SchemaRefused(f"$ref {reference[:100]!r} leads to no schema")
        return target


def _too_wide() -> SchemaRefused:
    return SchemaRefused(
        f"has more than {PARTS_MAX} parts that look at one value, or too many things to compare it with: "
        "references that lead back to themselves, combinations of combinations, long lists of numbers"
    )


def _weight(node: _Node) -> int:
    """1, and more where the library walks through a list or compares."""
    entries = sum(len(node[name]) for name in _WALKED if isinstance(node.get(name), list | dict))
    looks = 1 + entries // _ENTRIES_PER_LOOK + _LOOKS_PER_NUMBER * sum(name in node for name in _NUMBERS)
    if "uniqueItems" in node:
        looks += _LOOKS_PER_COMPARISON
    choices = [node["const"]] if "const" in node else []
    choices += node["enum"] if isinstance(node.get("enum"), list) else []
    if not all(isinstance(choice, str) for choice in choices):
        # Texts are looked up, others are compared one by one.
        looks += _LOOKS_PER_COMPARISON * len(choices) + len(json.dumps(choices)) // _BYTES_PER_LOOK
    return looks


def _inside(together: list[_Node]) -> Iterator[tuple[Any, ...]]:
    """For each place inside the value (a member of a name, any other member, the members' names, the entries): who looks there."""
    named: defaultdict[str, list[Any]] = defaultdict(list)
    others: list[Any] = []
    names: list[Any] = []
    entries: list[Any] = []
    for node in together:
        if isinstance(node.get("properties"), dict):
            for name, child in node["properties"].items():
                named[name].append(child)
        if isinstance(node.get("patternProperties"), dict):
            others += node["patternProperties"].values()
        others += [node[name] for name in _OF_ANY_MEMBER if name in node]
        names += [node["propertyNames"]] if "propertyNames" in node else []
        if isinstance(node.get("prefixItems"), list):
            entries += node["prefixItems"]
        entries += [node[name] for name in _OF_ENTRIES if name in node]
    for children in named.values():
        yield (*children, *others)
    yield from (tuple(place) for place in (others, names, entries) if place)
