"""The changes in the body of `POST /v1/changes`: read, checked one by one, and kept as they were sent. Pure.

The JSON of an object is sliced out of the body, never taken apart and put together again: numbers keep their digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from clarion.capture.acting import storable
from clarion.capture.json_text import DATA_BYTES_MAX
from clarion.capture.names import RESOURCE
from clarion.capture.publish import OBJECT_ID_LENGTH_MAX
from clarion.core.errors import ClarionError, Code

CHANGES_MAX: Final = 1_000
PROBLEMS_MAX: Final = 20
"""How many problems one answer names; nothing is looked for beyond."""

DEPTH_MAX: Final = 100
"""Levels of objects and arrays in one object."""

TEXT_LENGTH_MAX: Final = 200
"""Characters of an actor's id and name and of a correlation id."""

ACTIONS: Final = {"CREATE": "c", "UPDATE": "u", "DELETE": "d"}
"""The actions as the body names them, in capitals, and as tables spell them."""

_NONE: Final = frozenset({"", "null"})
_SHOWN_LENGTH_MAX: Final = 100
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_STEPS: Final = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"{}[]")
_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_EXPECTED: Final = re.compile(r"Expected `(\w+)(?: \| \w+)*`, got `(\w+)`")
_KINDS: Final = {
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""How the decoder's words for what JSON has are said here."""
_NAMED: Final = re.compile(r"(unknown field|missing required field) `(.*)`$", re.DOTALL)


class BatchMalformed(ClarionError):
    """A body that holds no changes at all: the message says where its JSON, or its outermost shape, is wrong."""


class Problem(NamedTuple):
    """What is wrong with one change. `path` is what follows the change's place, as `data` or `actor.id`; empty: all of it."""

    number: int
    path: str
    message: str
    code: str = Code.INVALID_INPUT

    @property
    def field(self) -> str:
        """As errors name it: `changes.17.data`."""
        return ".".join(filter(None, ("changes", str(self.number), self.path)))


class SentChange(NamedTuple):
    """One change as it was sent. `number` is its place among the changes, from 0; `resource` is in capitals, `action` as tables
    spell it, `data` and `previous` are JSON text to the byte.
    """

    number: int
    resource: str
    action: str
    object_id: str
    data: str | None
    previous: str | None
    actor_id: str | None
    actor_name: str | None
    correlation_id: str | None

    @property
    def old(self) -> str | None:
        """The object before the change."""
        return self.data if self.action == "d" else self.previous

    @property
    def new(self) -> str | None:
        """The object after the change."""
        return None if self.action == "d" else self.data


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes that can be read, in their order, and what is wrong with the first others."""

    count: int
    changes: list[SentChange] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


_ABSENT: Final = msgspec.Raw()
"""What was left out; null is the same."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    changes: list[msgspec.Raw]


class _Actor(msgspec.Struct, forbid_unknown_fields=True):
    id: msgspec.Raw = _ABSENT
    name: str | None = None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    resource: str
    action: str
    object_id: msgspec.Raw
    data: msgspec.Raw = _ABSENT
    previous: msgspec.Raw = _ABSENT
    actor: _Actor | None = None
    correlation_id: str | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_ENTRY: Final = msgspec.json.Decoder(_Entry)
_TEXT: Final = msgspec.json.Decoder(str)


class _Refused(ValueError):
    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def read_batch(body: bytes) -> Batch:
    """The changes in a body, each as it was sent, and the first PROBLEMS_MAX of those that are none with what is wrong.

    Raises BatchMalformed for what is no JSON in UTF-8 or no object with 1 to CHANGES_MAX `changes` alone.
    """
    try:
        # The decoder does not look at the letters of what it slices out.
        body.decode()
        entries = _BODY.decode(body).changes
    except UnicodeDecodeError as error:
        raise BatchMalformed(f"the body is no JSON document in UTF-8 (byte {error.start})") from None
    except msgspec.ValidationError as error:
        path, message = _explained(error)
        raise BatchMalformed(f"the body is an object with `changes` alone; {path or 'it'}: {message}") from None
    except msgspec.DecodeError as error:
        raise BatchMalformed(f"the body is no JSON document in UTF-8: {error}") from None
    except RecursionError:
        raise BatchMalformed("the body is nested too deep") from None
    if not 1 <= len(entries) <= CHANGES_MAX:
        raise BatchMalformed(f"`changes` has {len(entries)} entries, 1 to {CHANGES_MAX} are allowed")
    batch = Batch(len(entries))
    for number, entry in enumerate(entries):
        try:
            batch.changes.append(_change(number, entry))
        except _Refused as refused:
            batch.problems.append(Problem(number, refused.path, str(refused)))
            if len(batch.problems) >= PROBLEMS_MAX:
                break
    return batch


def _change(number: int, raw: msgspec.Raw) -> SentChange:
    try:
        entry = _ENTRY.decode(raw)
    except msgspec.DecodeError as error:
        raise _Refused(*_explained(error)) from None
    resource = entry.resource.upper()
    if RESOURCE.fullmatch(resource) is None:
        raise _Refused("resource", "names no resource: capitals, digits and _, a letter first")
    action = ACTIONS.get(entry.action.upper())
    if action is None:
        raise _Refused("action", f"must be one of {', '.join(ACTIONS)}")
    data, previous = _object(entry.data, "data"), _object(entry.previous, "previous")
    if previous is not None and action != "u":
        raise _Refused("previous", "is the object before an UPDATE; leave it out")
    if data is None and action != "d":
        raise _Refused("data", "is needed: the object as it is after the change")
    key = _key(entry.object_id, "object_id", OBJECT_ID_LENGTH_MAX)
    if key is None:
        raise _Refused("object_id", "must be a text or a whole number")
    actor = entry.actor or _Actor()
    return SentChange(
        number,
        resource,
        action,
        key,
        data,
        previous,
        _key(actor.id, "actor.id", TEXT_LENGTH_MAX),
        None if actor.name is None else _text(actor.name, "actor.name", TEXT_LENGTH_MAX),
        None if entry.correlation_id is None else _text(entry.correlation_id, "correlation_id", TEXT_LENGTH_MAX),
    )


def _explained(error: Exception) -> tuple[str, str]:
    """Where in the document, and what is expected there, without anything of the document but names."""
    message = str(error)
    place = _PLACE.search(message)
    path = "" if place is None else place[1]
    message = _PLACE.sub("", message)
    expected = _EXPECTED.fullmatch(message)
    if expected is not None:
        return path, f"must be {_KINDS.get(expected[1], expected[1])}, not {_KINDS.get(expected[2], expected[2])}"
    named = _NAMED.search(message)
    if named is None:
        return path, message
    known = "is not known" if named[1] == "unknown field" else "is missing"
    return ".".join(filter(None, (path, named[2][:_SHOWN_LENGTH_MAX]))), known


def _key(raw: msgspec.Raw, path: str, length_max: int) -> str | None:
    """A text or a whole number, as text; None if there is none."""
    source = str(raw, "utf-8")
    if source in _NONE:
        return None
    if source.startswith('"'):
        return _text(_TEXT.decode(raw), path, length_max)
    if _WHOLE.fullmatch(source) is None:
        raise _Refused(path, "must be a text or a whole number")
    return _text("0" if source == "-0" else source, path, length_max)


def _text(value: str, path: str, length_max: int) -> str:
    if not 1 <= len(value) <= length_max:
        raise _Refused(path, f"has {len(value)} characters, 1 to {length_max} are allowed")
    try:
        return storable("it", value)
    except ValueError as error:
        raise _Refused(path, str(error).removeprefix("it: ")) from None


def _object(raw: msgspec.Raw, path: str) -> str | None:
    """The JSON text of an object, to the byte; None if there is none."""
    source = bytes(raw)
    if source in {b"", b"null"}:
        return None
    if not source.startswith(b"{"):
        raise _Refused(path, "must be an object")
    if len(source) > DATA_BYTES_MAX:
        raise _Refused(path, f"has {len(source)} bytes, {DATA_BYTES_MAX} are allowed")
    if is_deep(source):
        raise _Refused(path, f"is nested more than {DEPTH_MAX} deep")
    return source.decode()


def is_deep(source: bytes) -> bool:
    """Whether JSON text is nested more than DEPTH_MAX deep."""
    if source.count(b"{") + source.count(b"[") <= DEPTH_MAX:
        return False
    brackets = _STRING.sub(b"", source).translate(_STEPS, _NO_BRACKETS)
    # As signed bytes: one level in, one level out.
    return max(accumulate(memoryview(brackets).cast("b"))) > DEPTH_MAX
