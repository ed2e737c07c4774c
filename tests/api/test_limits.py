"""Documents that are too large are refused quickly, whatever they are made of, and those that pass are cheap."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from graphql import DocumentNode, GraphQLError, get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st

from attack.graphql import (
    ANY_MS_MAX,
    ATTACKS,
    PARSED_MS_MAX,
    REFUSED_MS_MAX,
    UNREADABLE,
    WITHIN,
    Attack,
)
from clarion.api.documents import TOKENS_KEPT_MAX, Documents
from clarion.api.limits import TOKENS_MAX, measured, tokens_count
from clarion.api.operations import BODY_BYTES_MAX, parse_body
from clarion.api.schema import Schema, build_schema
from harness.api import Caller, resource

Result = TypeVar("Result")

BUSY = 2.0
"""What others on the same processor may make of a time; the figures themselves are for a quiet machine."""


@pytest.fixture(scope="module")
def schema() -> Schema:
    """With two hundred resources: what names might have meant is sought among them all."""
    return build_schema([resource(f"RES_{number}S", f"RES_{number}") for number in range(200)])


def cpu_ms(act: Callable[[], Result], enough_ms: float = 1) -> tuple[float, Result]:
    """The best of a few times on the processor, where other programs do not count; the first that is good enough."""
    times = []
    for _ in range(5):
        began = time.thread_time_ns()
        result = act()
        times.append((time.thread_time_ns() - began) / 1e6)
        if times[-1] <= enough_ms:
            break
    return min(times), result


def parsed(query: str) -> DocumentNode | None:
    try:
        return parse(query, max_tokens=TOKENS_MAX)
    except GraphQLError:
        return None


def named(attacks: tuple[Attack, ...]) -> Any:
    return pytest.mark.parametrize("attack", attacks, ids=[attack.name for attack in attacks])


@named(ATTACKS)
def test_a_hostile_document_costs_next_to_nothing_beyond_its_parsing(attack: Attack, schema: Schema) -> None:
    query = attack.build()
    assert len(query) <= BODY_BYTES_MAX
    counting_ms, tokens = cpu_ms(lambda: tokens_count(query), REFUSED_MS_MAX / 2)
    assert counting_ms <= REFUSED_MS_MAX
    if tokens > TOKENS_MAX:
        return
    parsing_ms, node = cpu_ms(lambda: parsed(query), PARSED_MS_MAX * BUSY)
    assert parsing_ms <= PARSED_MS_MAX * BUSY
    if node is None:
        return
    refusing_ms, (_, excess) = cpu_ms(lambda: measured(node), REFUSED_MS_MAX / 2)
    if excess is not None:
        assert counting_ms + refusing_ms <= REFUSED_MS_MAX
        return
    # What is refused for its nodes and values.
    most_ms = (PARSED_MS_MAX + REFUSED_MS_MAX) * BUSY
    whole_ms, (document, _known) = cpu_ms(lambda: Documents(schema.graphql_schema).get(query), most_ms)
    assert [(error.extensions or {})["code"] for error in document.errors] == ["QUERY_TOO_COMPLEX"]
    assert whole_ms <= most_ms


@named((*UNREADABLE, *WITHIN))
def test_the_worst_documents_within_the_limits_are_cheap(attack: Attack, schema: Schema) -> None:
    query = attack.build()
    assert len(query) <= BODY_BYTES_MAX
    whole_ms, _ = cpu_ms(lambda: Documents(schema.graphql_schema).get(query), ANY_MS_MAX * BUSY)
    assert whole_ms <= ANY_MS_MAX * BUSY


def test_each_is_refused_over_http_with_its_code(administrator: Caller) -> None:
    for attack in (*ATTACKS, *UNREADABLE, *WITHIN):
        query = attack.build()
        answer = administrator(query)
        # What has to be escaped in JSON is larger there.
        if len(json.dumps({"query": query, "variables": {}})) > BODY_BYTES_MAX:
            assert answer.status == 413, attack.name
            continue
        codes = {error["extensions"]["code"] for error in answer.body.get("errors", ())}
        assert codes == (set() if attack.code is None else {attack.code}), (attack.name, answer.body)


HOSTILE_VARIABLES: dict[str, Any] = {
    "enum values": {"f": {"resource": {"in": [f"RES_{number % 1000}X" for number in range(5_000)]}}},
    "unknown fields": {"f": {f"resourc{number}": 1 for number in range(3_500)}},
    "deep": {"f": json.loads('{"a":' * 900 + "1" + "}" * 900)},
    "objects": {"f": {"id": {"in": [{}] * 15_000}}},
    "a long name": {"f": {"resource": {"in": ["R" * 60_000]}}},
    "deep lists": {"f": {"id": {"in": json.loads("[" * 900 + "]" * 900)}}},
    "too many values": {"f": {"id": {"in": ["1"] * 12_000}}},
}


@pytest.mark.parametrize("kind", HOSTILE_VARIABLES)
def test_variables_full_of_errors_are_refused_in_a_moment(kind: str, administrator: Caller) -> None:
    query = "query($f: WebhookSubscriptionsInputFilters) { webhookSubscriptions(filters: $f) { edges { cursor } } }"
    # The API's own work, which is done in this process: a busy machine lets both wait.
    began = time.process_time()
    answer = administrator.post({"query": query, "variables": HOSTILE_VARIABLES[kind]})
    assert {error["extensions"]["code"] for error in answer.body["errors"]} <= {"INVALID_INPUT", "QUERY_TOO_COMPLEX"}
    assert len(answer.body["errors"]) <= 5
    assert time.process_time() - began < 1


@given(st.text(alphabet='ab1 "\\\n#{}()[]:.,$@!-e\ufeff\u00e9', max_size=60))
def test_the_count_of_tokens_before_parsing_is_never_more_than_the_parsers(query: str) -> None:
    try:
        document = parse(query)
    except GraphQLError:
        return
    assert tokens_count(query) <= document.token_count


def test_the_count_of_tokens_is_quick_whatever_the_text(schema: Schema) -> None:
    for unit in ('"\\"', '"""', '"""\\"""', '"x\n', "#", "#\n", '"" ', "{", "a,", '\\"""', '""""'):
        ms, _ = cpu_ms(partial(tokens_count, (unit * BODY_BYTES_MAX)[:BODY_BYTES_MAX]))
        assert ms < REFUSED_MS_MAX, unit


