"""GraphQL over HTTP: from a body to operations, what they cost, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import GraphQLError

from clarion.api.answers import Answer, RateLimited, Refused, errors_answer
from clarion.api.context import Context
from clarion.api.cost import NOTHING, Cost, excess
from clarion.api.deadline import Deadline, DeadlinePassed
from clarion.api.documents import Document
from clarion.api.errors import Asked, shown
from clarion.api.gate import Visit
from clarion.api.idempotency import ANSWER_BYTES_MAX, NotKept, too_large
from clarion.api.refusals import refused_entries
from clarion.api.schema import Published, execute
from clarion.api.session import Session, Whole
from clarion.core.errors import BeforeGraphQL, Code

BODY_BYTES_MAX = 64 * 1024
OPERATIONS_MAX = 10
POINTS_OF_MUTATION = 10
NODES_OF_POINT = 10
VALUES_OF_POINT = 200
POINTS_OF_REFUSED_VARIABLES = 10
TOKENS_OF_POINT = 20
CHARACTERS_OF_POINT = 640
"""A document that has to be parsed and checked costs a point for so many tokens, or characters if that is more: a string
without end takes as long as many tokens. What it asks for may cost more.
"""

NOTHING_DONE = "nothing was done"


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a request's body."""

    query: str
    variables: dict[str, Any]
    name: str | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operation with its document and what it costs to run it; `errors` are why it is not run."""

    asked: Operation
    document: Document
    errors: Sequence[GraphQLError]
    cost: Cost = NOTHING
    mutations_count: int = 0

    @property
    def points(self) -> int:
        """A mutation costs ten, with a page of what it shows; all else one, and one for ten nodes or 200 values."""
        if self.errors:
            return 0
        read = 1 + max(-(-self.cost.nodes // NODES_OF_POINT), self.cost.values // VALUES_OF_POINT)
        return max(self.mutations_count * POINTS_OF_MUTATION, read)


async def answer_graphql(visit: Visit) -> Answer:
    """The answer to a request for `/graphql`. Raises Refused."""
    body = await visit.body(BODY_BYTES_MAX)
    operations, is_array = parse_body(body)
    published = visit.api.source.published
    if published is None:
        raise Refused(503, Code.INTERNAL, "the API is starting: try again")
    run = _Run(visit, published, is_array, len(operations))
    prepared, work = await run.prepare(operations)
    refused = excess(sum((one.cost for one in prepared), NOTHING))
    points = 0 if refused is not None else sum(one.points for one in prepared)
    # One was taken before the body was read.
    wanted = max(points, work) - 1
    try:
        visit.charge(wanted)
    except RateLimited:
        return run.all_refused(200, visit.owe(work - 1, wanted).error)
    if refused is not None:
        return run.all_refused(200, _too_complex(refused))
    key = visit.idempotency_key
    if key is None or not any(one.mutations_count for one in prepared):
        return await run.answer(prepared)
    return await visit.once(key, body, lambda whole: run.answer_whole(prepared, whole))


class _Run:
    """The operations of one request, one after the other."""

    def __init__(self, visit: Visit, published: Published, is_array: bool, count: int) -> None:
        self._visit = visit
        self._published = published
        self._is_array = is_array
        self._count = count

    async def prepare(self, operations: Sequence[Operation]) -> tuple[list[Prepared], int]:
        """The operations ready to run, and the points for the work that this was."""
        work = 0
        prepared: list[Prepared] = []
        for asked in operations:
            if prepared:
                # A document as long as one may be takes a while: between two of them others get their turn.
                await asyncio.sleep(0)
            document, is_known = self._published.schema.documents.get(asked.query)
            if not is_known:
                work += max(-(-document.tokens // TOKENS_OF_POINT), len(asked.query) // CHARACTERS_OF_POINT)
            one = self._prepared(asked, document)
            prepared.append(one)
            if one.errors and not document.errors:
                work += POINTS_OF_REFUSED_VARIABLES
        return prepared, max(work, 1)

    def _prepared(self, asked: Operation, document: Document) -> Prepared:
        if document.errors:
            return Prepared(asked, document, document.errors)
        try:
            operation = document.operation(asked.name)
        except GraphQLError as error:
            return Prepared(asked, document, [error])
        errors = self._published.schema.documents.variable_errors(operation, asked.variables)
        if errors:
            return Prepared(asked, document, errors)
        cost = operation.cost.of(asked.variables)
        return Prepared(asked, document, (), cost, operation.mutations_count)

    async def answer(self, prepared: Sequence[Prepared]) -> Answer:
        """Each operation by itself, each mutation committed when it is done."""
        return self._answer(await self._answers(prepared, None))

    async def answer_whole(self, prepared: Sequence[Prepared], whole: Whole) -> Answer:
        """All operations in one transaction. Raises NotKept for an answer that may be another one the next time."""
        answers = await self._answers(prepared, whole)
        codes = {error["extensions"]["code"] for answer in answers for error in answer.get("errors", ())}
        if Code.INTERNAL in codes:
            errors = [error for answer in answers for error in answer.get("errors", ())]
            first = next(error for error in errors if error["extensions"]["code"] == Code.INTERNAL)
            message = f"{first['message']}; {NOTHING_DONE}"
            raise NotKept(self.all_refused(500, {"message": message, "extensions": first["extensions"]}))
        if whole.broken:
            raise NotKept(self.all_refused(200, _too_complex(f"the database took too long for this; {NOTHING_DONE}")))
        answer = self._answer(answers)
        if len(answer.content) > ANSWER_BYTES_MAX:
            raise NotKept(self.all_refused(200, _too_complex(too_large(answer))))
        return answer

    def all_refused(self, status: int, error: Mapping[str, Any]) -> Answer:
        """The same error for each operation."""
        if not self._is_array:
            return errors_answer(status, error)
        return Answer(status, orjson.dumps([{"errors": [error]}] * self._count))

    def _answer(self, answers: list[dict[str, Any]]) -> Answer:
        return Answer(200, orjson.dumps(answers if self._is_array else answers[0]))

    async def _answers(self, prepared: Sequence[Prepared], whole: Whole | None) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        try:
            async with Deadline() as deadline:
                for one in prepared:
                    answer = await self._one(one, whole, deadline)
                    answers.append(answer)
        except DeadlinePassed:
            if whole is not None:
                error = _too_complex(f"the request took longer than it may; {NOTHING_DONE}")
                raise NotKept(self.all_refused(200, error)) from None
            error = _too_complex(
                "the request took longer than it may: ask for less at once"
                + (
                    "; mutations before may have been carried out"
                    if any(one.mutations_count for one in prepared)
                    else ""
                )
            )
            answers += [{"data": None, "errors": [error]} for _ in prepared[len(answers) :]]
        return answers

    async def _one(self, prepared: Prepared, whole: Whole | None, deadline: Deadline) -> dict[str, Any]:
        """One operation's answer."""
        visit, asked, schema = self._visit, prepared.asked, self._published.schema
        data: Any = None
        errors: Sequence[GraphQLError] | None = prepared.errors
        if not errors:
            session = Session(visit.api.engine, visit.api.role, visit.principal, visit.request_id, whole)
            context = Context(
                visit.api.services, visit.principal, session, self._published.resources, asked.name, deadline
            )
            try:
                result = await execute(schema, prepared.document, asked.variables, context)
            finally:
                await session.close()
            data, errors = result.data, result.errors
        answer = {"data": data}
        if errors:
            about = Asked(schema.graphql_schema, prepared.document.node, asked.variables, visit.request_id)
            told = shown(errors, about)
            answer["errors"] = [one.error for one in told]
            visit.refused += refused_entries(about, asked.name, told)
        return answer


