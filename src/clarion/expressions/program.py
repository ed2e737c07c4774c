"""An expression ready to be evaluated: compiled by Google's CEL, checked against a resource's columns, bounded. Pure.

Source of the language: github.com/cel-expr/cel-spec, with the strings extension's functions that make nothing larger than
what they are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from clarion.expressions.bounds import MEMORY_BYTES_MAX, SCANNED_BYTES_MAX, Bounds, bounds_of
from clarion.expressions.check import Unsuitable, check
from clarion.expressions.columns import Shape, ValueKind
from clarion.expressions.guards import Guard, guards_of
from clarion.expressions.tree import Call, Constant, Loop, Node, read_tree

CONDITION_LENGTH_MAX = 4_000
TEMPLATE_LENGTH_MAX = 16_000
LOOPS_DEPTH_MAX = 2
VARIABLES = ("object", "oldObject", "changed", "action", "actor", "resource", "objectId", "correlationId")

_REFUSED_FUNCTIONS = {"format", "replace", "split", "quote", "strings.quote", "reverse"}
"""Of the extension: what can make much out of little, or a list longer than any in the row."""
_LIBRARY_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_NO_OVERLOAD = re.compile(r"found no matching overload for '([^']*)' applied to '([^']*)'")

_TEXT_MAP = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_ENVIRONMENT = cel.NewEnv(
    variables={
        "object": _TEXT_MAP,
        "oldObject": _TEXT_MAP,
        "changed": cel.Type.List(cel.Type.STRING),
        "action": cel.Type.STRING,
        "actor": _TEXT_MAP,
        "resource": cel.Type.STRING,
        "objectId": cel.Type.STRING,
        "correlationId": cel.Type.DYN,
    },
    extensions=[ext_strings.ExtStrings()],
)


class ExpressionRefused(ValueError):
    """An expression that cannot be used; `line` and `column` count from 1, and are None where the whole is meant."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}, column {self.column}: "
        return where + str(self.args[0])


class EvaluationFailed(ValueError):
    """An expression had no result on a row; the message says why and holds no value of the row."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression; on rows of at most `safe_row_bytes` its bounds hold whatever they contain."""

    source: str
    bounds: Bounds
    safe_row_bytes: int
    guards: tuple[Guard, ...]
    has_loops: bool
    compiled: Any

    def decide(self, activation: Any, row_bytes: int, elements: int) -> bool:
        """Whether a condition holds. Raises EvaluationFailed. Arguments as of `evaluate`."""
        if row_bytes > self.safe_row_bytes:
            self._check_size(row_bytes, elements)
        try:
            value = self.compiled.eval(activation)
        except _BROKEN_OFF as error:
            raise _broken_off(error) from error
        # An error comes back as a value that is no bool, so that the usual answers need not ask for its type.
        answer = value.value()
        if answer is True or answer is False:
            return answer
        raise EvaluationFailed(
            _reason(str(answer)) if value.type() == cel.Type.ERROR else "the result is neither true nor false"
        )

    def evaluate(self, activation: Any, row_bytes: int, elements: int) -> Any:
        """The result as plain values. Raises EvaluationFailed.

        `row_bytes` is the size of all that the activation holds, `elements` a bound on the length of each list in it.
        """
        if row_bytes > self.safe_row_bytes:
            self._check_size(row_bytes, elements)
        try:
            value = self.compiled.eval(activation)
            if value.type() == cel.Type.ERROR:
                raise EvaluationFailed(_reason(str(value.value())))
            return value.plain_value()
        except _BROKEN_OFF as error:
            raise _broken_off(error) from error

    def _check_size(self, row_bytes: int, elements: int) -> None:
        if self.bounds.memory_bytes(row_bytes, elements) > MEMORY_BYTES_MAX:
            raise EvaluationFailed(f"on a row of {row_bytes} bytes it could take too much memory, so it was not begun")
        if self.bounds.scanned_bytes(row_bytes, elements) > SCANNED_BYTES_MAX:
            raise EvaluationFailed(f"on a row of {row_bytes} bytes it could take too long, so it was not begun")


