"""The schema: fixed types, and an enum of resources that follows the database without a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import strawberry
from graphql import GraphQLError, GraphQLSchema, OperationDefinitionNode
from strawberry.extensions import AddValidationRules, MaxTokensLimiter, ParserCache, SchemaExtension, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types
from strawberry.types import ExecutionContext

from clarion.api.changes import ChangeQueries
from clarion.api.common_descriptions import complete
from clarion.api.context import Context
from clarion.api.egress import EgressMutations, EgressQueries
from clarion.api.event_mutations import EventMutations
from clarion.api.events import EventQueries
from clarion.api.headers import HeaderMutations, HeaderQueries
from clarion.api.limits import TOKENS_MAX, DocumentLimits
from clarion.api.nodes import NodeQueries
from clarion.api.permissions import guard
from clarion.api.previews import PreviewQueries
from clarion.api.receivers import ReceiverMutations, ReceiverQueries
from clarion.api.resources import ResourceQueries, resource_enum
from clarion.api.subscriptions import SubscriptionMutations, SubscriptionQueries
from clarion.api.test_sends import TestSendMutations
from clarion.api.values import SCALARS
from clarion.core.ids import ResourceName
from clarion.registry.resources import Resource

DOCUMENTS_CACHED = 1_000

Query = merge_types(
    "Query",
    (
        ReceiverQueries,
        SubscriptionQueries,
        PreviewQueries,
        EventQueries,
        ResourceQueries,
        EgressQueries,
        ChangeQueries,
        NodeQueries,
    ),
)
Mutation = merge_types(
    "Mutation",
    (ReceiverMutations, SubscriptionMutations, HeaderMutations, EventMutations, EgressMutations, TestSendMutations),
)


class OneOperation(SchemaExtension):
    """Refuses a document of several operations when the request does not say which: none is run by accident."""

    def on_parse(self) -> Iterator[None]:
        yield
        document = self.execution_context.graphql_document
        context = self.execution_context.context
        if document is None or not isinstance(context, Context) or context.operation_name is not None:
            return
        if sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions) > 1:
            raise GraphQLError("the document has several operations: name one as `operationName`")


class Schema(strawberry.Schema):
    """Leaves errors to the answer, which logs only what is our own fault."""

    @property
    def graphql_schema(self) -> GraphQLSchema:
        """The GraphQL library's schema behind it."""
        return self._schema

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Published:
    """One state of the schema, and the configuration's version that it was built at or is still right for."""

    schema: Schema
    resources: tuple[Resource, ...]
    version: int


def build_schema(resources: Sequence[Resource]) -> Schema:
    """The schema with these resources in `ResourceEnum`; there must be at least one. Takes 4 to 18 ms."""
    config = StrawberryConfig(scalar_map={**SCALARS, ResourceName: resource_enum(resources)})
    schema = Schema(
        query=Query,
        mutation=Mutation,
        config=config,
        extensions=[
            lambda: MaxTokensLimiter(TOKENS_MAX),
            lambda: AddValidationRules([DocumentLimits]),
            lambda: ParserCache(maxsize=DOCUMENTS_CACHED),
            lambda: ValidationCache(maxsize=DOCUMENTS_CACHED),
            OneOperation,
        ],
    )
    complete(schema.graphql_schema)
    guard(schema.graphql_schema)
    return schema


async def execute(
    schema: Schema, query: str, variables: dict[str, object] | None, context: Context
) -> strawberry.types.ExecutionResult:
    """The result of one operation, its errors as the library has them. Raises nothing of the caller's making."""
    try:
        return await schema.execute(query, variables, context_value=context, operation_name=context.operation_name)
    except strawberry.schema.exceptions.CannotGetOperationTypeError as error:
        refusal = GraphQLError(error.as_http_error_reason())
    except strawberry.exceptions.MissingQueryError:
        refusal = GraphQLError("the request has no query")
    return strawberry.types.ExecutionResult(data=None, errors=[refusal])
