"""What was refused goes into the history: who asked for what, from where, and with which code they were told no.

Written after the answer's outcome is known, in a short transaction of its own, as the API's role in the organisation of
whoever asked. Nothing that was sent is written but ids, which are numbers, and names that the schema has: all else may be
a secret, also in a place where none belongs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLSchema,
    InlineFragmentNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from clarion.access import history
from clarion.access.authentication import refused_key
from clarion.access.history import Entry
from clarion.access.principal import Origin, Principal
from clarion.api.errors import Asked, Shown
from clarion.api.inputs import decimal_key
from clarion.api.session import Session, acting
from clarion.core.clock import Clock
from clarion.core.errors import BeforeGraphQL, Code

_log = logging.getLogger(__name__)

WRITTEN_PER_MINUTE = 60
"""Refusals of one client that are written one by one; the rest of the minute is counted and written as one entry."""

MANY = "manyRequests"
"""The action of the entry that stands for the refusals that were counted, those for want of points included."""

_MINUTE_NS = 60_000_000_000
_LOOK_EVERY_S = 5
_WRITE_S_MAX = 1.0
_WRITES_AT_ONCE = 2
_MESSAGE_LENGTH_MAX = 1_000
_ROOTS_MAX = 60

_OF_MUTATIONS = frozenset(
    {
        Code.FORBIDDEN,
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.INVALID_INPUT,
        Code.ADDRESS_NOT_ALLOWED,
        Code.RATE_LIMITED,
    }
)
_OF_QUERIES = frozenset({Code.FORBIDDEN})
_OBJECT = re.compile(r"^[a-z]+(?=[A-Z])")


def refused_entries(request: Asked, operation_name: str | None, told: Sequence[Shown]) -> list[Entry]:
    """The entries for the errors that one operation was answered with: the refused mutations, and what was forbidden.

    An error that is repeated, as for each row of a list, makes one entry. One without a path refused every root field.
    """
    codes = {one.error["extensions"]["code"] for one in told}
    if codes.isdisjoint(_OF_MUTATIONS):
        return []
    asked = _Operation.read(request, operation_name)
    if asked is None:
        return []
    recorded = _OF_MUTATIONS if asked.is_mutation else _OF_QUERIES
    found: dict[tuple[object, ...], Entry] = {}
    for one in told:
        code, path = one.error["extensions"]["code"], one.error.get("path")
        if code not in recorded:
            continue
        for key, root in asked.roots.items():
            if not path or path[0] == key:
                entry = asked.entry(root, code, one)
                if entry is not None:
                    found.setdefault((entry.action, entry.object_id, entry.refusal, entry.message), entry)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Operation:
    """The operation of a request: its root fields by the name that they have in the answer."""

    schema: GraphQLSchema
    variables: Mapping[str, Any]
    is_mutation: bool
    roots: Mapping[str, FieldNode]

    @classmethod
    def read(cls, request: Asked, operation_name: str | None) -> _Operation | None:
        """The operation that was asked for; None where the document has none."""
        document = request.document
        if document is None:
            return None
        for node in document.definitions:
            if isinstance(node, OperationDefinitionNode) and operation_name in {None, node.name and node.name.value}:
                roots: dict[str, FieldNode] = {}
                for one in _fields(document, node.selection_set, frozenset()):
                    if len(roots) < _ROOTS_MAX:
                        roots.setdefault((one.alias or one.name).value, one)
                return cls(request.schema, request.variables, node.operation is OperationType.MUTATION, roots)
        return None

    def entry(self, root: FieldNode, code: str, told: Shown) -> Entry | None:
        """The refusal of one root field, with the names of the inputs that were given. None for one that there is not."""
        definition = self._definition(root)
        if definition is None:
            return None
        arguments = {argument.name.value: argument.value for argument in root.arguments or ()}
        names = dict.fromkeys(self._names(definition, arguments))
        field = _known_input(definition, told.error["extensions"].get("field", ""))
        after = ({"given": list(names)} if names else {}) | ({"field": field} if field else {})
        key = self._text(arguments.get("id")) or self._text(self._member(arguments.get("input"), "id"))
        return Entry(
            action=root.name.value,
            object_type=self._object_type(root.name.value, definition),
            object_id=key if key is not None and decimal_key(key) is not None else "",
            after=after or None,
            refusal=code,
            message=storable(told.recorded),
        )

    def _definition(self, root: FieldNode) -> GraphQLField | None:
        type_ = self.schema.mutation_type if self.is_mutation else self.schema.query_type
        return None if type_ is None else type_.fields.get(root.name.value)

    def _object_type(self, name: str, definition: GraphQLField) -> str:
        """`WebhookReceiver` of `createWebhookReceiver`, and of `webhookReceivers`, which has it in its result's type."""
        return (
            _OBJECT.sub("", name)
            if self.is_mutation
            else get_named_type(definition.type).name.removesuffix("Connection")
        )

    def _names(self, definition: GraphQLField, arguments: Mapping[str, ValueNode]) -> Iterator[str]:
        """Names of arguments and of the members of `input`: only such as the schema has, for others are the caller's text."""
        for name, value in arguments.items():
            type_ = get_named_type(definition.args[name].type) if name in definition.args else None
            if isinstance(type_, GraphQLInputObjectType):
                yield from (f"{name}.{member}" for member in self._members(value) if member in type_.fields)
            elif type_ is not None:
                yield name

    def _members(self, value: ValueNode) -> list[str]:
        if isinstance(value, ObjectValueNode):
            return [one.name.value for one in value.fields]
        given = self.variables.get(value.name.value) if isinstance(value, VariableNode) else None
        return list(given) if isinstance(given, dict) else []

    def _member(self, value: ValueNode | None, name: str) -> ValueNode | object:
        if isinstance(value, ObjectValueNode):
            return next((one.value for one in value.fields if one.name.value == name), None)
        given = self.variables.get(value.name.value) if isinstance(value, VariableNode) else None
        return given.get(name) if isinstance(given, dict) else None

    def _text(self, value: ValueNode | object) -> str | None:
        if isinstance(value, VariableNode):
            value = self.variables.get(value.name.value)
        elif isinstance(value, ValueNode) and not isinstance(value, ListValueNode | ObjectValueNode):
            value = getattr(value, "value", None)
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _fields(document: DocumentNode, selections: SelectionSetNode, seen: frozenset[str]) -> Iterator[FieldNode]:
    """The fields of a selection, those of its fragments included."""
    for selection in selections.selections:
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, InlineFragmentNode):
            yield from _fields(document, selection.selection_set, seen)
        elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
            name = selection.name.value
            for node in document.definitions:
                if isinstance(node, FragmentDefinitionNode) and node.name.value == name:
                    yield from _fields(document, node.selection_set, seen | {name})