_BROKEN_OFF = (RuntimeError, TypeError, OverflowError)


def _broken_off(error: Exception) -> EvaluationFailed:
    # Not its text: it may quote what the row holds.
    reason = "more than 10,000 steps" if "budget" in str(error) else type(error).__name__
    return EvaluationFailed(f"the evaluation was broken off: {reason}")


def activation(values: Mapping[str, Any]) -> Any:
    """The values of all VARIABLES, shared by all expressions that are evaluated on one change. Raises EvaluationFailed."""
    return _ENVIRONMENT.Activation(dict(values))


def compile_condition(source: str, shape: Shape) -> Program:
    """A condition, which is true or false. Raises ExpressionRefused."""
    return _compile(
        source, shape, CONDITION_LENGTH_MAX, {ValueKind.TRUTH, ValueKind.ANY}, "a condition is true or false"
    )


def compile_template(source: str, shape: Shape) -> Program:
    """A template, which is a map. Raises ExpressionRefused."""
    return _compile(source, shape, TEMPLATE_LENGTH_MAX, {ValueKind.MAP, ValueKind.ANY}, "a template is a map")


def load_program(source: str) -> Program:
    """An expression that was checked when it was registered. Raises ExpressionRefused if it cannot be compiled any more."""
    return _loaded(source, None)[0]


def load_list(sources: Sequence[str]) -> Program:
    """The list of what these expressions come to, each of which can be compiled. Raises ExpressionRefused as `load_program`."""
    # The line's end, because an expression may end with a comment.
    return load_program("[" + ",".join(f"({source}\n)" for source in sources) + "]")


def _compile(source: str, shape: Shape, length_max: int, wanted: set[ValueKind], rule: str) -> Program:
    if not source.strip():
        raise ExpressionRefused("must not be empty")
    if len(source) > length_max:
        raise ExpressionRefused(f"must have at most {length_max} characters, this has {len(source)}")
    if "\0" in source:
        raise ExpressionRefused("must not have a NUL character")
    program, tree = _loaded(source, shape)
    try:
        _check_functions(tree)
        _check_loops(tree, 0)
        kind = check(tree, shape)
    except Unsuitable as unsuitable:
        raise ExpressionRefused(unsuitable.message, *_place(source, unsuitable.offset)) from None
    if kind not in wanted:
        raise ExpressionRefused(f"{rule}, this is {kind.value}")
    return program


def _loaded(source: str, shape: Shape | None) -> tuple[Program, Node]:
    try:
        source.encode()
        compiled = _ENVIRONMENT.compile(source)
    except UnicodeEncodeError:
        raise ExpressionRefused("is not Unicode text") from None
    except RuntimeError as error:
        raise _translated(str(error), shape) from None
    tree = read_tree(compiled.serialize())
    bounds = bounds_of(tree)
    has_loops = any(isinstance(node.kind, Loop) for node in tree.walk())
    return Program(source, bounds, bounds.safe_row_bytes(), guards_of(tree), has_loops, compiled), tree


def _check_functions(tree: Node) -> None:
    for node in tree.walk():
        match node.kind:
            case Call(function) if function in _REFUSED_FUNCTIONS:
                raise Unsuitable(f"{function}() is not offered", node.offset)
            case Call("matches", _, arguments) if isinstance(pattern := arguments[-1].kind, Constant):
                # The library looks at a pattern when it meets the first row.
                probe = _ENVIRONMENT.compile("action.matches(resource)")
                tried = probe.eval(data={"action": "", "resource": str(pattern.value)})
                if tried.type() == cel.Type.ERROR:
                    reason = str(tried.value()).rpartition("invalid regular expression: ")[2]
                    raise Unsuitable(f"the pattern is no regular expression (RE2): {reason}", arguments[-1].offset)


