"""`POST /v1/changes`: applications that are not on this PostgreSQL publish what changed. All of a request, or none of it.

docs/reference/publish-over-http.md has the body, the answers, and what to do with each.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import orjson

from clarion.access.history import Entry
from clarion.api.answers import Answer, Refused, errors_answer
from clarion.api.gate import Api, Visit
from clarion.api.idempotency import NotKept
from clarion.api.refusals import storable
from clarion.api.schema import Published
from clarion.api.session import Session, Whole
from clarion.capture.batch import PROBLEMS_MAX, Batch, BatchMalformed, Problem, read_batch
from clarion.core.errors import BeforeGraphQL, Code, StoreUnavailable
from clarion.registry.json_schema import CompiledSchema, DataRefused, compile_schema
from clarion.registry.publishing import HeldByOthers, ResourceChanged, publish
from clarion.registry.resources import Resource, by_name

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
BODIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of bodies that are under way in one process."""

ORGANISATION_BYTES_MAX: Final = 24 * 1024 * 1024
"""The same of one organisation."""

OBJECTS_LOCKED_MAX: Final = 2_000
"""Objects that this process locks at once: the server's table of locks is everybody's."""

_CHANGES_OF_POINT: Final = 10
_BYTES_OF_POINT: Final = 64 * 1024
_TRIES_MAX: Final = 4
_SCHEMAS_CACHED: Final = 200
_LOOKS_AT_ONCE: Final = 500_000
"""After so many looks of JSON Schemas others get their turn."""

_STATUSES: Final = {Code.FORBIDDEN: 403, Code.NOT_FOUND: 404, Code.INVALID_INPUT: 422}
"""By the code of a refused change; of several the first that stands here."""


