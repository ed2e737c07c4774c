"""How much memory and time an expression can take at most on a row of a given size. Pure.

The library keeps what an evaluation makes until its end, and has no limit on it: twenty characters in a loop over a list can
ask for gigabytes. So each expression carries a bound, in units of the row's size, for each depth of its loops; whoever
evaluates it multiplies with the row at hand, and does not begin with what might not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clarion.expressions.tree import Call, Constant, ListOf, Loop, MapOf, Name, Node

ITERATIONS_MAX = 10_000
"""What the library's own budget lets a single evaluation go through, all loops together."""

MEMORY_BYTES_MAX = 64 * 1024 * 1024
SCANNED_BYTES_MAX = 64 * 1024 * 1024
_ELEMENT_BYTES = 16
_SCANS_OF_IN = 4
"""A list is gone through more slowly than text of its size: measured with lists of numbers."""

_MAKING = {"_+_", "string", "bytes", "lowerAscii", "upperAscii", "trim", "substring", "charAt", "join"}
"""What makes new text or lists out of its operands."""
_SCANNING = {
    "matches",
    "contains",
    "startsWith",
    "endsWith",
    "size",
    "indexOf",
    "lastIndexOf",
    "timestamp",
    "duration",
    "int",
    "double",
}


@dataclass(slots=True)
class Bounds:
    """Upper bounds: at each depth of loops, how many times the size of the row is made, and is looked through.

    `appended` counts the loops that make a list: the library copies the list at each step, and keeps the copies.
    `literal_bytes` is what the source adds to the size of a value, `literal_elements` to the length of a list; `lengthening`
    how many times longer a list can become.
    """

    made: dict[int, int] = field(default_factory=dict)
    appended: dict[int, int] = field(default_factory=dict)
    scanned: dict[int, int] = field(default_factory=dict)
    literal_bytes: int = 0
    literal_elements: int = 0
    lengthening: int = 1

    def memory_bytes(self, row_bytes: int, elements: int) -> int:
        """At most, on a row of so many bytes of which no list or map has more than so many elements."""
        length = self._length(elements)
        return self._total(self.made, length) * (row_bytes + self.literal_bytes) + (
            self._total(self.appended, length) * length * _ELEMENT_BYTES
        )

    def scanned_bytes(self, row_bytes: int, elements: int) -> int:
        """As `memory_bytes`: bytes looked through."""
        return self._total(self.scanned, self._length(elements)) * (row_bytes + self.literal_bytes)

    def safe_row_bytes(self) -> int:
        """A size of rows up to which neither limit can be reached; 0 if there is none."""
        size = 1024 * 1024 * 8
        while size and (
            self.memory_bytes(size, size) > MEMORY_BYTES_MAX or self.scanned_bytes(size, size) > SCANNED_BYTES_MAX
        ):
            size //= 2
        return size

    def _length(self, elements: int) -> int:
        return (elements + self.literal_elements) * self.lengthening

    @staticmethod
    def _total(units: Mapping[int, int], length: int) -> int:
        return sum(count * min(length**depth, ITERATIONS_MAX) for depth, count in units.items())


def bounds_of(tree: Node) -> Bounds:
    """The bounds of an expression. Time and memory: in proportion to its length."""
    bounds = Bounds()
    for node in tree.walk():
        match node.kind:
            case Constant(str() | bytes() as value):
                bounds.literal_bytes += len(value) * (4 if isinstance(value, str) else 1)
            case ListOf(elements):
                bounds.literal_elements += len(elements)
            case MapOf(entries):
                bounds.literal_elements += len(entries)
    bounds.lengthening += sum(
        isinstance(node.kind, Call) and node.kind.function == "_+_" and not _is_append(node.kind)
        for node in tree.walk()
    )
    _count(tree, 0, bounds)
    return bounds


def _count(node: Node, depth: int, bounds: Bounds) -> int:
    """Count what the node takes at this depth of loops; how many times the row's size its result can have."""
    match node.kind:
        case Loop() as loop:
            size = _count(loop.range, depth, bounds) + _count(loop.initial, depth, bounds)
            for part in (loop.condition, loop.step):
                size += _count(part, depth + 1, bounds)
            return size + _count(loop.result, depth, bounds)
        case Call() as call:
            size = sum(_count(operand, depth, bounds) for operand in call.operands) or 1
            if _is_append(call):
                bounds.appended[depth] = bounds.appended.get(depth, 0) + 1
                return size
            if call.function == "@in":
                bounds.scanned[depth] = bounds.scanned.get(depth, 0) + _SCANS_OF_IN * size
            if call.function in _MAKING:
                bounds.made[depth] = bounds.made.get(depth, 0) + size
            if call.function in _MAKING or call.function in _SCANNING:
                bounds.scanned[depth] = bounds.scanned.get(depth, 0) + size
            return size
        case MapOf() | ListOf():
            return sum(_count(child, depth, bounds) for child in node.children()) or 1
        case _:
            for child in node.children():
                _count(child, depth, bounds)
            return 1


def _is_append(call: Call) -> bool:
    """Whether it is the step of `map` or `filter`, which appends to the list that it makes instead of copying it."""
    first = call.operands[0].kind
    return call.function == "_+_" and isinstance(first, Name) and first.name.startswith("@")
