"""What a document may bring: nodes and values, reckoned from the schema before anything is run.

Which fields are lists, and how long, is read from the schema: a list that is added to it is charged without anybody's
doing. The document's part is reckoned once, with fragments reckoned once each; what is left for each request is to put
its variables into the sizes of pages. Whatever `@skip` and `@include` say, and whichever of two fragments applies, all
is charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
)

from clarion.database.page import SIZE_MAX

NODES_MAX = 10_000
"""Objects that the lists of one request may hold together."""
VALUES_MAX = 100_000
"""Values of fields that one request may ask for. Each takes about 10 µs, in which nobody else is answered."""

ROOT_LIST = 100
NESTED_LIST = 20
"""What a list without `first` is charged as; and the values of a list of scalars."""
TYPES_LIST = 100
INTROSPECTED_LIST = 3
"""The schema's types, and what each of them lists."""

_COUNT_MAX = 1_000_000_000
"""Products stop here."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Objects in lists, and values of fields, both at most."""

    nodes: int = 0
    values: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(min(self.nodes + other.nodes, _COUNT_MAX), min(self.values + other.values, _COUNT_MAX))

    def each(self, size: int) -> Cost:
        """Of so many nodes, each of which costs this."""
        return Cost(min(size * (1 + self.nodes), _COUNT_MAX), min(size * self.values, _COUNT_MAX))


NOTHING = Cost()


def excess(cost: Cost) -> str | None:
    """Why what costs so much is not run."""
    for count, what, most in ((cost.nodes, "nodes", NODES_MAX), (cost.values, "values of fields", VALUES_MAX)):
        if count > most:
            return f"this asks for up to {count:,} {what}, {most:,} are allowed: ask for shorter pages with `first`"
    return None


@dataclass(frozen=True, slots=True)
class Listed:
    """How many objects a field stands for, by default, and which of `first` and `last` say otherwise."""

    size: int
    arguments: tuple[str, ...] = ()


def listed(parent: GraphQLNamedType, name: str, field: GraphQLField, roots: frozenset[str]) -> Listed | None:
    """What a field is charged as, or None for a single object or value. `roots` are the names of the root types."""
    sizes = tuple(argument for argument in ("first", "last") if argument in field.args)
    if sizes:
        default = field.args[sizes[0]].default_value
        return Listed(default if isinstance(default, int) else SIZE_MAX, sizes)
    if not is_list_type(get_nullable_type(field.type)):
        return None
    if parent.name.startswith("__"):
        return Listed(TYPES_LIST if (parent.name, name) == ("__Schema", "types") else INTROSPECTED_LIST)
    return Listed(ROOT_LIST if parent.name in roots else NESTED_LIST)


@dataclass(frozen=True, slots=True)
class _Page:
    """A list whose length the request decides; `sizes` are the values of its `first` and `last`."""

    default: int
    sizes: tuple[tuple[ValueNode, int | None], ...]
    """Each with the default of its variable."""
    below: _Sum

    def cost(self, variables: Mapping[str, Any]) -> Cost:
        given = [size for one in self.sizes if (size := self._size(*one, variables)) is not None]
        return self.below.cost(variables).each(max(given, default=self.default))

    def _size(self, value: ValueNode, default: int | None, variables: Mapping[str, Any]) -> int | None:
        """What was asked for, or None for null. What is no size is refused later, and charged as the largest here."""
        if isinstance(value, VariableNode):
            return _bounded(variables.get(value.name.value, default))
        return _bounded(int(value.value)) if isinstance(value, IntValueNode) and len(value.value) < 9 else None


def _bounded(size: object) -> int | None:
    if size is None:
        return None
    if isinstance(size, int | float) and 1 <= size <= SIZE_MAX:
        return int(size)
    return SIZE_MAX


@dataclass(frozen=True, slots=True)
class _Sum:
    """What is certain, and pages."""

    fixed: Cost = NOTHING
    pages: tuple[_Page, ...] = ()

    def cost(self, variables: Mapping[str, Any]) -> Cost:
        total = self.fixed
        for page in self.pages:
            total += page.cost(variables)
        return total


@dataclass(frozen=True, slots=True)
class OperationCost:
    """The cost of one operation of a document, for any variables."""

    _sum: _Sum

    @property
    def excess(self) -> str | None:
        """Why it is not run, whatever the variables are; None if it may be run with some."""
        return None if self._sum.pages else excess(self._sum.fixed)

    def of(self, variables: Mapping[str, Any]) -> Cost:
        """With these variables, of which nothing is checked."""
        return self._sum.cost(variables)


