"""Conditions that a row rules out at a glance, without asking the library. Pure.

Most conditions are a conjunction in which a column is compared with a literal: `object.status == "closed" && …`. In CEL a
conjunction with a false term is false, whatever the others are, errors included. So where a row decides one of these terms
to be false, the answer is known: a look into a dictionary instead of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clarion.expressions.tree import Call, Constant, Name, Node, Select

_ABSENT = object()
_COMPARED = (str, bool, int)


class Guard(NamedTuple):
    """A term `object.column == literal`, or `!=` where `is_negated`; of the old row where `of_old`."""

    of_old: bool
    column: str
    literal: str | int
    is_negated: bool


def is_ruled_out(guards: Sequence[Guard], new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether one of the terms is false on these rows. Values of other kinds than the literal's are left to the library."""
    for of_old, column, literal, is_negated in guards:
        value = (old if of_old else new).get(column, _ABSENT)
        if (value == literal) is is_negated and (value.__class__ is literal.__class__ or value is None):
            return True
    return False


def guards_of(tree: Node) -> tuple[Guard, ...]:
    """The terms of the outermost conjunction that compare a column with a literal."""
    match tree.kind:
        case Call("_&&_", None, terms):
            return tuple(guard for term in terms for guard in guards_of(term))
        case Call("_==_" | "_!=_" as function, None, (one, other)):
            guard = _guard(one, other, function) or _guard(other, one, function)
            return () if guard is None else (guard,)
        case _:
            return ()


def _guard(field: Node, literal: Node, function: str) -> Guard | None:
    match field.kind, literal.kind:
        case Select(Node(Name("object" | "oldObject" as row)), column, False), Constant(value) if (
            type(value) in _COMPARED
        ):
            assert isinstance(value, str | int)
            return Guard(row == "oldObject", column, value, function == "_!=_")
    return None