class Publishing:
    """What the requests of one process share: compiled schemas, and bounds on what is under way."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._bodies = _Bodies()
        self._objects = _Room(OBJECTS_LOCKED_MAX)
        self._schemas: OrderedDict[str, CompiledSchema] = OrderedDict()
        self._published: Published | None = None
        self._by_name: Mapping[str, Resource] = {}

    async def answer(self, visit: Visit) -> Answer:
        """The answer to one request. Raises Refused."""
        with self._bodies.holding(visit):
            body = await visit.body(BODY_BYTES_MAX)
            visit.charge(len(body) // _BYTES_OF_POINT)
            try:
                batch = read_batch(body)
            except BatchMalformed as error:
                raise Refused(400, BeforeGraphQL.MALFORMED, error.message) from None
            visit.charge(batch.count // _CHANGES_OF_POINT)
            key = visit.idempotency_key
            objects = len({(change.resource, change.object_id) for change in batch.changes})
            async with self._objects.taking(objects):
                if key is None:
                    return await self._carry_out(visit, batch, None)
                return await visit.once(key, body, lambda whole: self._kept(visit, batch, whole))

    async def _kept(self, visit: Visit, batch: Batch, whole: Whole) -> Answer:
        """The answer, to be stored if something was done. Raises NotKept for a refusal: it may be another one the next time."""
        answer = await self._carry_out(visit, batch, whole)
        if answer.status != 200:
            raise NotKept(answer)
        return answer

    async def _carry_out(self, visit: Visit, batch: Batch, whole: Whole | None) -> Answer:
        if len(batch.problems) >= PROBLEMS_MAX:
            return _refusal(visit, batch.problems)
        for _ in range(_TRIES_MAX):
            resources = self._names()
            problems = await self._problems(visit, batch, resources)
            if problems:
                # It may be the knowledge that is old, not the changes that are bad.
                if await self._is_news():
                    continue
                return _refusal(visit, problems)
            named = {change.resource: resources[change.resource] for change in batch.changes}
            etags: dict[str, str] = {resource.name: resource.etag for resource in named.values()}
            changes = batch.changes
            if named.keys() != etags.keys():
                changes = [change._replace(resource=named[change.resource].name) for change in changes]
            session = Session(self._api.engine, self._api.role, visit.principal, visit.request_id, whole)
            try:
                async with session.writing() as connection:
                    await publish(connection, visit.principal, changes, etags, visit.request_id)
                return Answer(200, orjson.dumps({"accepted": batch.count, "correlation_id": visit.request_id}))
            except ResourceChanged:
                await self._is_news()
            except HeldByOthers:
                continue
            finally:
                await session.close()
        raise Refused(
            503,
            BeforeGraphQL.BUSY,
            "what these changes are about is being published or changed by others; nothing was done: try again",
        )

    async def _is_news(self) -> bool:
        """Look what resources there are now; whether they differ from what was known. Raises Refused (503)."""
        before = self._names()
        try:
            await self._api.source.refresh()
        except StoreUnavailable:
            raise Refused(503, Code.INTERNAL, "the database cannot be reached: try again") from None
        return self._names() != before

    def _names(self) -> Mapping[str, Resource]:
        """Resources by all names that they go by. Raises Refused (503)."""
        published = self._api.source.published
        if published is None:
            raise Refused(503, Code.INTERNAL, "the API is starting: try again")
        if published is not self._published:
            self._published = published
            self._by_name = by_name(published.resources)
        return self._by_name

    async def _problems(self, visit: Visit, batch: Batch, resources: Mapping[str, Resource]) -> list[Problem]:
        """The first problems by place: those that reading found, and what is wrong with the others."""
        problems = list(batch.problems)
        named = {change.resource for change in batch.changes}
        refused = {name: why for name in named if (why := _unpublishable(visit, resources.get(name))) is not None}
        schemas = {
            name: self._schema(resource.etag, resource.json_schema)
            for name in named - refused.keys()
            if (resource := resources[name]).json_schema is not None
        }
        looks = 0
        for change in batch.changes if refused or schemas else ():
            if len(problems) >= PROBLEMS_MAX:
                break
            if change.resource in refused:
                problems.append(Problem(change.number, "resource", *refused[change.resource]))
            elif change.resource in schemas and change.data is not None:
                schema = schemas[change.resource]
                looks += schema.work(change.data)
                try:
                    schema.check(change.data)
                except DataRefused as error:
                    path = f"data.{error.path}" if error.path else "data"
                    problems.append(Problem(change.number, path, str(error)))
                if looks > _LOOKS_AT_ONCE:
                    looks = 0
                    await asyncio.sleep(0)
        return sorted(problems)[:PROBLEMS_MAX]

    def _schema(self, etag: str, text: str) -> CompiledSchema:
        schema = self._schemas.get(etag)
        if schema is None:
            schema = self._schemas[etag] = compile_schema(text)
            if len(self._schemas) > _SCHEMAS_CACHED:
                self._schemas.popitem(last=False)
        self._schemas.move_to_end(etag)
        return schema


def _unpublishable(visit: Visit, resource: Resource | None) -> tuple[str, Code] | None:
    """Why the client may not publish the resource, and the code of that; None if it may."""
    principal = visit.principal
    if resource is None or resource.organisation_id not in {None, principal.organisation_id}:
        return "there is no such resource", Code.NOT_FOUND
    if not principal.may_publish(resource.name):
        message = f"client {principal.name!r} may not publish {resource.name}; ask an administrator of the organisation"
        return message, Code.FORBIDDEN
    if not resource.published:
        return f"{resource.name} is a table: its changes are captured where its rows are written", Code.INVALID_INPUT
    return None


def _refusal(visit: Visit, problems: Sequence[Problem]) -> Answer:
    codes = {problem.code for problem in problems}
    code, status = next((code, status) for code, status in _STATUSES.items() if code in codes)
    messages = dict.fromkeys(problem.message for problem in problems if problem.code == code)
    # What is wrong with data may repeat some of it.
    message = (
        f"{len(problems)} problems in the changes that were sent" if code == Code.INVALID_INPUT else "; ".join(messages)
    )
    visit.refused.append(Entry("publishChanges", "Change", "", refusal=code, message=storable(message)))
    errors: list[dict[str, Any]] = [
        {"message": problem.message, "extensions": {"code": problem.code, "field": problem.field}}
        for problem in problems
    ]
    return errors_answer(status, *errors)


class _Bodies:
    """The bodies that are under way: what each may take is put aside before it is read."""

    def __init__(self) -> None:
        self._bytes = 0
        self._by_organisation: Counter[int] = Counter()

    @contextmanager
    def holding(self, visit: Visit) -> Iterator[None]:
        """Raises Refused (503) when too much is under way."""
        length = visit.request.headers.get("content-length", "")
        size = min(int(length), BODY_BYTES_MAX) if length.isdigit() else BODY_BYTES_MAX
        organisation = visit.principal.organisation_id
        if self._bytes + size > BODIES_BYTES_MAX or self._by_organisation[organisation] + size > ORGANISATION_BYTES_MAX:
            raise Refused(
                503, BeforeGraphQL.BUSY, "too many bytes of changes are under way; nothing was done: try again"
            )
        self._bytes += size
        self._by_organisation[organisation] += size
        try:
            yield
        finally:
            self._bytes -= size
            self._by_organisation[organisation] -= size
            if not self._by_organisation[organisation]:
                del self._by_organisation[organisation]


class _Room:
    """So much of something at once; who comes first is served first."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def taking(self, count: int) -> AsyncIterator[None]:
        """`count` of it, at most its size, until the block ends."""
        async with self._turn:
            while self._free < count:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= count
        try:
            yield
        finally:
            self._free += count
            self._given_back.set()