class Costs:
    """What the fields of one schema cost."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        roots = (schema.query_type, schema.mutation_type)
        self._roots = frozenset(root.name for root in roots if root is not None)

    def of(self, document: DocumentNode, operation: OperationDefinitionNode) -> OperationCost:
        """The cost of an operation of a document within the limits. What the schema does not have costs next to nothing."""
        root = self._schema.get_root_type(operation.operation)
        return OperationCost(_Reckoning(self, document, operation).sum(root, operation.selection_set, is_page=False))

    def field(self, parent: GraphQLNamedType | None, name: str) -> GraphQLField | None:
        if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
            return self._schema.get_field(parent, name)
        return None

    def type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)

    def listed(self, parent: GraphQLNamedType, name: str, field: GraphQLField) -> Listed | None:
        return listed(parent, name, field, self._roots)


class _Reckoning:
    """One document, while it is reckoned. `is_page`: the selection is that of a page, whose own list is the page."""

    def __init__(self, costs: Costs, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self._costs = costs
        self._fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._defaults = {
            one.variable.name.value: int(one.default_value.value)
            for one in operation.variable_definitions or ()
            if isinstance(one.default_value, IntValueNode) and len(one.default_value.value) < 9
        }
        self._sums: dict[tuple[str, bool], _Sum] = {}

    def sum(self, parent: GraphQLNamedType | None, selections: SelectionSetNode, *, is_page: bool) -> _Sum:
        fixed, pages = NOTHING, list[_Page]()
        for selection in selections.selections:
            part = self._selection(parent, selection, is_page=is_page)
            fixed += part.fixed
            pages += part.pages
        return _Sum(fixed, tuple(pages))

    def _selection(self, parent: GraphQLNamedType | None, selection: SelectionNode, *, is_page: bool) -> _Sum:
        match selection:
            case FieldNode():
                return self._field(parent, selection, is_page=is_page)
            case InlineFragmentNode(type_condition=condition):
                narrowed = parent if condition is None else self._costs.type(condition.name.value)
                return self.sum(narrowed, selection.selection_set, is_page=is_page)
            case FragmentSpreadNode():
                return self._fragment(selection.name.value, is_page=is_page)
            case _:
                return _Sum()

    def _fragment(self, name: str, *, is_page: bool) -> _Sum:
        known = self._sums.get((name, is_page))
        if known is None:
            # A fragment that there is not, or one that is being reckoned (a cycle): the library's rules refuse both.
            self._sums[name, is_page] = _Sum()
            fragment = self._fragments.get(name)
            if fragment is None:
                return _Sum()
            on = self._costs.type(fragment.type_condition.name.value)
            known = self._sums[name, is_page] = self.sum(on, fragment.selection_set, is_page=is_page)
        return known

    def _field(self, parent: GraphQLNamedType | None, node: FieldNode, *, is_page: bool) -> _Sum:
        name = node.name.value
        field = self._costs.field(parent, name)
        if parent is None or field is None:
            return _Sum(Cost(0, 1))
        type_ = get_named_type(field.type)
        kind = self._costs.listed(parent, name, field)
        if is_leaf_type(type_):
            return _Sum(Cost(0, 1 if kind is None else kind.size))
        pages_below = kind is not None and bool(kind.arguments) and not is_list_type(get_nullable_type(field.type))
        reckon = partial(self.sum, type_, is_page=pages_below)
        below = _Sum() if node.selection_set is None else reckon(node.selection_set)
        below = _Sum(below.fixed + Cost(0, 1), below.pages)
        if kind is None or (is_page and not kind.arguments):
            return below
        return self._listed(node, kind, below)

    def _listed(self, node: FieldNode, kind: Listed, below: _Sum) -> _Sum:
        sizes = tuple(
            (one.value, self._defaults.get(one.value.name.value) if isinstance(one.value, VariableNode) else None)
            for one in node.arguments or ()
            if one.name.value in kind.arguments
        )
        page = _Page(kind.size, sizes, below)
        if below.pages or any(isinstance(value, VariableNode) for value, _ in sizes):
            return _Sum(NOTHING, (page,))
        return _Sum(page.cost({}))
