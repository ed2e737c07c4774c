"""How large a document may be. One validation rule, computed once per fragment, so that reuse cannot make it slow."""

from __future__ import annotations

from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
)

from clarion.core.errors import Code

TOKENS_MAX = 2_000
DEPTH_MAX = 10
INTROSPECTION_DEPTH_MAX = 15
ALIASES_MAX = 30


@dataclass(frozen=True, slots=True)
class _Size:
    """Levels of fields below a selection, the same below `__schema` and `__type`, and aliases counted at each use."""

    depth: int = 0
    introspection_depth: int = 0
    aliases: int = 0


def too_complex(message: str) -> GraphQLError:
    """The error of a document that is refused for its size."""
    return GraphQLError(message, extensions={"code": Code.QUERY_TOO_COMPLEX.value})


class DocumentLimits(ValidationRule):
    """Refuses operations that are too deep or have too many aliases."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._fragments: dict[str, _Size | None] = {}

    def enter_document(self, node: DocumentNode, *_rest: object) -> None:
        fragments = {one.name.value: one for one in node.definitions if isinstance(one, FragmentDefinitionNode)}
        for operation in node.definitions:
            if not isinstance(operation, OperationDefinitionNode):
                continue
            size = self._size(operation.selection_set, fragments)
            if size.depth > DEPTH_MAX:
                self.report_error(too_complex(f"fields are nested {size.depth} deep, {DEPTH_MAX} are allowed"))
            if size.introspection_depth > INTROSPECTION_DEPTH_MAX:
                self.report_error(too_complex(f"introspection is nested deeper than {INTROSPECTION_DEPTH_MAX}"))
            if size.aliases > ALIASES_MAX:
                self.report_error(too_complex(f"more than {ALIASES_MAX} aliases"))

    def _size(self, selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> _Size:
        sizes = [_Size()]
        for selection in selections.selections:
            match selection:
                case FieldNode():
                    sizes.append(self._field_size(selection, fragments))
                case InlineFragmentNode():
                    sizes.append(self._size(selection.selection_set, fragments))
                case FragmentSpreadNode():
                    sizes.append(self._fragment_size(selection.name.value, fragments))
                case _:
                    continue
        return _Size(
            max(size.depth for size in sizes),
            max(size.introspection_depth for size in sizes),
            sum(size.aliases for size in sizes),
        )

    def _field_size(self, field: FieldNode, fragments: dict[str, FragmentDefinitionNode]) -> _Size:
        below = self._size(field.selection_set, fragments) if field.selection_set is not None else _Size()
        aliases = below.aliases + (field.alias is not None)
        if field.name.value in {"__schema", "__type"}:
            return _Size(0, 1 + below.depth, aliases)
        return _Size(1 + below.depth, below.introspection_depth, aliases)

    def _fragment_size(self, name: str, fragments: dict[str, FragmentDefinitionNode]) -> _Size:
        if name not in self._fragments:
            # An unknown fragment, or one that is being measured (a cycle): other rules refuse both.
            self._fragments[name] = None
            if name in fragments:
                self._fragments[name] = self._size(fragments[name].selection_set, fragments)
        return self._fragments[name] or _Size()
