"""Attacks on the border between organisations, made from the schema that the server itself shows.

Whatever has an id is called by another organisation's client: every argument, every field of every input, of every query
and mutation, with the ids of all kinds of objects there are. The answer has to be that of an id that nobody has, byte for
byte. A new type, argument or mutation is attacked without anybody having thought of it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_client_schema,
    get_introspection_query,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

from harness.api import Answer, Caller

CANARY = "CANARY-of-the-victim"
"""In every text of the victim's; no answer to anybody else may hold it."""

_PLACE = "@@ID@@"
_DEPTH = 4
_TEXTS = {
    "webhookUri": "https://93.184.216.34/hook",
    "network": "10.1.0.0/16",
    "condition": "true",
    "retrySchedule": "0",
    "expires": "2027-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Attack:
    """A document with a place for an id; `where` names the argument that it is in, `prefix` what comes before the id."""

    where: str
    document: str
    prefix: str = ""

    def with_id(self, value: str) -> dict[str, object]:
        """The operation with the id in a variable: the server reads the document once for all ids."""
        document = self.document.replace(" {", "($place: ID!) {", 1).replace(f'"{self.prefix}{_PLACE}"', "$place")
        return {"query": document, "variables": {"place": self.prefix + value}}

    def written(self, value: str) -> dict[str, object]:
        """The operation with the id written into the document."""
        return {"query": self.document.replace(_PLACE, value.replace("\\", "\\\\").replace('"', '\\"'))}


def schema_of(caller: Caller) -> GraphQLSchema:
    """The schema as the server describes it."""
    return build_client_schema(caller(get_introspection_query()).data)


def attacks(schema: GraphQLSchema, etag: str) -> Iterator[Attack]:
    """One attack for each place of each operation where an id can stand; `etag` goes wherever one is wanted."""
    writer = _Writer(etag)
    for kind, root in (("query", schema.query_type), ("mutation", schema.mutation_type)):
        assert root is not None
        for name, field in sorted(root.fields.items()):
            for path in _id_places(field):
                for prefix, chosen in selections(schema, field.type):
                    arguments = writer.arguments(field, path).replace(_PLACE, prefix + _PLACE)
                    where = f"{kind} {name}({'.'.join(path)}{': ' if prefix else ''}{prefix})"
                    yield Attack(where, f"{kind} {{ attacked: {name}({arguments}) {chosen} }}", prefix)


def lists(schema: GraphQLSchema) -> dict[str, GraphQLField]:
    """The root fields that are paged."""
    assert schema.query_type is not None
    return {name: field for name, field in schema.query_type.fields.items() if "after" in field.args}


def node_types(schema: GraphQLSchema) -> list[str]:
    """The types that `node` is said to find."""
    node = schema.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    return sorted(one.name for one in schema.get_possible_types(node))


def spellings(key: str) -> Iterator[str]:
    """An id as somebody might write it who hopes that two readers of it disagree."""
    yield key
    yield from (f" {key}", f"{key} ", f"0{key}", f"+{key}", f"{key}.0", f"{key}e0", f"{int(key):#x}", f"-{key}")
    yield "".join(chr(ord("0") + 0xFEE0 + int(digit)) for digit in key)
    yield f"{key}\0"
    yield base64.b64encode(key.encode()).decode()
    yield from (f"{key} OR 1=1", f"{key}'--", f"[{key}]", f"{key},1")


def selections(schema: GraphQLSchema, type_: Any, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """All fields of a type that need no argument, so deep; of an interface once for each of its types, with the prefix of
    its ids.
    """
    named = get_named_type(type_)
    if not isinstance(named, GraphQLInterfaceType):
        yield "", selection(schema, type_, depth)
        return
    for one in sorted(schema.get_possible_types(named), key=lambda found: found.name):
        yield f"{one.name}:", f"{{ __typename ... on {one.name} {selection(schema, one, depth)} }}"


def selection(schema: GraphQLSchema, type_: Any, depth: int = _DEPTH) -> str:
    """All fields of a type that need no argument, so deep; of an interface those that it has itself."""
    named = get_named_type(type_)
    if is_leaf_type(named):
        return ""
    assert isinstance(named, GraphQLObjectType | GraphQLInterfaceType), f"no fields of {named}"
    parts = ["__typename"]
    for name, field in named.fields.items():
        if any(is_required_argument(argument) for argument in field.args.values()):
            continue
        arguments = "(first: 2)" if "first" in field.args else ""
        if is_leaf_type(get_named_type(field.type)):
            parts.append(f"{name}{arguments}")
        elif depth > 1:
            parts.append(f"{name}{arguments} {selection(schema, field.type, depth - 1)}")
    return "{ " + " ".join(parts) + " }"


class _Writer:
    """Writes arguments: what is required, and what leads to the place under attack."""

    def __init__(self, etag: str) -> None:
        self._etag = etag

    def arguments(self, field: GraphQLField, path: tuple[str, ...]) -> str:
        written = []
        for name, argument in field.args.items():
            if name == path[0] or is_required_argument(argument):
                inner = path[1:] if name == path[0] else None
                written.append(f"{name}: {self._value(name, argument.type, inner)}")
        return ", ".join(written)

    def _value(self, name: str, type_: Any, path: tuple[str, ...] | None) -> str:
        """A literal of the type; `path` leads on to the place, () means that this is it, None that it is elsewhere."""
        match type_:
            case GraphQLNonNull():
                return self._value(name, type_.of_type, path)
            case GraphQLList():
                return f"[{self._value(name, type_.of_type, path)}]"
            case GraphQLInputObjectType():
                return self._object(type_, path)
            case GraphQLEnumType():
                return "RUNS" if "RUNS" in type_.values else next(iter(type_.values))
            case GraphQLScalarType():
                return f'"{_PLACE}"' if path == () else self._scalar(name, type_)
        raise TypeError(f"no literal for {type_}")

    def _object(self, type_: GraphQLInputObjectType, path: tuple[str, ...] | None) -> str:
        written = []
        for name, field in type_.fields.items():
            wanted = path is not None and path[:1] == (name,)
            if wanted or is_required_input_field(field) or name == "etag":
                written.append(f"{name}: {self._value(name, field.type, path[1:] if wanted and path else None)}")
        return "{" + ", ".join(written) + "}"

    def _scalar(self, name: str, type_: GraphQLScalarType) -> str:
        match type_.name:
            case "Int" | "BigInt" | "Float":
                return "443" if name == "port" else "1"
            case "Boolean":
                return "true"
            case "DateTime":
                return '"2027-01-01T00:00:00Z"'
            case "JSON":
                return "{}"
        return f'"{self._etag if name == "etag" else _TEXTS.get(name, "x")}"'


def _id_places(field: GraphQLField) -> Iterator[tuple[str, ...]]:
    for name, argument in field.args.items():
        for rest in _ids_in(argument, ()):
            yield (name, *rest)


def _ids_in(holder: GraphQLArgument | GraphQLInputField, seen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    named = get_named_type(holder.type)
    if isinstance(named, GraphQLScalarType) and named.name == "ID":
        yield ()
    elif isinstance(named, GraphQLInputObjectType) and named.name not in seen:
        for name, field in named.fields.items():
            for rest in _ids_in(field, (*seen, named.name)):
                yield (name, *rest)


@dataclass(frozen=True, slots=True)
class Border:
    """Two organisations on one server: ids of the victim's objects by type, with an id of nobody for each.

    Each id has the same number of digits as its absent twin and stands for nothing else in any answer.
    """

    attacker: Caller
    victims: Mapping[str, str]
    absent: Mapping[str, str]
    etags: Mapping[str, str]
    own_receiver: str

    def likely(self, attack: Attack) -> list[str]:
        """The types that the place is named after, whose ids could be found there; all types where it is named after none."""
        where = attack.where.lower()
        named = [name for name in self.victims if name.removeprefix("Webhook").removeprefix("Api").lower() in where]
        return named or list(self.victims)

    def differences(
        self, attack: Attack, types: Collection[str], ask: Callable[[Attack, str], object] = Attack.with_id
    ) -> Iterator[tuple[str, str, str]]:
        """What the attacker can tell of the victim's ids of these types: the place, one answer, the other."""
        nobody = next(iter(self.absent.values()))
        absent = normal(self.attacker.post(ask(attack, nobody)), nobody)
        for type_name in types:
            key = self.victims[type_name]
            foreign = normal(self.attacker.post(ask(attack, key)), key)
            if foreign != absent or CANARY in foreign:
                yield f"{attack.where} with the id of a {type_name}", foreign, absent

    def found(self, attack: Attack, owner: Caller) -> bool:
        """Whether the attack tells one of the victim's likely objects from an absent one when its owner asks: it can succeed."""
        nobody = next(iter(self.absent.values()))
        absent = normal(owner.post(attack.with_id(nobody)), nobody)
        keys = (self.victims[type_name] for type_name in self.likely(attack))
        return any(normal(owner.post(attack.with_id(key)), key) != absent for key in keys)


def normal(answer: Answer, *ids: str) -> str:
    """The answer's status and body without the ids that were asked for, which it may repeat."""
    text = f"{answer.status} {answer.body}"
    for one in ids:
        text = text.replace(one, "ID")
    return text