def test_a_body_that_is_no_json_is_refused_in_a_millisecond() -> None:
    for body in (b"[" * BODY_BYTES_MAX, b'{"a":' * 13_000, b"1" * BODY_BYTES_MAX, b'"' + b"\\" * BODY_BYTES_MAX):

        def refused(body: bytes = body) -> bool:
            try:
                parse_body(body)
            except Exception:
                return True
            return False

        ms, is_refused = cpu_ms(refused)
        assert is_refused and ms <= 1 * BUSY, body[:20]


def test_documents_that_are_kept_are_bounded_and_found_again(schema: Schema) -> None:
    documents = Documents(schema.graphql_schema, tokens_max=1_000)
    for number in range(100):
        documents.get(f"{{ a{number}: __typename }}")
        documents.get("{ webhookReceivers { edges { " + "cursor " * 100 + f"}} }} }} #{number}")
        assert documents.tokens <= 1_000
    last, known = documents.get("{ a99: __typename }")
    assert known and not last.errors
    assert not documents.get("{ a0: __typename }")[1]
    assert TOKENS_KEPT_MAX * 600 < 100_000_000


def test_documents_that_cannot_be_run_are_not_kept_and_push_nothing_out(schema: Schema) -> None:
    documents = Documents(schema.graphql_schema, tokens_max=100)
    documents.get("{ a: __typename }")
    for refused in ("{ nothing }", "{", "{ " + "__typename " * 30 + "}", "{" * 3_000):
        for _ in range(2):
            document, known = documents.get(refused)
            assert document.errors and not known
    assert documents.get("{ a: __typename }")[1]


def test_a_document_that_is_known_takes_microseconds(schema: Schema) -> None:
    documents = Documents(schema.graphql_schema)
    query = "query($n: Int) { webhookReceivers(first: $n) { edges { node { id subscriptions(first: 5) { id } } } } }"
    documents.get(query)

    def thousand_times() -> int:
        nodes = 0
        for _ in range(1_000):
            document, _known = documents.get(query)
            nodes += document.operation(None).cost.of({"n": 3}).nodes
        return nodes

    ms, nodes = cpu_ms(thousand_times)
    assert nodes == 1_000 * 3 * 6
    assert ms < 30


def test_usual_tools_may_introspect(administrator: Caller) -> None:
    assert len(administrator(get_introspection_query()).data["__schema"]["types"]) > 20


def test_what_is_just_allowed_is_answered(administrator: Caller) -> None:
    aliases = administrator(
        "{ webhookReceivers { edges { " + " ".join(f"a{number}: cursor" for number in range(30)) + " } } }"
    )
    assert aliases.data == {"webhookReceivers": {"edges": []}}
    assert administrator("{ " + "__typename " * 20 + "}").data == {"__typename": "Query"}
    assert administrator("{ __typename " + "@include(if: true) " + "}").status == 200
    ten = (
        "{ webhookReceivers(first: 1) { edges { node { "
        + "subscriptions(first: 1) { receiver { " * 3
        + "id"
        + " } }" * 3
        + " } } } }"
    )
    assert administrator(ten).data == {"webhookReceivers": {"edges": []}}


def test_page_sizes_are_from_1_to_100(administrator: Caller) -> None:
    names = ("webhookReceivers", "webhookSubscriptions", "webhookEvents")
    for name, first in itertools.product(names, (0, 101, -1)):
        answer = administrator(f"{{ {name}(first: {first}) {{ edges {{ cursor }} }} }}")
        assert answer.refusal == ("INVALID_INPUT", "first")
        answer = administrator(f"{{ {name}(last: {first}) {{ edges {{ cursor }} }} }}")
        assert answer.refusal == ("INVALID_INPUT", "last")
        both = administrator(f"{{ {name}(first: 1, last: 1) {{ edges {{ cursor }} }} }}")
        assert both.refusal == ("INVALID_INPUT", "last")