def _too_complex(message: str) -> dict[str, Any]:
    return {"message": message, "extensions": {"code": Code.QUERY_TOO_COMPLEX.value}}


def parse_body(body: bytes) -> tuple[list[Operation], bool]:
    """The operations in a body, and whether they came as an array. Raises Refused (400)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, BeforeGraphQL.MALFORMED, "the body is no JSON document in UTF-8") from error
    if isinstance(content, list):
        if not 1 <= len(content) <= OPERATIONS_MAX:
            raise Refused(400, BeforeGraphQL.MALFORMED, f"an array must have 1 to {OPERATIONS_MAX} operations")
        return [_operation(entry) for entry in content], True
    return [_operation(content)], False


def _operation(entry: Any) -> Operation:
    if not isinstance(entry, dict):
        raise Refused(
            400, BeforeGraphQL.MALFORMED, "an operation is a JSON object with `query` and, if needed, `variables`"
        )
    query, variables, name = entry.get("query"), entry.get("variables"), entry.get("operationName")
    if not isinstance(query, str):
        raise Refused(400, BeforeGraphQL.MALFORMED, "`query` must be a text")
    if not isinstance(variables, dict | None):
        raise Refused(400, BeforeGraphQL.MALFORMED, "`variables` must be an object, or left out")
    if not isinstance(name, str | None):
        raise Refused(400, BeforeGraphQL.MALFORMED, "`operationName` must be a text, or left out")
    return Operation(query, variables or {}, name or None)
