"""What a document may bring is reckoned from the schema: no list of it, present or to come, goes uncharged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    DocumentNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    OperationDefinitionNode,
    build_schema,
    get_introspection_query,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    parse,
)

from clarion.api import schema as api_schema
from clarion.api.cost import NESTED_LIST, NODES_MAX, ROOT_LIST, Cost, Costs, listed
from clarion.api.documents import Documents
from clarion.api.operations import Operation, Prepared
from clarion.database.page import SIZE_MAX
from harness.api import Caller, resource

SCHEMA = api_schema.build_schema([resource("RUNS", "RUN")])
DOCUMENTS = Documents(SCHEMA.graphql_schema)


def cost(query: str, **variables: Any) -> Cost:
    document, _ = DOCUMENTS.get(query)
    assert not document.errors, document.errors
    return document.operation(None).cost.of(variables)


def operation_of(document: DocumentNode) -> OperationDefinitionNode:
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return operation


def lists() -> Iterator[tuple[GraphQLObjectType | GraphQLInterfaceType, str, GraphQLField]]:
    for type_ in SCHEMA.graphql_schema.type_map.values():
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in type_.fields.items():
                if is_list_type(get_nullable_type(field.type)) or {"first", "last"} & set(field.args):
                    yield type_, name, field


LISTS = list(lists())


def _is_page_of(type_: Any, name: str) -> bool:
    """Whether the field is the list of a page that somebody else's `first` decides the length of."""
    return any(
        {"first", "last"} & set(field.args) and get_named_type(field.type) is type_
        for other in SCHEMA.graphql_schema.type_map.values()
        if isinstance(other, GraphQLObjectType)
        for field in other.fields.values()
    )


@pytest.mark.parametrize(("type_", "name", "field"), LISTS, ids=[f"{type_.name}.{name}" for type_, name, _ in LISTS])
def test_every_list_of_the_schema_is_charged(type_: Any, name: str, field: GraphQLField) -> None:
    kind = listed(type_, name, field, frozenset({"Query", "Mutation"}))
    assert kind is not None
    assert kind.size >= 3
    # As whoever asks for it is charged: alone below its type, wherever that is.
    costs = Costs(SCHEMA.graphql_schema)
    inner = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    document = parse(f"query {{ ...F }} fragment F on {type_.name} {{ {name}{inner} }}")
    charged = costs.of(document, operation_of(document)).of({})
    if inner:
        assert charged.nodes >= kind.size
    assert charged.values >= kind.size


def test_there_are_lists_of_every_kind() -> None:
    names = {f"{type_.name}.{name}" for type_, name, _ in LISTS}
    assert {
        "Query.webhookReceivers",
        "Query.resources",
        "WebhookReceiver.subscriptions",
        "WebhookReceiver.retrySchedule",
        "WebhookReceiverConnection.edges",
        "WebhookEnvironment.addresses",
        "__Schema.types",
    } <= names


def test_connections_multiply_by_what_is_asked_for_or_the_default() -> None:
    def receivers(arguments: str, **variables: Any) -> int:
        head = "query($n: Int, $m: Int = 7) " if "$" in arguments else ""
        declared = head if "$m" in arguments else head.replace(", $m: Int = 7", "")
        declared = declared if "$n" in arguments else declared.replace("$n: Int, ", "")
        return cost(f"{declared}{{ webhookReceivers{arguments} {{ edges {{ cursor }} }} }}", **variables).nodes

    assert receivers("") == 100
    assert receivers("(first: 3)") == receivers("(last: 3)") == 3
    assert receivers("(first: null)") == 100
    assert receivers("(first: $n)", n=3) == receivers("(last: $n)", n=3) == 3
    assert receivers("(first: $n)", n=None) == receivers("(first: $n)") == 100
    assert receivers("(first: $m)") == 7
    assert receivers("(first: $m)", m=9) == 9
    assert receivers("(first: $n, last: $m)", n=2) == 7


@pytest.mark.parametrize("size", [0, -1, 101, 2**31, 10**400, "5", [], {}, True, 1e300, float("nan")])
def test_a_size_that_is_none_is_charged_as_no_less_than_it_could_be(size: Any) -> None:
    query = "query($n: Int) { webhookReceivers(first: $n) { edges { cursor } } }"
    assert cost(query, n=size).nodes in ({1, SIZE_MAX} if size is True else {SIZE_MAX})


def test_nested_lists_multiply() -> None:
    nested = "{ webhookReceivers(first: 5) { edges { node { subscriptions(first: 4) { id events { id } } } } } }"
    assert cost(nested).nodes == 5 * (1 + 4 * (1 + 20))
    assert cost("{ webhookReceivers { edges { node { headers { id } } } } }").nodes == 100 * 21
    assert cost("{ webhookReceiver(id: 1) { headers { id } } }").nodes == NESTED_LIST
    assert cost("{ resources { name } }").nodes == ROOT_LIST


def test_what_is_no_list_is_a_value() -> None:
    assert cost("{ webhookReceiver(id: 1) { id name createdBy { name } } }") == Cost(0, 5)
    assert cost("{ webhookReceivers(first: 3) { edges { node { id } } } }") == Cost(3, 3 * 4)


