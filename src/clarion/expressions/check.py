"""Whether an expression can work on a resource's rows: names and kinds of columns, where the library knows neither. Pure.

The library checks what is written out; rows are maps of anything to it, so that `object.statsu` and `object.quantity == "3"`
pass. Here the tree is walked with the columns at hand. What cannot be known (fields of JSON, elements of lists) is let pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clarion.expressions.columns import Shape, ValueKind
from clarion.expressions.tree import Call, Constant, ListOf, Loop, MapOf, Name, Node, Select

ROWS = ("object", "oldObject")

_COMPARISONS = {"_==_": "==", "_!=_": "!=", "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_ORDERED = {"_<_", "_<=_", "_>_", "_>=_"}
_ARITHMETIC = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%"}
_LOGIC = {"_&&_": "&&", "_||_": "||", "!_": "!"}
_OF_TEXT = {
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "lowerAscii",
    "upperAscii",
    "trim",
    "substring",
    "charAt",
    "indexOf",
    "lastIndexOf",
}
_RETURNS = {
    "string": ValueKind.TEXT,
    "lowerAscii": ValueKind.TEXT,
    "upperAscii": ValueKind.TEXT,
    "trim": ValueKind.TEXT,
    "substring": ValueKind.TEXT,
    "charAt": ValueKind.TEXT,
    "join": ValueKind.TEXT,
    "int": ValueKind.WHOLE,
    "uint": ValueKind.WHOLE,
    "size": ValueKind.WHOLE,
    "indexOf": ValueKind.WHOLE,
    "lastIndexOf": ValueKind.WHOLE,
    "double": ValueKind.DECIMAL,
    "bool": ValueKind.TRUTH,
    "startsWith": ValueKind.TRUTH,
    "endsWith": ValueKind.TRUTH,
    "contains": ValueKind.TRUTH,
    "matches": ValueKind.TRUTH,
    "timestamp": ValueKind.TIMESTAMP,
    "duration": ValueKind.DURATION,
    "bytes": ValueKind.BYTES,
    "@in": ValueKind.TRUTH,
    "@not_strictly_false": ValueKind.TRUTH,
}
_NUMBERS = {ValueKind.WHOLE, ValueKind.DECIMAL}
_DATED = {ValueKind.TIMESTAMP, ValueKind.DURATION}
_UNKNOWN = {ValueKind.ANY, ValueKind.NULL}
_VARIABLES = {
    "action": ValueKind.TEXT,
    "resource": ValueKind.TEXT,
    "objectId": ValueKind.TEXT,
    "correlationId": ValueKind.ANY,
    "changed": ValueKind.LIST,
    "actor": ValueKind.MAP,
}
_ACTOR_FIELDS = ("id", "name")


@dataclass
class Unsuitable(Exception):
    """What is wrong, and at which offset of the source, in characters (-1: as a whole)."""

    message: str
    offset: int


def check(tree: Node, shape: Shape) -> ValueKind:
    """The kind of the expression's result. Raises Unsuitable for what can never work on rows of this shape."""
    return _Checker(shape).kind_of(tree, {})


def row_member(node: Node) -> tuple[str, str] | None:
    """The row's variable and the column, where the node reads a column of a row by its name."""
    match node.kind:
        case Select(Node(Name(row)), column) if row in ROWS:
            return row, column
        case Call("_[_]", None, (Node(Name(row)), Node(Constant(str(column))))) if row in ROWS:
            return row, column
    return None