def _known_input(definition: GraphQLField, path: str) -> str:
    """As much of an input's path as the schema has names for, places in lists included; empty if it is none of the field's."""
    name, *members = path.split(".")
    if name not in definition.args:
        return ""
    type_, known = definition.args[name].type, [name]
    for member in members:
        inner = get_nullable_type(type_)
        if isinstance(inner, GraphQLInputObjectType) and member in inner.fields:
            type_ = inner.fields[member].type
        elif isinstance(inner, GraphQLList) and member.isdigit():
            type_ = inner.of_type
        else:
            break
        known.append(member)
    return ".".join(known)


def storable(message: str) -> str:
    """A message as the database can hold it, at most 1,000 characters of it."""
    plain = message.replace("\x00", "").encode("utf-8", "replace").decode()
    return plain if len(plain) <= _MESSAGE_LENGTH_MAX else plain[: _MESSAGE_LENGTH_MAX - 1] + "…"


@dataclass(slots=True)
class _Minute:
    """One client's refusals since `began_ns`: how many were written, and by action and code how many were only counted."""

    principal: Principal
    began_ns: int
    written: int = 0
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, entries: Sequence[Entry]) -> None:
        self.counted.update((entry.action, entry.refusal or "") for entry in entries)

    def summary(self) -> Entry:
        codes: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        for (action, code), times in self.counted.items():
            codes[code] += times
            actions[action] += times
        total = codes.total()
        return Entry(
            action=MANY,
            object_type="Client",
            object_id=str(self.principal.client_id),
            after={"count": total, "codes": dict(codes), "actions": dict(actions)},
            refusal=codes.most_common(1)[0][0],
            message=f"{total} requests were refused within a minute that were counted, not written one by one",
        )