def test_fragments_are_charged_wherever_they_are_used() -> None:
    fragment = "fragment F on WebhookReceiver { headers(first: 10) { id } }"
    assert (
        cost(f"{{ a: webhookReceiver(id: 1) {{ ...F }} b: webhookReceiver(id: 1) {{ ...F }} }} {fragment}").nodes == 20
    )
    assert cost(f"{{ node(id: 1) {{ ...F ... on WebhookSubscription {{ events {{ id }} }} }} }} {fragment}").nodes == 30
    connection = "fragment C on WebhookReceiverConnection { edges { cursor } }"
    assert cost(f"{{ webhookReceivers(first: 3) {{ ...C }} }} {connection}").nodes == 3


def test_what_is_skipped_is_charged_all_the_same() -> None:
    skipped = "query($no: Boolean!) { webhookReceivers @skip(if: $no) { edges { cursor } } }"
    assert cost(skipped, no=True).nodes == 100


def test_introspection_is_charged_and_affordable() -> None:
    assert 1_000 < cost(get_introspection_query()).nodes < NODES_MAX


def test_products_stop_somewhere() -> None:
    schema = build_schema("type Query { a(first: Int = 100): [Query!]! }")
    document = parse("{ " + "a { " * 150 + "__typename" + " }" * 150 + " }")
    assert Costs(schema).of(document, operation_of(document)).of({}).nodes == 10**9


def test_what_costs_too_much_is_refused_with_the_figure_and_the_limit(administrator: Caller) -> None:
    query = "query($n: Int) { webhookReceivers(first: $n) { edges { node { subscriptions(first: 100) { id } } } } }"
    assert administrator(query, n=99).data == {"webhookReceivers": {"edges": []}}
    refused = administrator(query, n=100)
    assert refused.refusal[0] == "QUERY_TOO_COMPLEX"
    assert "10,100 nodes" in refused.error["message"] and "10,000" in refused.error["message"]


def test_the_operations_of_an_array_are_added_up(administrator: Caller) -> None:
    one = {"query": "{ webhookReceivers { edges { node { subscriptions { id } } } } }"}
    assert [answer["data"] for answer in administrator.post([one] * 4).body] == [
        {"webhookReceivers": {"edges": []}}
    ] * 4
    refused = administrator.post([one] * 5)
    assert [answer["errors"][0]["extensions"]["code"] for answer in refused.body] == ["QUERY_TOO_COMPLEX"] * 5
    assert "10,500 nodes" in refused.body[0]["errors"][0]["message"]


def test_values_are_counted_beside_nodes(administrator: Caller) -> None:
    values = "id resource action active created updated receiverId " * 5
    query = f"{{ webhookReceivers(first: 25) {{ edges {{ node {{ subscriptions(first: 100) {{ {values} }} }} }} }} }}"
    assert administrator(query).data == {"webhookReceivers": {"edges": []}}
    refused = administrator(query.replace("first: 25", "first: 30"))
    assert refused.refusal[0] == "QUERY_TOO_COMPLEX"
    assert "values of fields" in refused.error["message"]


@pytest.mark.parametrize(
    ("query", "points"),
    [
        ("{ __typename }", 1),
        ("{ webhookReceivers(first: 1) { edges { cursor } } }", 2),
        ("{ webhookReceivers(first: 10) { edges { cursor } } }", 2),
        ("{ webhookReceivers(first: 11) { edges { cursor } } }", 3),
        ("{ webhookReceivers { edges { cursor } } }", 11),
        ("{ webhookReceivers { edges { node { subscriptions(first: 99) { id } } } } }", 1_001),
        ('mutation { deleteWebhookReceiver(id: 1, etag: "x") { id } }', 10),
        (
            'mutation { a: deleteWebhookReceiver(id: 1, etag: "x") { id } b: deleteWebhookHeader(id: 1, etag: "") { id } }',
            20,
        ),
    ],
)
def test_points_are_those_of_the_table(query: str, points: int) -> None:
    asked = Operation(query, {}, None)
    document, _ = DOCUMENTS.get(query)
    operation = document.operation(None)
    assert Prepared(asked, document, (), operation.cost.of({}), operation.mutations_count).points == points


def test_the_example_of_the_page_costs_what_it_says() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/limits.md").read_text()
    query = page.partition("```graphql\n")[2].partition("\n```")[0]
    assert f"{cost(query).nodes:,} nodes" in page


DEAR = (
    "webhookReceivers(first: {size}) {{ edges {{ node {{ subscriptions(first: 100) {{ receiver {{ "
    "subscriptions(first: 100) {{ id }} }} }} {more} }} }} }}"
)


def codes_of(query: str) -> list[str | None]:
    found, _ = DOCUMENTS.get(query)
    return [(error.extensions or {}).get("code") for error in found.errors]


def test_what_is_too_dear_whatever_its_variables_is_refused_before_it_is_validated() -> None:
    assert codes_of("{ " + DEAR.format(size=100, more="there_is_no_such_field") + " }") == ["QUERY_TOO_COMPLEX"]
    # One of two operations could still be run, and a variable could make it cheap.
    assert codes_of("query A { " + DEAR.format(size=100, more="") + " } query B { __typename }") == []
    assert codes_of("query($n: Int = 100) { " + DEAR.format(size="$n", more="") + " }") == []


@pytest.mark.parametrize("fragment", ["", "fragment F on WebhookReceiver { id ...F }"], ids=["unknown", "in a circle"])
def test_fragments_that_cannot_be_reckoned_are_left_to_the_librarys_rules(fragment: str) -> None:
    assert codes_of("{ webhookReceivers { edges { node { ...F } } } } " + fragment) == [None]
