"""A refusal in the history holds nothing that the caller sent: not a value, not a name that the schema has not.

Secrets get into every place: pasted into the wrong input, unquoted, as a key, as an alias, into a header.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLSchema,
    get_nullable_type,
    is_required_input_field,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attack.isolation import schema_of
from clarion.access.principal import Role
from harness.api import Caller

SECRET = "an Enum 'never' in another place"
"""Stands in every input that is a secret, in every request. No answer repeats it, whatever else is wrong."""

SECRET_INPUTS = {"sharedSecret", "value", "clientPrivateKey"}


class Raw(str):
    """A text that goes into a document as it is: a name, or something that is none."""

    __slots__ = ()


def example(type_: GraphQLInputType, name: str) -> Any:
    """A value that fits the type, with all of an object's members."""
    type_ = get_nullable_type(type_)
    if name in SECRET_INPUTS:
        return SECRET
    if isinstance(type_, GraphQLList):
        return [example(type_.of_type, name)]
    if isinstance(type_, GraphQLInputObjectType):
        return {
            member: example(field.type, member)
            for member, field in type_.fields.items()
            if is_required_input_field(field) or member in SECRET_INPUTS | {"headers", "condition", "jsonSchema"}
        }
    if isinstance(type_, GraphQLEnumType):
        return Raw(next(iter(type_.values)))
    return {
        "Int": 1,
        "BigInt": 1,
        "Boolean": True,
        "JSON": {"type": "object"},
        "DateTime": "2027-01-01T00:00:00Z",
    }.get(type_.name, "1")


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, step))


def put(value: Any, path: tuple[str | int, ...], make: Callable[[Any], Any]) -> Any:
    """The value with what `make` makes of its part at `path`."""
    if not path:
        return make(value)
    if isinstance(value, list):
        return [put(one, path[1:], make) if index == path[0] else one for index, one in enumerate(value)]
    return {name: put(one, path[1:], make) if name == path[0] else one for name, one in value.items()}


def literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(re.sub(r"\W", "_", name) + f": {literal(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return str(value) if isinstance(value, Raw) else json.dumps(value)


def arguments_of(mutation: GraphQLField) -> Any:
    return {key: example(argument.type, key) for key, argument in mutation.args.items()}


def spots(mutations: dict[str, GraphQLField]) -> list[tuple[str, tuple[str | int, ...]]]:
    """Every place in every mutation's arguments, those that are alike once."""
    found = {}
    for name, mutation in sorted(mutations.items()):
        for path in places(arguments_of(mutation)):
            alike = (str(mutation.args["input"].type) if path == ("input",) else "", path[-1:])
            found.setdefault(alike, (name, path))
    return [spot for spot in found.values() if spot[1]]


MARKERS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=12, max_size=20).map("zq{}".format)
AROUND = (
    *(
        "{}",
        " {}",
        "{}:x",
        "{}\x00",
        "https://{}/",
        "https://u:{}@h.example/",
        "https://h.example:{}/",
        "{}://h.example/",
    ),
    *("object.{} == 1", "{}(object)", "object.x == '{}", "whsec_{}", "10.0.0.0/{}", "-----BEGIN CERTIFICATE-----\n{}"),
    *("webhook-{}", "text/{}; x", "#/{}", "{}" * 20, " Enum '{}", "x found: {}"),
)
CHANGES: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "a text": lambda text: lambda _: text,
    "a name": lambda text: lambda _: Raw(re.sub(r"\W", "_", f"x{text}")),
    "a list": lambda text: lambda value: [value, text],
    "an object": lambda text: lambda value: {"x": value, "y": text},
    "a further member": lambda text: lambda value: {**value, text: 1} if isinstance(value, dict) else [value, text],
    "a reference": lambda text: lambda _: {"$ref": text, "type": text},
    "no comma, no colon": lambda text: lambda value: Raw(f"{json.dumps(text)} {literal(value)}"),
}
FRAMES = (
    *("mutation {{ {call} }}", "mutation {{ {m}: {call} }}", "mutation {m} {{ {call} }}", "mutation {{ {call} @{m} }}"),
    *("mutation {{ {call} ...{m} }}", "mutation {{ {call} {m}(input: 1) {{ {m} }} }}", "mutation {{ {call} }} # {m}"),
    *("mutation(${m}: ID!) {{ {call} }}", "mutation($x: {m}!) {{ {call} }}", 'mutation {{ {call} }} "{m}"'),
    'mutation {{ {call} deleteWebhookReceiver(id: "{m}", etag: "{m}") {{ id }} }}',
    "mutation {{ {m} createApiKey(input: {{clientId: 1, expires: {m}}}) {{ __typename }} }}",
    "mutation {{ ...{m} }} fragment {m} on Mutation {{ {call} }}",
)
HEADERS = ("idempotency-key", "x-request-id", "user-agent", "traceparent", "x-forwarded-for", "origin", "referer")


