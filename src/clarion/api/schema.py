"""The schema: fixed types, and an enum of resources that follows the database without a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import graphql
import strawberry
from graphql import ExecutionResult, GraphQLSchema
from graphql.execution import Executor
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types

from clarion.api.changes import ChangeQueries
from clarion.api.client_operations import ClientMutations, ClientQueries
from clarion.api.common_descriptions import complete
from clarion.api.context import Context
from clarion.api.documents import Document, Documents
from clarion.api.egress import EgressMutations, EgressQueries
from clarion.api.event_mutations import EventMutations
from clarion.api.events import EventQueries
from clarion.api.executor import executor_of
from clarion.api.headers import HeaderMutations, HeaderQueries
from clarion.api.history import HistoryQueries
from clarion.api.keys import ApiKeyMutations, ApiKeyQueries
from clarion.api.nodes import NodeQueries
from clarion.api.organisations import OrganisationMutations, OrganisationQueries
from clarion.api.permissions import guard
from clarion.api.previews import PreviewQueries
from clarion.api.receivers import ReceiverMutations, ReceiverQueries
from clarion.api.resources import ResourceMutations, ResourceQueries, resource_enum
from clarion.api.subscriptions import SubscriptionMutations, SubscriptionQueries
from clarion.api.test_sends import TestSendMutations
from clarion.api.values import SCALARS
from clarion.core.errors import InvariantBroken
from clarion.core.ids import ResourceName
from clarion.registry.resources import Resource

Query = merge_types(
    "Query",
    (
        ReceiverQueries,
        SubscriptionQueries,
        HeaderQueries,
        PreviewQueries,
        EventQueries,
        ResourceQueries,
        EgressQueries,
        ChangeQueries,
        ClientQueries,
        ApiKeyQueries,
        OrganisationQueries,
        HistoryQueries,
        NodeQueries,
    ),
)
Mutation = merge_types(
    "Mutation",
    (
        ReceiverMutations,
        SubscriptionMutations,
        HeaderMutations,
        EventMutations,
        EgressMutations,
        TestSendMutations,
        ResourceMutations,
        ClientMutations,
        ApiKeyMutations,
        OrganisationMutations,
    ),
)


class Schema(strawberry.Schema):
    """`documents` are those seen with it; `executor` runs them."""

    documents: Documents
    executor: type[Executor[Any]]

    @property
    def graphql_schema(self) -> GraphQLSchema:
        """The GraphQL library's schema behind it."""
        return self._schema


@dataclass(frozen=True, slots=True)
class Published:
    """One state of the schema, and the configuration's version that it was built at or is still right for."""

    schema: Schema
    resources: tuple[Resource, ...]
    version: int


def build_schema(resources: Sequence[Resource]) -> Schema:
    """The schema with these resources in `ResourceEnum`; there must be at least one. Takes 4 to 18 ms."""
    config = StrawberryConfig(scalar_map={**SCALARS, ResourceName: resource_enum(resources)})
    schema = Schema(query=Query, mutation=Mutation, config=config)
    complete(schema.graphql_schema)
    guard(schema.graphql_schema)
    schema.documents = Documents(schema.graphql_schema)
    schema.executor = executor_of(schema.graphql_schema)
    return schema


async def execute(
    schema: Schema, document: Document, variables: dict[str, object], context: Context
) -> ExecutionResult:
    """The result of one operation of a document without errors, its errors as the library has them."""
    if document.node is None:
        raise InvariantBroken("a document with errors is never executed")
    context.document = document.node
    # Not by way of Strawberry's own `execute`, which prepares for extensions what nobody here asks for.
    result = graphql.execute(
        schema.graphql_schema,
        document.node,
        context_value=context,
        variable_values=variables,
        operation_name=context.operation_name,
        executor_class=schema.executor,
        is_awaitable=cast(Any, optimized_is_awaitable),
    )
    return result if isinstance(result, ExecutionResult) else await result
