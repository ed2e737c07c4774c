"""Documents made ready to run: parsed, found within the limits, validated, and kept for whoever sends them again.

The limits are looked at before the library's own rules, some of which take more than linear time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    get_variable_values,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from graphql.validation.validate import ValidationAbortedError
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from clarion.api.cost import Costs, OperationCost
from clarion.api.limits import TOKENS_MAX, measured, tokens_count, too_complex

TOKENS_KEPT_MAX = 100_000
"""Tokens of all documents that are kept. One takes about 550 bytes with what is known of it."""

ERRORS_MAX = 5
"""Errors of one document, or its variables, that are told; each takes time of its own."""

GUESSED_TOKENS_MAX = 300
"""Size of a document up to which errors say what may have been meant."""

FIELD_COMPARISONS_MAX = 20_000
"""Of fields with the same name, which the library compares pair by pair: its own limit stands for most of a second."""

overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = FIELD_COMPARISONS_MAX

RULES: tuple[type[ASTValidationRule], ...] = (
    *specified_rules,
    MaybeNullValidationRule,
    OneOfInputValidationRule,
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a document. `mutations_count`: how many root fields it has, if it is a mutation."""

    node: OperationDefinitionNode
    mutations_count: int
    cost: OperationCost

    @property
    def name(self) -> str | None:
        return None if self.node.name is None else self.node.name.value


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or why it cannot be run. `tokens` is its size, or a bound on it if it cannot be parsed."""

    query: str
    node: DocumentNode | None
    tokens: int
    errors: tuple[GraphQLError, ...] = ()
    operations: tuple[Operation, ...] = ()

    def operation(self, name: str | None) -> Operation:
        """The operation of this name, or the only one. Raises GraphQLError if there is none, or it cannot be told which."""
        operations = [one for one in self.operations if name is None or one.name == name]
        if not operations:
            raise GraphQLError("the document has no operation" + ("" if name is None else " of this name"))
        if len(operations) > 1:
            raise GraphQLError("the document has several operations: name one as `operationName`")
        return operations[0]


class Documents:
    """The documents that were seen of late, with one schema."""

    def __init__(self, schema: GraphQLSchema, tokens_max: int = TOKENS_KEPT_MAX) -> None:
        self._schema = schema
        self._costs = Costs(schema)
        self._tokens_max = tokens_max
        self._tokens = 0
        self._known: OrderedDict[str, Document] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Tokens of all documents that are kept."""
        return self._tokens

    def get(self, query: str) -> tuple[Document, bool]:
        """The document, and whether it was known: if not, it was work to get it.

        One with errors is not kept: it would be of use to nobody, and would push out what others use.
        """
        known = self._known.get(query)
        if known is not None:
            self._known.move_to_end(query)
            return known, True
        made = self._made(query)
        if made.errors:
            return made, False
        self._known[query] = made
        self._tokens += _weight(made)
        while self._tokens > self._tokens_max:
            self._tokens -= _weight(self._known.popitem(last=False)[1])
        return made, False

    def variable_errors(self, operation: Operation, variables: dict[str, Any]) -> list[GraphQLError]:
        """Why the operation cannot be run with these variables; the first few reasons.

        The library would look for more of them, and guess what was meant, which takes minutes for a body full of errors.
        """
        definitions = operation.node.variable_definitions or ()
        found = get_variable_values(self._schema, definitions, variables, ERRORS_MAX)
        return found[:ERRORS_MAX] if isinstance(found, list) else []

    def _made(self, query: str) -> Document:
        # The parser would find out, too, after ten times as long.
        tokens = tokens_count(query)
        if tokens > TOKENS_MAX:
            return Document(
                query, None, TOKENS_MAX, (too_complex(f"the document has more than {TOKENS_MAX} tokens: split it"),)
            )
        try:
            node = parse(query, max_tokens=TOKENS_MAX)
        except GraphQLError as error:
            return Document(query, None, tokens, (error,))
        sizes, excess = measured(node)
        if excess is not None:
            return Document(query, node, node.token_count, (excess,))
        found = (one for one in node.definitions if isinstance(one, OperationDefinitionNode))
        operations = tuple(
            self._operation(node, one, root_fields) for one, root_fields in zip(found, sizes, strict=True)
        )
        # Before the library's rules, which take longer than all else.
        too_dear = [one.cost.excess for one in operations]
        if too_dear and None not in too_dear:
            return Document(query, node, node.token_count, (too_complex(str(too_dear[0])),))
        errors = self._errors(node)
        if errors:
            return Document(query, node, node.token_count, tuple(errors))
        return Document(query, node, node.token_count, operations=operations)

    def _operation(self, document: DocumentNode, node: OperationDefinitionNode, root_fields: int) -> Operation:
        mutations_count = root_fields if node.operation is OperationType.MUTATION else 0
        return Operation(node, mutations_count, self._costs.of(document, node))

    def _errors(self, node: DocumentNode) -> Sequence[GraphQLError]:
        # To guess what was meant takes longer than all else: it is done for documents that a person could have written.
        errors = validate(self._schema, node, RULES, max_errors=ERRORS_MAX, hide_suggestions=True)
        if errors and node.token_count <= GUESSED_TOKENS_MAX:
            errors = validate(self._schema, node, RULES, max_errors=ERRORS_MAX)
        if not errors or not isinstance(errors[-1], ValidationAbortedError):
            return errors
        # After many errors, or because comparing all fields with each other would take too long.
        return errors[:-1] or [too_complex("too many fields of the same name: ask for each once")]


def _weight(document: Document) -> int:
    return document.tokens + len(document.query) // 500 + 1
