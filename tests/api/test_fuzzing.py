"""Whatever fits the schema, and much that does not, is answered without a fault of ours and without a word about our insides."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import Mode, from_schema, nodes

from attack.isolation import schema_of
from harness.api import Answer, Caller

INSIDES = re.compile(
    r"asyncpg|sqlalchemy|psycopg|strawberry|starlette|graphql\.|Traceback|\.py\b|/src/|site-packages|"
    r"\bclarion\.[a-z_]+\b|SELECT |INSERT |UPDATE clarion|DELETE FROM|violates|constraint|relation \"|<class|object at 0x",
)
"""What no answer may say: SQL, paths, modules, classes, the database's own words."""

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "BigInt": st.integers(-(2**63), 2**63 - 1).map(nodes.Int),
    "JSON": st.text(max_size=10).map(nodes.String),
    "DateTime": st.datetimes().map(lambda moment: nodes.String(moment.isoformat() + "Z")),
}
EXAMPLES = settings(
    max_examples=50,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    phases=[Phase.generate],
)


def assert_sound(answer: Answer, asked: object) -> None:
    assert answer.status in {200, 400, 413}, (answer, asked)
    codes = (
        [error["extensions"]["code"] for error in answer.body.get("errors", [])]
        if isinstance(answer.body, dict)
        else []
    )
    assert "INTERNAL" not in codes, (answer.body, asked)
    said = str([error["message"] for error in answer.body.get("errors", [])]) if codes else ""
    assert not INSIDES.search(said), said


@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE])
def test_documents_made_from_the_schema_never_meet_a_fault_of_ours(administrator: Caller, mode: Mode) -> None:
    codes: set[str] = set()
    documents = from_schema(schema_of(administrator), custom_scalars=SCALARS, mode=mode)

    @EXAMPLES
    @given(documents)
    def ask(document: object) -> None:
        if "testWebhookReceiver" in str(document):
            return  # its answer waits for a worker, and none runs here
        answer = administrator.post({"query": document})
        assert_sound(answer, document)
        codes.update(error["extensions"]["code"] for error in answer.body.get("errors", []))

    ask()
    assert codes, "no document met a refusal: the generator makes too little"


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@EXAMPLES
@given(body=st.binary(max_size=200) | st.just(b"[" * 50_000) | st.just(b'{"query":' * 5_000))
def test_bytes_that_are_no_request_are_refused(fuzzed: Caller, body: bytes) -> None:
    assert_sound(fuzzed.send(body), body)


@EXAMPLES
@given(query=JSON_VALUES, variables=JSON_VALUES, name=JSON_VALUES)
def test_requests_of_other_shapes_are_refused(fuzzed: Caller, query: Any, variables: Any, name: Any) -> None:
    content = {"query": query, "variables": variables, "operationName": name}
    assert_sound(fuzzed.post(content), content)


@EXAMPLES
@given(value=JSON_VALUES)
def test_variables_of_any_shape_are_values_or_refused(fuzzed: Caller, value: Any) -> None:
    for document in (
        "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { __typename } }",
        "query($input: WebhookEventsInputFilters) { webhookEvents(filters: $input) { pageInfo { count totalCount } } }",
        "query($input: ID!) { node(id: $input) { id } }",
        "query($input: Int) { webhookReceivers(first: $input) { pageInfo { count } } }",
        "query($input: String) { webhookReceivers(after: $input) { pageInfo { count } } }",
    ):
        assert_sound(fuzzed(document, input=value), (document, value))


@pytest.fixture(scope="module")
def fuzzed(module_database: Any, module_api: int) -> Caller:
    """An administrator's caller for all examples of a test: hypothesis makes a fixture once, not once an example."""
    from clarion.access.principal import Role
    from harness.api import new_key

    return Caller(module_api, new_key(module_database, "default", Role.ADMINISTRATOR, "fuzzer"), module_database)
