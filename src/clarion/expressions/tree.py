"""The tree of a compiled expression: what the library serialises, read into plain values. Pure.

Source of the format: `cel/expr/checked.proto` and `cel/expr/syntax.proto` of the CEL specification (github.com/cel-expr/cel-spec).
Only what a check of columns and a bound of costs look at is declared; the rest is skipped as unknown fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: bool, int, float, str, bytes or None."""

    value: bool | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)` if `is_test`."""

    operand: Node
    field: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (`_==_`); a method has its receiver as `target`."""

    function: str
    target: Node | None
    arguments: tuple[Node, ...]

    @property
    def operands(self) -> tuple[Node, ...]:
        """The receiver, if there is one, and the arguments."""
        return self.arguments if self.target is None else (self.target, *self.arguments)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list literal."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map literal."""

    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What the macros `all`, `exists`, `exists_one`, `map` and `filter` become."""

    variable: str
    range: Node
    accumulator: str
    initial: Node
    condition: Node
    step: Node
    result: Node


Kind = Constant | Name | Select | Call | ListOf | MapOf | Loop


@dataclass(frozen=True, slots=True)
class Node:
    """One node, and its offset in the source in characters (-1 where none is known)."""

    kind: Kind
    offset: int = field(compare=False)

    def children(self) -> Iterator[Node]:
        """The nodes directly below."""
        match self.kind:
            case Constant() | Name():
                return
            case Select(operand):
                yield operand
            case Call() as call:
                yield from call.operands
            case ListOf(elements):
                yield from elements
            case MapOf(entries):
                for key, value in entries:
                    yield key
                    yield value
            case Loop() as loop:
                yield from (loop.range, loop.initial, loop.condition, loop.step, loop.result)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children():
            yield from child.walk()


def read_tree(serialized: bytes) -> Node:
    """The tree of what `Expression.serialize()` gave. Raises ValueError for anything else."""
    wrapper = _ANY()
    wrapper.ParseFromString(serialized)
    if wrapper.type_url != "type.googleapis.com/cel.expr.CheckedExpr":
        raise ValueError(f"not a checked expression: {wrapper.type_url!r}")
    checked = _CHECKED()
    checked.ParseFromString(wrapper.value)
    return _node(checked.expr, checked.source_info.positions)


def _node(expression: Any, positions: Any) -> Node:
    def child(one: Any) -> Node:
        return _node(one, positions)

    kind: Kind
    match expression.WhichOneof("kind"):
        case "const_expr":
            which = expression.const_expr.WhichOneof("kind")
            # A null, and what only folded constants could hold, is None.
            value = getattr(expression.const_expr, which) if which not in (None, "null_value") else None
            kind = Constant(value)
        case "ident_expr":
            kind = Name(expression.ident_expr.name)
        case "select_expr":
            select = expression.select_expr
            kind = Select(child(select.operand), select.field, select.test_only)
        case "call_expr":
            call = expression.call_expr
            target = child(call.target) if call.HasField("target") else None
            kind = Call(call.function, target, tuple(child(one) for one in call.args))
        case "list_expr":
            kind = ListOf(tuple(child(one) for one in expression.list_expr.elements))
        case "struct_expr":
            entries = expression.struct_expr.entries
            kind = MapOf(tuple((child(entry.map_key), child(entry.value)) for entry in entries))
        case "comprehension_expr":
            loop = expression.comprehension_expr
            kind = Loop(
                loop.iter_var,
                child(loop.iter_range),
                loop.accu_var,
                child(loop.accu_init),
                child(loop.loop_condition),
                child(loop.loop_step),
                child(loop.result),
            )
        case other:
            raise ValueError(f"unknown node {other!r}")
    return Node(kind, positions.get(expression.id, -1))


# ---------------------------------------------------------------- the messages

_SCALARS = {
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

_MESSAGES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Any": (("type_url", "string", 1), ("value", "bytes", 2)),
    "CheckedExpr": (("expr", "Expr", 4), ("source_info", "SourceInfo", 5)),
    "SourceInfo": (("positions", "map", 4),),
    "Ident": (("name", "string", 1),),
    "Select": (("operand", "Expr", 1), ("field", "string", 2), ("test_only", "bool", 3)),
    "Call": (("target", "Expr", 1), ("function", "string", 2), ("args", "Expr*", 3)),
    "List": (("elements", "Expr*", 1),),
    "Entry": (("map_key", "Expr", 3), ("value", "Expr", 4)),
    "Struct": (("message_name", "string", 1), ("entries", "Entry*", 2)),
    "Comprehension": (
        ("iter_var", "string", 1),
        ("iter_range", "Expr", 2),
        ("accu_var", "string", 3),
        ("accu_init", "Expr", 4),
        ("loop_condition", "Expr", 5),
        ("loop_step", "Expr", 6),
        ("result", "Expr", 7),
    ),
}

_CHOICES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Constant": (
        ("null_value", "int32", 1),
        ("bool_value", "bool", 2),
        ("int64_value", "int64", 3),
        ("uint64_value", "uint64", 4),
        ("double_value", "double", 5),
        ("string_value", "string", 6),
        ("bytes_value", "bytes", 7),
    ),
    "Expr": (
        ("const_expr", "Constant", 3),
        ("ident_expr", "Ident", 4),
        ("select_expr", "Select", 5),
        ("call_expr", "Call", 6),
        ("list_expr", "List", 7),
        ("struct_expr", "Struct", 8),
        ("comprehension_expr", "Comprehension", 9),
    ),
}


def _declare() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="clarion/cel.proto", package="clarion.cel", syntax="proto3")
    for name, fields in {**_MESSAGES, **_CHOICES}.items():
        message = file.message_type.add(name=name)
        if name in _CHOICES:
            message.oneof_decl.add(name="kind")
        if name == "Expr":
            message.field.add(name="id", number=2, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
        for field_name, type_name, number in fields:
            kind = type_name.rstrip("*")
            repeated = type_name.endswith("*") or kind == "map"
            declared = message.field.add(
                name=field_name,
                number=number,
                type=_SCALARS.get(kind, _Field.TYPE_MESSAGE),
                label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
            )
            if name in _CHOICES:
                declared.oneof_index = 0
            if kind == "map":
                entry = message.nested_type.add(name="PositionsEntry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
                entry.field.add(name="value", number=2, type=_Field.TYPE_INT32, label=_Field.LABEL_OPTIONAL)
                declared.type_name = f".clarion.cel.{name}.PositionsEntry"
            elif kind not in _SCALARS:
                declared.type_name = f".clarion.cel.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _declare()
_ANY: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("clarion.cel.Any"))
_CHECKED: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("clarion.cel.CheckedExpr"))
