"""How large a document may be: measured once for each fragment, so that reuse cannot make it slow.

This is looked at before anything else of a document, so what it says of documents that fit no schema does not matter:
the library's rules refuse those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
)

from clarion.core.errors import Code

TOKENS_MAX = 2_000
DEPTH_MAX = 10
INTROSPECTION_DEPTH_MAX = 15
ALIASES_MAX = 30
ROOT_FIELDS_MAX = 20
DIRECTIVES_MAX = 4
FIELDS_MAX = 1_000
OPERATIONS_MAX = 50
FRAGMENTS_MAX = 100

_COUNT_MAX = 1_000_000
"""Counts stop here: fragments of fragments would make them as long as the document."""

# Nothing is tried twice: a text that does not end takes no longer than one that does.
_TOKEN = re.compile(
    r'"""(?:\\"""|[^"]|"{1,2}(?!"))*+(?:""")?|"(?:\\.|[^"\\\n\r])*+"?|\#[^\n\r]*+|[A-Za-z_0-9.+-]++|[^\s,\ufeff]',
    re.ASCII,
)


def tokens_count(query: str) -> int:
    """About how many tokens a text has, never more than the parser finds; counting stops beyond the limit."""
    count = 0
    for _ in _TOKEN.finditer(query):
        count += 1
        if count > TOKENS_MAX:
            break
    return count


class _Size(NamedTuple):
    """Of a selection: levels of fields, the same below `__schema` and `__type`, and fields and aliases at each use.

    `width` are the fields of its own level.
    """

    depth: int = 0
    introspection_depth: int = 0
    aliases: int = 0
    fields: int = 0
    width: int = 0


_EMPTY = _Size()
# Most fields are one of these two.
_LEAF = _Size(depth=1, fields=1, width=1)
_ALIASED_LEAF = _Size(depth=1, aliases=1, fields=1, width=1)


def too_complex(message: str) -> GraphQLError:
    """The error of a document that is refused for its size."""
    return GraphQLError(message, extensions={"code": Code.QUERY_TOO_COMPLEX.value})


def measured(document: DocumentNode) -> tuple[list[int], GraphQLError | None]:
    """How many root fields each operation has, and why the document is too large, or None."""
    measuring = _Measuring(document)
    try:
        excess = next(measuring.excesses(), None)
    except RecursionError:
        excess = too_complex("fragments are nested too deeply: write out what the innermost have")
    return measuring.root_fields, excess


class _Measuring:
    def __init__(self, document: DocumentNode) -> None:
        definitions = document.definitions
        self._fragments = {one.name.value: one for one in definitions if isinstance(one, FragmentDefinitionNode)}
        self._operations = [one for one in definitions if isinstance(one, OperationDefinitionNode)]
        self._sizes: dict[str, _Size] = {}
        self._directives = 0
        self.root_fields: list[int] = []

    def excesses(self) -> Iterator[GraphQLError]:
        if len(self._operations) > OPERATIONS_MAX:
            yield too_complex(
                f"the document has {len(self._operations)} operations, {OPERATIONS_MAX} are allowed: send fewer"
            )
        if len(self._fragments) > FRAGMENTS_MAX:
            yield too_complex(
                f"the document has {len(self._fragments)} fragments, {FRAGMENTS_MAX} are allowed: send those that are used"
            )
        for operation in self._operations:
            self._count_directives(operation)
            for variable in operation.variable_definitions or ():
                self._count_directives(variable)
            size = self._size(operation.selection_set)
            self.root_fields.append(size.width)
            yield from self._of_operation(size)
        # Those that no operation uses, too: the library's rules look at them all.
        for name in self._fragments:
            self._fragment_size(name)
        if self._directives > DIRECTIVES_MAX:
            yield too_complex(
                f"{self._directives} directives in one place, {DIRECTIVES_MAX} are allowed: leave some out"
            )

    def _of_operation(self, size: _Size) -> Iterator[GraphQLError]:
        if size.depth > DEPTH_MAX:
            yield too_complex(
                f"fields are nested {size.depth} deep, {DEPTH_MAX} are allowed: ask for what lies deeper by its id"
            )
        if size.introspection_depth > INTROSPECTION_DEPTH_MAX:
            yield too_complex(
                f"introspection is nested {size.introspection_depth} deep, "
                f"{INTROSPECTION_DEPTH_MAX} are allowed: ask for what lies deeper by its name"
            )
        for count, what, most in (
            (size.aliases, "aliases", ALIASES_MAX),
            (size.width, "root fields", ROOT_FIELDS_MAX),
            (size.fields, "fields", FIELDS_MAX),
        ):
            if count > most:
                shown = "more than a million" if count == _COUNT_MAX else str(count)
                yield too_complex(
                    f"the operation has {shown} {what} where its fragments are used, {most} are allowed: split it"
                )

    def _size(self, selections: SelectionSetNode) -> _Size:
        depth = introspection_depth = aliases = fields = width = 0
        for selection in selections.selections:
            size = self._selection_size(selection)
            depth = max(depth, size.depth)
            introspection_depth = max(introspection_depth, size.introspection_depth)
            aliases += size.aliases
            fields += size.fields
            width += size.width
        return _Size(
            depth, introspection_depth, min(aliases, _COUNT_MAX), min(fields, _COUNT_MAX), min(width, _COUNT_MAX)
        )

    def _selection_size(self, selection: SelectionNode) -> _Size:
        self._count_directives(selection)
        match selection:
            case FieldNode():
                return self._field_size(selection)
            case InlineFragmentNode():
                return self._size(selection.selection_set)
            case FragmentSpreadNode():
                return self._fragment_size(selection.name.value)
            case _:
                return _EMPTY

    def _field_size(self, field: FieldNode) -> _Size:
        is_introspection = field.name.value in {"__schema", "__type"}
        if field.selection_set is None and not is_introspection:
            return _LEAF if field.alias is None else _ALIASED_LEAF
        below = _EMPTY if field.selection_set is None else self._size(field.selection_set)
        return _Size(
            0 if is_introspection else 1 + below.depth,
            1 + below.depth if is_introspection else below.introspection_depth,
            below.aliases + (field.alias is not None),
            below.fields + 1,
            1,
        )

    def _fragment_size(self, name: str) -> _Size:
        if name not in self._sizes:
            # An unknown fragment, or one that is being measured (a cycle): other rules refuse both.
            self._sizes[name] = _EMPTY
            fragment = self._fragments.get(name)
            if fragment is not None:
                self._count_directives(fragment)
                self._sizes[name] = self._size(fragment.selection_set)
        return self._sizes[name]

    def _count_directives(self, node: Node) -> None:
        self._directives = max(self._directives, len(getattr(node, "directives", None) or ()))
