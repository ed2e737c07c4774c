"""Documents made ready to run: parsed, found within the limits, validated, and kept for whoever sends them again.

The limits are looked at before the library's own rules, some of which take more than linear time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from clarion.api.limits import TOKENS_MAX, DocumentLimits

TOKENS_KEPT_MAX = 200_000
"""Tokens of all documents that are kept. One takes about 550 bytes, and twice as much with what is known of it."""

RULES: tuple[type[ASTValidationRule], ...] = (
    DocumentLimits,
    *specified_rules,
    MaybeNullValidationRule,
    OneOfInputValidationRule,
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or why it cannot be run. `tokens` is its size, or a bound on it if it cannot be parsed."""

    query: str
    node: DocumentNode | None
    tokens: int
    errors: tuple[GraphQLError, ...] = ()

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The operation of this name, or the only one. Raises GraphQLError if there is none, or it cannot be told which."""
        definitions = () if self.node is None else self.node.definitions
        operations = [one for one in definitions if isinstance(one, OperationDefinitionNode)]
        if name is not None:
            operations = [one for one in operations if one.name is not None and one.name.value == name]
        if not operations:
            raise GraphQLError("the document has no operation" + ("" if name is None else " of this name"))
        if len(operations) > 1:
            raise GraphQLError("the document has several operations: name one as `operationName`")
        if operations[0].operation is OperationType.SUBSCRIPTION:
            raise GraphQLError("subscriptions are not offered over HTTP")
        return operations[0]


class Documents:
    """The documents that were seen of late, with one schema."""

    def __init__(self, schema: GraphQLSchema, tokens_max: int = TOKENS_KEPT_MAX) -> None:
        self._schema = schema
        self._tokens_max = tokens_max
        self._tokens = 0
        self._known: OrderedDict[str, Document] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Tokens of all documents that are kept."""
        return self._tokens

    def get(self, query: str) -> tuple[Document, bool]:
        """The document, and whether it was known: if not, it was work to get it."""
        known = self._known.get(query)
        if known is not None:
            self._known.move_to_end(query)
            return known, True
        made = self._made(query)
        self._known[query] = made
        self._tokens += _weight(made)
        while self._tokens > self._tokens_max:
            self._tokens -= _weight(self._known.popitem(last=False)[1])
        return made, False

    def _made(self, query: str) -> Document:
        try:
            node = parse(query, max_tokens=TOKENS_MAX)
        except GraphQLError as error:
            return Document(query, None, min(len(query) + 1, TOKENS_MAX), (error,))
        return Document(query, node, node.token_count, tuple(self._errors(node)))

    def _errors(self, node: DocumentNode) -> Sequence[GraphQLError]:
        try:
            return validate(self._schema, node, RULES)
        except GraphQLError as error:
            return [error]


def _weight(document: Document) -> int:
    return document.tokens + len(document.query) // 500 + 1