class Refusals:
    """Writes refusals into the history, within bounds: 60 a minute for each client one by one, the rest as a count.

    What cannot be written in a second is counted, too, and no answer waits longer or fails because of it. A request for
    which a client has no points is only counted: refusing it must cost less than carrying it out.
    """

    def __init__(self, engine: AsyncEngine, role: str, clock: Clock) -> None:
        self._engine = engine
        self._role = role
        self._clock = clock
        self._minutes: dict[int, _Minute] = {}
        self._writing = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._unknown_keys_count = 0
        self._unknown_told_ns: int | None = None

    async def record(self, principal: Principal, entries: Sequence[Entry]) -> None:
        """Write what one request of this client was refused, or count it."""
        if not entries:
            return
        minute = self._minutes.get(principal.client_id)
        if minute is not None and self._ended(minute):
            await self._end(minute)
            minute = self._minutes.get(principal.client_id)
        if minute is None:
            minute = self._begun(principal)
        left = max(WRITTEN_PER_MINUTE - minute.written, 0)
        minute.count(entries[left:])
        written = entries[:left]
        minute.written += len(written)
        if written and not await self._write(principal, written):
            minute.count(written)
            self._minutes.setdefault(principal.client_id, minute)

    def count(self, principal: Principal, action: str, code: str) -> None:
        """Count what a client was refused; it is written when the client's minute is over, with all else that was counted."""
        minute = self._minutes.get(principal.client_id) or self._begun(principal)
        minute.counted[action, code] += 1

    async def record_key(self, hashed: bytes, origin: Origin) -> None:
        """Write that a key was refused which is known but of no use any more. One that nobody has is only counted."""
        try:
            async with asyncio.timeout(_WRITE_S_MAX), acting(self._engine, self._role) as connection:
                found = await refused_key(connection, hashed)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.error("request %s: a refused key was not looked up: %s", origin.request_id, type(error).__name__)
            return
        if found is None:
            self._count_unknown()
            return
        key_id = found.principal.origin.api_key_id
        principal = replace(found.principal, origin=replace(origin, api_key_id=key_id))
        entry = Entry(
            action="authenticate",
            object_type="ApiKey",
            object_id=str(key_id),
            refusal=BeforeGraphQL.UNAUTHENTICATED,
            message=found.reason,
        )
        await self.record(principal, [entry])

    async def follow(self) -> None:
        """Write the counts of minutes that are over, until cancelled; then those that are not over."""
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                await self.write_counts()
        finally:
            await self.write_counts(all_of_them=True)

    async def write_counts(self, *, all_of_them: bool = False) -> None:
        """One entry for each client whose minute is over and had more refusals than are written one by one."""
        for minute in list(self._minutes.values()):
            if all_of_them or self._ended(minute):
                await self._end(minute)

    def _begun(self, principal: Principal) -> _Minute:
        minute = self._minutes[principal.client_id] = _Minute(principal, self._clock.monotonic_ns())
        return minute

    def _ended(self, minute: _Minute) -> bool:
        return self._clock.monotonic_ns() - minute.began_ns >= _MINUTE_NS

    async def _end(self, minute: _Minute) -> None:
        if self._minutes.get(minute.principal.client_id) is not minute:
            return
        del self._minutes[minute.principal.client_id]
        if minute.counted and not await self._write(minute.principal, [minute.summary()]):
            # Kept for the next minute.
            later = self._minutes.get(minute.principal.client_id) or self._begun(minute.principal)
            later.counted.update(minute.counted)

    async def _write(self, principal: Principal, entries: Sequence[Entry]) -> bool:
        """Whether the entries were committed."""
        session = Session(self._engine, self._role, principal, principal.origin.request_id or "")
        try:
            async with asyncio.timeout(_WRITE_S_MAX), self._writing, session.writing() as connection:
                await history.record(connection, principal, entries)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.error(
                "request %s: %d refusals of client %s are counted, not written: %s",
                principal.origin.request_id,
                len(entries),
                principal.client_id,
                type(error).__name__,
            )
            return False
        return True

    def _count_unknown(self) -> None:
        """Tell the log of unknown keys, once a minute at most."""
        self._unknown_keys_count += 1
        now_ns = self._clock.monotonic_ns()
        if self._unknown_told_ns is None or now_ns - self._unknown_told_ns >= _MINUTE_NS:
            _log.warning("%d requests came with an unknown API key since this was last told", self._unknown_keys_count)
            self._unknown_keys_count = 0
            self._unknown_told_ns = now_ns
