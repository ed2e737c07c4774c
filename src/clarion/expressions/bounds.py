"""How much memory and time an expression can take at most on a row of a given size. Pure.

The library keeps what an evaluation makes until its end, and has no limit on it: twenty characters in a loop over a list can
ask for gigabytes. So each expression carries a bound, in units of the row's size, for each depth of its loops; whoever
evaluates it multiplies with the row at hand, and does not begin with what might not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clarion.expressions.tree import Call, Constant, ListOf, Loop, MapOf, Name, Node, Select

ITERATIONS_MAX = 10_000
"""What the library's own budget lets a single evaluation go through, all loops together."""

MEMORY_BYTES_MAX = 64 * 1024 * 1024
SCANNED_BYTES_MAX = 64 * 1024 * 1024
_ELEMENT_BYTES = 16
_CHARACTER_BYTES_MAX = 4
"""In UTF-8."""
_SCANS_OF_IN = 4
"""A list is gone through more slowly than text of its size: measured with lists of numbers."""

_TYPES = {"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"}
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


_SMALL = {"type", "@in", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", *_SCANNING}
"""What has a number, a type, or true or false as its result."""


@dataclass(slots=True)
class Bounds:
    """Upper bounds: at each depth of loops, how many times the size of the row is made, and is looked through.

    Loops over lists that the source writes out are no depth: how often they go round is known, and counted.
    `appended` counts the loops that make a list: the library copies the list at each step, and keeps the copies; `copied`
    has the bytes of copies whose size is known.
    `literal_bytes` is what the source adds to the size of a value, `literal_elements` to the length of a list; `lengthening`
    how many times longer a list can become.
    """

    made: dict[int, int] = field(default_factory=dict)
    appended: dict[int, int] = field(default_factory=dict)
    copied: dict[int, int] = field(default_factory=dict)
    scanned: dict[int, int] = field(default_factory=dict)
    literal_bytes: int = 0
    literal_elements: int = 0
    lengthening: int = 1

    def memory_bytes(self, row_bytes: int, elements: int) -> int:
        """At most, on a row of so many bytes of which no list or map has more than so many elements."""
        length = self._length(elements)
        return (
            self._total(self.made, length) * (row_bytes + self.literal_bytes)
            + self._total(self.appended, length) * length * _ELEMENT_BYTES
            + self._total(self.copied, length)
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
                bounds.literal_bytes += len(value) * (_CHARACTER_BYTES_MAX if isinstance(value, str) else 1)
            case ListOf(elements):
                bounds.literal_elements += len(elements)
            case MapOf(entries):
                bounds.literal_elements += len(entries)
    bounds.lengthening += sum(
        isinstance(node.kind, Call) and node.kind.function == "_+_" and not _is_append(node.kind)
        for node in tree.walk()
    )
    # A template's result is copied as a whole, a text in it as often as it stands there.
    _add(bounds.made, 0, _count(tree, _Place(), bounds))
    return bounds


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands: in how many loops over lists of unknown length, and how often all others around it go round.

    `length` is that of the innermost loop's list, if it is written out, `variable` its variable; `sizes` has all loops'
    variables, as multiples of the row's size.
    """

    depth: int = 0
    times: int = 1
    length: int | None = None
    variable: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


def _count(node: Node, place: _Place, bounds: Bounds) -> int:
    """Count what the node takes where it stands; how many times the row's size its result can have."""
    match node.kind:
        case Loop() as loop:
            return _count_loop(loop, place, bounds)
        case Call() as call:
            return _count_call(call, place, bounds)
        case MapOf() | ListOf():
            return sum(_count(child, place, bounds) for child in node.children()) or 1
        case Name(name):
            # What a loop has made so far (`@…`) is counted with the loop.
            return 0 if name in _TYPES or name.startswith("@") else place.sizes.get(name, 1)
        case Constant():
            # It is among the literal bytes, which every multiple of the row's size includes.
            return 0
        case _:
            return max((_count(child, place, bounds) for child in node.children()), default=1)


def _count_loop(loop: Loop, place: _Place, bounds: Bounds) -> int:
    over, of_one = _count_range(loop.range, place, bounds)
    length = _written_length(loop.range)
    rounds = 1 if length is None else length
    inner = _Place(
        depth=place.depth + (length is None),
        times=place.times * rounds,
        length=length,
        variable=loop.variable,
        sizes={**place.sizes, loop.variable: of_one},
    )
    size = rounds * sum(_count(part, inner, bounds) for part in (loop.condition, loop.step))
    size += _count(loop.initial, place, bounds) + _count(loop.result, place, bounds)
    return (size if length is not None else size + over) or 1


def _count_range(node: Node, place: _Place, bounds: Bounds) -> tuple[int, int]:
    """As `_count`: of the list that a loop goes over, and of the largest of its elements."""
    match node.kind:
        case ListOf(elements) if elements:
            sizes = [_count(element, place, bounds) for element in elements]
            return sum(sizes) or 1, max(sizes)
        case Call("_?_:_", _, (condition, *either)):
            _count(condition, place, bounds)
            counted = [_count_range(one, place, bounds) for one in either]
            return max(total for total, _ in counted), max(largest for _, largest in counted)
        case _:
            size = _count(node, place, bounds)
            return size, size


def _count_call(call: Call, place: _Place, bounds: Bounds) -> int:
    sizes = [_count(operand, place, bounds) for operand in call.operands]
    size = sum(sizes) or 1
    if (length := _cut_to(call)) is not None:
        # As if it were a literal of that length.
        bounds.literal_bytes += length * _CHARACTER_BYTES_MAX
        _add(bounds.copied, place.depth, length * _CHARACTER_BYTES_MAX * place.times)
        _add(bounds.scanned, place.depth, size * place.times)
        return 0
    if _is_append(call):
        if place.length is not None:
            _add(bounds.copied, place.depth, place.times * place.length * _ELEMENT_BYTES)
        else:
            _add(bounds.appended, place.depth, place.times)
            # All elements together are no larger than the list; anything else may be put into each round's element.
            if not _is_part_of(call.operands[1], place.variable):
                _add(bounds.made, place.depth, sizes[1] * place.times)
        return sizes[1]
    if call.function == "_[_]":
        return sizes[0]
    if call.function == "_?_:_":
        return max(sizes[1:])
    if call.function == "@in":
        _add(bounds.scanned, place.depth, _SCANS_OF_IN * size * place.times)
    depth = place.depth
    if call.function == "join" and isinstance(call.operands[0].kind, Loop):
        # What a loop over a list of unknown length made is as many pieces, each as large as a round made it.
        depth += _written_length(call.operands[0]) is None
    if call.function in _MAKING:
        _add(bounds.made, depth, size * place.times)
    if call.function in _MAKING or call.function in _SCANNING:
        _add(bounds.scanned, depth, size * place.times)
    return 0 if call.function in _SMALL else size


def _is_part_of(appended: Node, variable: str) -> bool:
    """Whether the one element that a loop appends is the loop's variable, or something in it."""
    node = appended.kind.elements[0] if isinstance(appended.kind, ListOf) and appended.kind.elements else appended
    while True:
        match node.kind:
            case Select(operand) | Call("_[_]", _, (operand, *_)):
                node = operand
            case Name(name):
                return name == variable
            case _:
                return False


def _cut_to(call: Call) -> int | None:
    """How many characters are left at most, where `substring` has an end that the source writes out; else None."""
    if call.function == "substring" and len(call.arguments) == 2:
        end = call.arguments[1].kind
        if isinstance(end, Constant) and isinstance(end.value, int):
            return max(0, end.value)
    return None


def _add(counts: dict[int, int], depth: int, count: int) -> None:
    counts[depth] = counts.get(depth, 0) + count


def _written_length(node: Node) -> int | None:
    """How many elements a list has at most that the source writes out, or that is made from one; None for any other."""
    match node.kind:
        case Loop() as loop:
            return _written_length(loop.range)
        case ListOf(elements):
            return len(elements)
        case Call("_?_:_", _, (_, one, other)):
            lengths = (_written_length(one), _written_length(other))
            return None if lengths[0] is None or lengths[1] is None else max(lengths[0], lengths[1])
        case _:
            return None


def _is_append(call: Call) -> bool:
    """Whether it is the step of `map` or `filter`, which appends to the list that it makes instead of copying it."""
    first = call.operands[0].kind
    return call.function == "_+_" and isinstance(first, Name) and first.name.startswith("@")
