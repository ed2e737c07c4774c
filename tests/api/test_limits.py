"""Documents that are too large are refused quickly, whatever they are made of."""

from __future__ import annotations

import itertools
import time

from graphql import get_introspection_query

from harness.api import Caller

DEEP = "{ webhookReceivers { edges { node { " + "subscriptions { receiver { " * 4 + "id" + " } }" * 4 + " } } } }"
FRAGMENTS = " ".join(
    f"fragment F{number} on Query {{ a{number}: __typename ...F{number + 1} b{number}: __typename ...F{number + 1} }}"
    for number in range(60)
)


TOO_LARGE = {
    "deep": DEEP,
    "aliases": "{ " + " ".join(f"a{number}: __typename" for number in range(31)) + " }",
    "aliases in fragments": "{ ...F0 } " + FRAGMENTS + " fragment F60 on Query { __typename }",
    "tokens": "{ " + "__typename " * 2_000 + "}",
    "deep introspection": "{ __schema { types { " + "fields { type { " * 8 + "name" + " } }" * 8 + " } } }",
    "absurdly deep": "{ " + "a { " * 900 + "b" + " }" * 900 + " }",
}


def test_a_document_that_is_too_large_is_refused(administrator: Caller) -> None:
    for kind, query in TOO_LARGE.items():
        began = time.monotonic()
        answer = administrator(query)
        assert {error["extensions"]["code"] for error in answer.body["errors"]} == {"QUERY_TOO_COMPLEX"}, kind
        assert answer.body["data"] is None
        assert time.monotonic() - began < 1, kind


def test_a_cycle_of_fragments_is_invalid_and_not_endless(administrator: Caller) -> None:
    answer = administrator("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }")
    assert answer.body["errors"][0]["extensions"]["code"] == "QUERY_INVALID"


def test_usual_tools_may_introspect(administrator: Caller) -> None:
    assert len(administrator(get_introspection_query()).data["__schema"]["types"]) > 20


def test_thirty_aliases_and_ten_levels_are_fine(administrator: Caller) -> None:
    aliases = administrator("{ " + " ".join(f"a{number}: __typename" for number in range(30)) + " }")
    assert len(aliases.data) == 30
    ten = "{ webhookReceivers { edges { node { " + "subscriptions { receiver { " * 3 + "id" + " } }" * 3 + " } } } }"
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