def _check_loops(node: Node, depth: int) -> None:
    if isinstance(node.kind, Loop):
        depth += 1
        if depth > LOOPS_DEPTH_MAX:
            raise Unsuitable(f"loops stand in one another at most {LOOPS_DEPTH_MAX} deep", node.offset)
    for child in node.children():
        _check_loops(child, depth)


def _place(source: str, offset: int) -> tuple[int, int] | tuple[None, None]:
    """Line and column, from 1, of an offset in characters."""
    if offset < 0:
        return None, None
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _translated(text: str, shape: Shape | None) -> ExpressionRefused:
    """The first of the library's errors, in words that help."""
    found = _LIBRARY_ERROR.search(text)
    if found is None:
        return ExpressionRefused("cannot be compiled")
    line, column, message = int(found[1]), int(found[2]), found[3]
    where = (line, column) if line > 0 else (None, None)
    if undeclared := _UNDECLARED.search(message):
        return ExpressionRefused(_unknown_name(undeclared[1], shape), *where)
    if overload := _NO_OVERLOAD.search(message):
        operator = overload[1].strip("_@").replace("_", " ")
        hint = (
            "; a number without a point is whole: write 2.0 for 2"
            if overload[2] in {"(int, double)", "(double, int)"}
            else ""
        )
        return ExpressionRefused(f"`{operator}` cannot be used on {overload[2].strip('()')}{hint}", *where)
    if "token recognition error at: '= '" in message:
        return ExpressionRefused("a single = compares nothing: write ==", *where)
    if "recursion depth" in message:
        return ExpressionRefused(
            "is nested too deeply: at most 32 operators in one another; put long lists into `in [...]`"
        )
    return ExpressionRefused(re.sub(r" expecting \{.*", "", message).replace("<EOF>", "the end"), *where)


def _unknown_name(name: str, shape: Shape | None) -> str:
    name = name.partition(".")[0]
    if shape is not None and shape.columns and name in shape.columns:
        return f"there is no {name}: a column is read as object.{name} or oldObject.{name}"
    known = (*VARIABLES, *_known_functions())
    close = get_close_matches(name, known, n=1)
    return f"there is no {name}" + (f": did you mean {close[0]}?" if close else f": there are {', '.join(VARIABLES)}")


def _known_functions() -> Iterator[str]:
    yield from ("has", "size", "string", "int", "double", "bool", "timestamp", "duration", "startsWith", "endsWith")
    yield from (
        "contains",
        "matches",
        "lowerAscii",
        "upperAscii",
        "trim",
        "substring",
        "join",
        "exists",
        "all",
        "filter",
    )


_REASONS = (
    (re.compile(r'Key not found in map : "([A-Za-z_][A-Za-z0-9_]{0,62})"'), "there is no key {0}"),
    (re.compile(r"No matching overloads found : (\S+)\(([a-z0-9_, ]{1,100})\)"), "`{0}` cannot be used on ({1})"),
    (re.compile(r"divide by zero"), "division by zero"),
    (re.compile(r"modulus by zero"), "division by zero"),
    (re.compile(r"(?i)overflow"), "a number is too large"),
    (re.compile(r"conversion failed|[Ff]ailed to"), "a value cannot be converted"),
    (re.compile(r"greater than <string>.size"), "substring() reaches beyond the end of the text"),
    (re.compile(r"invalid regular expression"), "a pattern is no regular expression"),
    (re.compile(r"[Ii]ndex (error|out of bounds)"), "an index is beyond the end of the list"),
)


def _reason(text: str) -> str:
    """The library's error without values of the row: only names and kinds are passed on."""
    for pattern, reason in _REASONS:
        if found := pattern.search(text):
            return reason.format(*(group.strip("_") for group in found.groups()))
    return "it has no result on this row"
