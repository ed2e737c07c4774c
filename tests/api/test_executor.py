"""The short way for plain fields answers what the GraphQL library answers, whatever the objects hold."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import graphql
import strawberry
from hypothesis import example, given
from hypothesis import strategies as st
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from clarion.api.executor import executor_of, plain_fields
from clarion.api.schema import build_schema
from harness.api import resource


@strawberry.enum
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@strawberry.type
class Thing:
    name: str
    nick: str | None
    key: strawberry.ID
    count: int
    size: int | None
    share: float | None
    active: bool
    colour: Colour
    other_colour: Colour | None
    made: datetime
    words: list[str]
    inner: Thing | None

    @strawberry.field
    def computed(self) -> str | None:
        return f"{self.name!r}"

    @strawberry.field
    async def awaited(self) -> str:
        await asyncio.sleep(0)
        return "later"

    @strawberry.field
    def with_argument(self, times: int = 2) -> str | None:
        return "x" * times


@strawberry.type
class Query:
    @strawberry.field
    def things(self, info: strawberry.Info[Any, None]) -> list[Thing | None]:
        found: list[Thing | None] = info.context
        return found


SCHEMA = strawberry.Schema(Query)._schema
EXECUTOR = executor_of(SCHEMA)
DOCUMENTS = [
    graphql.parse(text)
    for text in (
        "{ things { name nick key count size share active colour otherColour made } }",
        "{ things { __typename awaited again: name computed name words withArgument(times: 3) inner { key awaited nick } } }",
        (
            "query($no: Boolean = false) { things { ...F nick @include(if: $no) key @skip(if: $no) inner { ...F } } } "
            "fragment F on Thing { count active name }"
        ),
    )
]

fitting = {
    "name": st.text(max_size=3),
    "nick": st.none() | st.text(max_size=3),
    "key": st.sampled_from(["1", 7]),
    "count": st.integers(-(2**31), 2**31 - 1),
    "size": st.none() | st.just(3),
    "share": st.none() | st.just(0.5) | st.just(2),
    "active": st.booleans(),
    "colour": st.sampled_from(Colour),
    "other_colour": st.none() | st.sampled_from(Colour),
    "made": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    "words": st.lists(st.text(max_size=2), max_size=2),
}
unfit: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", 0, True, 2**40, 1.5, float("nan"), "text", [], ValueError("in the place of a value"), object]
)
things: st.SearchStrategy[Any] = st.deferred(
    lambda: st.builds(
        Thing, **{name: values | unfit for name, values in fitting.items()}, inner=st.none() | things | st.just(5)
    )
)


def answer(executor: Any, document: graphql.DocumentNode, context: Any) -> str:
    async def run() -> Any:
        result: Any = graphql.execute(
            SCHEMA, document, context_value=context, executor_class=executor, is_awaitable=optimized_is_awaitable
        )
        return result if isinstance(result, graphql.ExecutionResult) else await result

    # As text: the order of an answer's fields is part of it.
    return json.dumps(asyncio.run(run()).formatted, default=repr)


plain = Thing(
    name="a",
    nick=None,
    key=strawberry.ID("1"),
    count=1,
    size=None,
    share=None,
    active=True,
    colour=Colour.RED,
    other_colour=None,
    made=datetime(2026, 1, 1, tzinfo=UTC),
    words=[],
    inner=None,
)


@given(context=st.lists(st.none() | things, max_size=3), document=st.sampled_from(DOCUMENTS))
@example(context=[plain], document=DOCUMENTS[0])
@example(context=[plain, None, plain], document=DOCUMENTS[1])
def test_it_answers_as_the_library_does(context: list[Any], document: graphql.DocumentNode) -> None:
    assert answer(EXECUTOR, document, context) == answer(StrawberryGraphQLCoreExecutionContext, document, context)


def test_what_takes_a_resolver_an_argument_or_a_selection_is_not_plain() -> None:
    plain = plain_fields(SCHEMA)
    assert plain["Query"] == {}
    assert set(plain["Thing"]) == {
        *("name", "nick", "key", "count", "size", "share", "active", "colour", "otherColour", "made")
    }


def test_no_operation_of_the_api_is_plain_and_no_secret() -> None:
    plain = plain_fields(build_schema([resource("RUNS", "RUN", "Runs.")]).graphql_schema)
    assert plain["Query"] == plain["Mutation"] == {}
    assert "sharedSecret" not in plain["WebhookReceiver"]
    assert {"name", "active", "ordering"} <= set(plain["WebhookReceiver"])