class _Checker:
    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def kind_of(self, node: Node, local: Mapping[str, ValueKind]) -> ValueKind:
        """`local` has the kinds of the variables of the loops around the node."""
        match node.kind:
            case Constant(value):
                return _kind_of_constant(value)
            case Name(name):
                return local.get(name) or self._variable(name, node.offset)
            case Select() as select:
                return self._select(select, node, local)
            case Call() as call:
                return self._call(call, node, local)
            case ListOf(elements):
                for element in elements:
                    self.kind_of(element, local)
                return ValueKind.LIST
            case MapOf(entries):
                for pair in entries:
                    for part in pair:
                        self.kind_of(part, local)
                return ValueKind.MAP
            case Loop() as loop:
                return self._loop(loop, local)

    def _variable(self, name: str, offset: int) -> ValueKind:
        if name == self._shape.absent_row:
            other = "object" if name == "oldObject" else "oldObject"
            when = "before it was created" if name == "oldObject" else "after it was deleted"
            raise Unsuitable(
                f"{name} does not exist for {self._shape.action}: there is no row {when}; use {other}", offset
            )
        if name in ROWS:
            return ValueKind.ROW
        return _VARIABLES.get(name, ValueKind.ANY)

    def _column(self, column: str, offset: int) -> ValueKind:
        shape = self._shape
        if shape.columns is None:
            return ValueKind.ANY
        kind = shape.columns.get(column)
        if kind is not None:
            return kind
        raise Unsuitable(shape.unknown_column(column), offset)

    def _select(self, select: Select, node: Node, local: Mapping[str, ValueKind]) -> ValueKind:
        operand = self.kind_of(select.operand, local)
        where = node.offset if select.is_test else node.offset + 1
        if operand is ValueKind.ROW:
            kind = self._column(select.field, where)
            return ValueKind.TRUTH if select.is_test else kind
        if select.operand.kind == Name("actor") and select.field not in _ACTOR_FIELDS:
            raise Unsuitable(f"actor has no {select.field}: there are id and name", where)
        if operand not in {ValueKind.ANY, ValueKind.MAP, ValueKind.NULL}:
            raise Unsuitable(f"{operand.value} has no field {select.field}", where)
        return ValueKind.TRUTH if select.is_test else ValueKind.ANY

    def _loop(self, loop: Loop, local: Mapping[str, ValueKind]) -> ValueKind:
        over = self.kind_of(loop.range, local)
        if over not in {ValueKind.LIST, ValueKind.MAP, ValueKind.ROW, ValueKind.ANY}:
            raise Unsuitable(f"{over.value} has no elements to go through", loop.range.offset)
        is_of_names = over is ValueKind.ROW or loop.range.kind == Name("changed")
        accumulated = self.kind_of(loop.initial, local)
        inner = {
            **local,
            loop.variable: ValueKind.TEXT if is_of_names else self._element(loop.range, local),
            loop.accumulator: accumulated,
        }
        for part in (loop.condition, loop.step):
            self.kind_of(part, inner)
        return self.kind_of(loop.result, inner)

    def _element(self, node: Node, local: Mapping[str, ValueKind]) -> ValueKind:
        """The kind that all elements of a written list have, else any."""
        if isinstance(node.kind, ListOf):
            kinds = {self.kind_of(element, local) for element in node.kind.elements}
            if len(kinds) == 1:
                return kinds.pop()
        return ValueKind.TEXT if node.kind == Name("changed") else ValueKind.ANY

    def _call(self, call: Call, node: Node, local: Mapping[str, ValueKind]) -> ValueKind:
        if call.function == "_?_:_" and (holds := self._holds(call.operands[0])) is not None:
            # One expression may serve several actions: the branch for another is never gone into.
            return self.kind_of(call.operands[1 if holds else 2], local)
        kinds = [self.kind_of(operand, local) for operand in call.operands]
        function = call.function
        if function in _COMPARISONS:
            _check_comparison(function, kinds[0], kinds[1], node.offset)
            return ValueKind.TRUTH
        if function in _ARITHMETIC:
            return _arithmetic(function, kinds[0], kinds[1], node.offset)
        if function in _LOGIC:
            for kind, operand in zip(kinds, call.operands, strict=True):
                if kind not in {ValueKind.TRUTH, *_UNKNOWN}:
                    raise Unsuitable(
                        f"`{_LOGIC[function]}` needs true or false, here it has {kind.value}", operand.offset
                    )
            return ValueKind.TRUTH
        if function == "_?_:_":
            if kinds[0] not in {ValueKind.TRUTH, *_UNKNOWN}:
                raise Unsuitable(f"`?` needs true or false, here it has {kinds[0].value}", call.operands[0].offset)
            return kinds[1] if kinds[1] is kinds[2] else ValueKind.ANY
        if function == "_[_]":
            member = row_member(node)
            if member is not None and kinds[0] is ValueKind.ROW:
                return self._column(member[1], call.operands[1].offset)
            return ValueKind.ANY
        if function == "@in":
            self._check_in(call, kinds, node.offset, local)
        if call.target is not None and function in _OF_TEXT and kinds[0] not in {ValueKind.TEXT, *_UNKNOWN}:
            raise Unsuitable(f"{function}() is for text, here it has {kinds[0].value}", node.offset)
        if function == "-_":
            return kinds[0]
        return _RETURNS.get(function, ValueKind.ANY)

    def _holds(self, node: Node) -> bool | None:
        """Whether a comparison of `action` with a text holds for this action; None for anything else."""
        match node.kind:
            case Call("_==_", None, (Node(Name("action")), Node(Constant(str(action))))):
                return action == self._shape.action
            case Call("_!=_", None, (Node(Name("action")), Node(Constant(str(action))))):
                return action != self._shape.action
        return None

    def _check_in(self, call: Call, kinds: list[ValueKind], offset: int, local: Mapping[str, ValueKind]) -> None:
        element = self._element(call.operands[1], local)
        if kinds[1] not in {ValueKind.LIST, ValueKind.MAP, ValueKind.ROW, *_UNKNOWN}:
            raise Unsuitable(f"`in` needs a list, here it has {kinds[1].value}", call.operands[1].offset)
        if not _comparable(kinds[0], element):
            raise Unsuitable(f"`in` compares {kinds[0].value} with {element.value}, which is never equal", offset)