def operation(mutations: dict[str, GraphQLField], marker: str, text: str, random: Random) -> dict[str, Any]:
    """One entry of a request, which has the marker in one place or several."""
    name, path = random.choice(spots(mutations))
    arguments = arguments_of(mutations[name])
    frame = random.choice(FRAMES[:1] * len(FRAMES) + FRAMES)
    selection = random.choice(["{ __typename }"] * 9 + [f"{{ {marker} }}"])
    if frame is FRAMES[0]:
        arguments = put(arguments, path, CHANGES[random.choice(sorted(CHANGES))](text))
    variables: dict[str, Any] = {marker: marker}
    if frame is FRAMES[0] and random.random() < 0.5:
        given = {f"{random.choice(['x', marker])}{number}": key for number, key in enumerate(arguments)}
        declared = ", ".join(f"${variable}: {mutations[name].args[key].type}" for variable, key in given.items())
        used = ", ".join(f"{key}: ${variable}" for variable, key in given.items())
        query = f"mutation({declared}) {{ {name}({used}) {selection} }}"
        variables = {variable: arguments[key] for variable, key in given.items()}
    else:
        used = ", ".join(f"{key}: {literal(value)}" for key, value in arguments.items())
        query = frame.format(call=f"{name}({used}) {selection}", m=marker)
    return {"query": query, "variables": variables} | random.choice([{}] * 19 + [{"operationName": marker}])


@st.composite
def requests(draw: st.DrawFn, mutations: dict[str, GraphQLField]) -> tuple[str, list[dict[str, Any]], dict[str, str]]:
    """A marker, and the operations and headers of a request that has it everywhere."""
    marker, around = draw(MARKERS), draw(st.sampled_from(AROUND))
    # What Hypothesis draws itself repeats the simplest too often for so many choices.
    random = draw(st.randoms(use_true_random=True))
    text = around.replace("{}", marker)
    sent = [operation(mutations, marker, text, random) for _ in range(10)]
    return marker, sent, {random.choice(HEADERS): re.sub(r"[\n\x00]", "", text)}


@pytest.fixture
def schema(administrator: Caller) -> GraphQLSchema:
    return schema_of(administrator)


def test_a_marker_put_anywhere_into_a_request_never_stands_in_a_refusal_and_no_secret_in_an_answer(
    administrator: Caller,
    schema: GraphQLSchema,
    make_receiver: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clarion.api.refusals.WRITTEN_PER_MINUTE", 1_000_000)
    assert schema.mutation_type is not None
    # A test waits for a worker, and none runs here.
    mutations = {name: field for name, field in schema.mutation_type.fields.items() if name != "testWebhookReceiver"}
    make_receiver(administrator)
    callers = [administrator] * 9 + [administrator.of("default", Role.AUDITOR)]
    codes: Counter[str] = Counter()
    with psycopg.connect(administrator.database.url, autocommit=True) as connection:
        connection.execute("DELETE FROM clarion.history")

        @settings(
            max_examples=80,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(requests(mutations), st.sampled_from(callers))
        def ask(request: tuple[str, list[dict[str, Any]], dict[str, str]], caller: Caller) -> None:
            marker, sent, headers = request
            body = caller.send(json.dumps(sent).encode(), **headers).body
            answers = body if isinstance(body, list) else [body]  # not so where the header is refused
            said = [error["message"] for answer in answers if "errors" in answer for error in answer["errors"]]
            assert SECRET not in str(said), (sent, said)
            rows = connection.execute(
                "DELETE FROM clarion.history RETURNING refusal, to_jsonb(history)::text"
            ).fetchall()
            for code, row in rows:
                if code is not None:
                    codes[code] += 1
                    assert marker not in row.lower() and SECRET not in row, (sent, row)

        ask()
    assert {code for code, count in codes.items() if count > 5} >= {"INVALID_INPUT", "FORBIDDEN", "NOT_FOUND"}, codes


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("sharedSecrets: 1", "not to include unknown field 'sharedSecrets'. Did you mean 'sharedSecret'?"),
        (
            "ordering: PER_OBJEC",
            "Value 'PER_OBJEC' does not exist in 'WebhookOrdering' enum. Did you mean the enum value 'PER_OBJECT'?",
        ),
    ],
)
def test_an_answer_says_what_may_have_been_meant_and_repeats_no_secret_that_stands_beside_the_mistake(
    mistake: str, said: str, administrator: Caller
) -> None:
    answer = administrator(
        f'mutation {{ createWebhookReceiver(input: {{name: "a", sharedSecret: "{SECRET}", webhookUri: "u", {mistake}}}) '
        "{ __typename } }"
    )
    assert answer.error["message"].endswith(said)
    assert SECRET not in answer.text