def _kind_of_constant(value: object) -> ValueKind:
    match value:
        case None:
            return ValueKind.NULL
        case bool():
            return ValueKind.TRUTH
        case int():
            return ValueKind.WHOLE
        case float():
            return ValueKind.DECIMAL
        case str():
            return ValueKind.TEXT
        case _:
            return ValueKind.BYTES


def _comparable(one: ValueKind, other: ValueKind) -> bool:
    return (
        one is other
        or one in _UNKNOWN
        or other in _UNKNOWN
        or {one, other} <= _NUMBERS
        or {one, other}
        <= {
            ValueKind.ROW,
            ValueKind.MAP,
        }
    )


def _check_comparison(function: str, one: ValueKind, other: ValueKind, offset: int) -> None:
    if not _comparable(one, other):
        raise Unsuitable(
            f"`{_COMPARISONS[function]}` cannot compare {one.value} with {other.value}{_conversion(one, other)}", offset
        )
    if function in _ORDERED:
        for kind in (one, other):
            if kind in {ValueKind.NULL, ValueKind.LIST, ValueKind.MAP, ValueKind.ROW}:
                raise Unsuitable(f"`{_COMPARISONS[function]}` has no order for {kind.value}", offset)


def _conversion(one: ValueKind, other: ValueKind) -> str:
    """What would help, where two kinds do not go together."""
    kinds = {one, other}
    if ValueKind.TEXT in kinds and kinds & _NUMBERS:
        return "; put a number into quotes, or convert a column with double(…) or string(…)"
    if ValueKind.TEXT in kinds and kinds & _DATED:
        return "; convert text with timestamp(…) or duration(…)"
    if ValueKind.TEXT in kinds and ValueKind.TRUTH in kinds:
        return "; true and false stand without quotes"
    return ""


def _arithmetic(function: str, one: ValueKind, other: ValueKind, offset: int) -> ValueKind:
    if one in _UNKNOWN or other in _UNKNOWN:
        return other if one in _UNKNOWN and other is ValueKind.LIST else ValueKind.ANY
    fits = one is other and (
        one in _NUMBERS or (function == "_+_" and one in {ValueKind.TEXT, ValueKind.LIST, ValueKind.BYTES})
    )
    if fits and not (function == "_%_" and one is ValueKind.DECIMAL):
        return one
    if function in {"_+_", "_-_"} and {one, other} <= _DATED:
        return ValueKind.ANY
    hint = ""
    if {one, other} == _NUMBERS:
        hint = "; write the number with a point (2.0), or convert with double(…)"
    elif ValueKind.TEXT in {one, other}:
        hint = "; convert with string(…)"
    raise Unsuitable(f"`{_ARITHMETIC[function]}` cannot be used on {one.value} and {other.value}{hint}", offset)
