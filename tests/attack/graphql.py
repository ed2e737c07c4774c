"""Hostile GraphQL documents: each attack with a builder of its document and the code that it is refused with.

`ATTACKS` are refused before anything is run; `WITHIN` are documents at the edge of what is allowed, which must be cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphql import get_introspection_query

BODY_BYTES_MAX = 64 * 1024
PARSED_MS_MAX = 15.0
REFUSED_MS_MAX = 5.0
ANY_MS_MAX = 60.0
"""What the worst document that is no larger than allowed may take of the processor, parsed, checked and told its errors."""
_ROOM = BODY_BYTES_MAX - 200
"""Bytes that a document may have for its body to be taken."""


@dataclass(frozen=True, slots=True)
class Attack:
    """`code` is None for a document that is allowed, or fits no schema, and must only be cheap."""

    name: str
    build: Callable[[], str]
    code: str | None = "QUERY_TOO_COMPLEX"


def repeated(unit: str, count: int, before: str = "{ ", after: str = " }") -> str:
    """The unit so many times; `%` in it stands for the number."""
    return before + " ".join(unit.replace("%", str(number)) for number in range(count)) + after


def nested(open_: str, close: str, levels: int, inner: str = "id") -> str:
    return open_ * levels + inner + close * levels


def _doubling(count: int, unit: str = "...F%") -> str:
    """Fragments of which each uses the next one twice: 2 to the power of `count` fields."""
    fragments = [
        f"fragment F{number} on Query {{ {unit.replace('%', str(number + 1))} {unit.replace('%', str(number + 1))} }}"
        for number in range(count)
    ]
    return "{ ...F0 } " + " ".join(fragments) + f" fragment F{count} on Query {{ __typename }}"


def _chain(count: int) -> str:
    fragments = [f"fragment F{number} on Query {{ ...F{number + 1} }}" for number in range(count)]
    return "{ ...F0 } " + " ".join(fragments) + f" fragment F{count} on Query {{ __typename }}"


def _lists(levels: int, first: int) -> str:
    inner = nested(f"subscriptions(first: {first}) {{ receiver {{ ", " } }", levels)
    return f"{{ webhookReceivers(first: {first}) {{ edges {{ node {{ {inner} }} }} }} }}"


def _costly_fragments() -> str:
    """Lists in fragments that are used in each other: the nodes multiply with every level."""
    fragments = [
        f"fragment R{number} on WebhookReceiver {{ subscriptions(first: 100) {{ receiver {{ ...R{number + 1} }} }} }}"
        for number in range(3)
    ]
    return (
        "{ webhookReceivers { edges { node { ...R0 } } } } "
        + " ".join(fragments)
        + " fragment R3 on WebhookReceiver { id }"
    )


def _overlapping(names: int) -> str:
    """Fields of the same name in fragments that are spread beside each other: all are compared with all."""
    fragments = [
        f"fragment F{number} on WebhookReceiver {{ " + "id name subscriptions(first: 1) { id } " * 3 + "}"
        for number in range(names)
    ]
    spreads = " ".join(f"...F{number}" for number in range(names))
    return f"{{ webhookReceivers(first: 1) {{ edges {{ node {{ {spreads} }} }} }} }} " + " ".join(fragments)


def _suggestions() -> str:
    return repeated("webhookReceiverz%", 20)


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "deep",
        lambda: "{ webhookReceivers { edges { node { " + nested("subscriptions { receiver { ", " } }", 4) + " } } } }",
    ),
    Attack(
        "deep through fragments",
        lambda: (
            "{ webhookReceivers { edges { node { ...A } } } } fragment A on WebhookReceiver { "
            "subscriptions { receiver { ...B } } } fragment B on WebhookReceiver { "
            + nested("subscriptions { receiver { ", " } }", 3)
            + " }"
        ),
    ),
    Attack("absurdly deep", lambda: nested("{a", "}", 900, "")),
    Attack(
        "deep introspection", lambda: "{ __schema { types { " + nested("fields { type { ", " } }", 8, "name") + " } } }"
    ),
    Attack("aliases", lambda: repeated("a%: __typename", 31)),
    Attack("aliases in fragments", lambda: _doubling(60, "a%: __typename ...F%")),
    Attack("one alias in fragments that double", lambda: _doubling(20).replace("{ __typename }", "{ a: __typename }")),
    Attack("root fields", lambda: repeated("__typename", 21)),
    Attack("root fields through fragments", lambda: "{ ...A ...A } fragment A on Query { " + "__typename " * 11 + "}"),
    Attack("root fields in inline fragments", lambda: repeated("... { __typename }", 21)),
    Attack("fields in fragments that double", lambda: _doubling(60)),
    Attack(
        "fields that double below the root",
        lambda: (
            "{ webhookReceivers { edges { node { ...F0 } } } } "
            + " ".join(
                f"fragment F{number} on WebhookReceiver {{ ...F{number + 1} ...F{number + 1} }}" for number in range(90)
            )
            + " fragment F90 on WebhookReceiver { id }"
        ),
    ),
    Attack("repeated field", lambda: "{ webhookReceivers { edges { node { " + "id " * 1_900 + "} } } }"),
    Attack("directives on a field", lambda: "{ __typename " + "@include(if: true) " * 5 + "}"),
    Attack("directives without end", lambda: "{ __typename " + "@a " * 900 + "}"),
    Attack(
        "directives on a spread", lambda: "{ ...A " + "@skip(if: false) " * 5 + "} fragment A on Query { __typename }"
    ),
    Attack("directives on the operation", lambda: "query " + "@a " * 900 + "{ __typename }"),
    Attack("directives on a fragment", lambda: "{ ...A } fragment A on Query " + "@a " * 900 + "{ __typename }"),
    Attack("directives on a variable", lambda: "query($a: Int " + "@a " * 900 + ") { __typename }"),
    Attack("tokens", lambda: "{ " + "__typename " * 2_000 + "}"),
    Attack("tokens up to the body's end", lambda: "{" + " a" * (_ROOM // 2) + "}"),
    Attack("comments", lambda: "{ __typename " + "#\n" * 30_000 + "}"),
    Attack("braces", lambda: "{" * _ROOM),
    Attack("brackets", lambda: "{ a(b: " + "[" * (_ROOM - 100)),
    Attack("nested lists as argument", lambda: "{ a(b: " + nested("[", "]", 900, "") + ") }"),
    Attack("nested objects as argument", lambda: "{ a(b: " + nested("{a: ", "}", 450, "1") + ") }"),
    Attack("nested inline fragments", lambda: "{ " + nested("... { ", "} ", 600, "__typename") + " }"),
    Attack("nested list types", lambda: "query($a: " + nested("[", "]", 900, "Int") + ") { __typename }"),
    Attack("fragments that are deferred", lambda: repeated("... @defer { __typename }", 300)),
    Attack("fields that are streamed", lambda: "{ webhookReceivers { edges @stream { " + "cursor " * 1_001 + "} } }"),
    Attack("operations", lambda: " ".join(f"query Q{number} {{ __typename }}" for number in range(399))),
    Attack("fragments", lambda: _chain(240)),
    Attack(
        "unused fragments",
        lambda: "{ __typename } " + " ".join(f"fragment F{number} on Query {{ a }}" for number in range(280)),
    ),
    Attack("lists in lists", lambda: _lists(3, 100)),
    Attack(
        "lists in lists by default",
        lambda: "{ webhookReceivers { edges { node { subscriptions { events { attempts { number } } } } } } }",
    ),
    Attack("lists in fragments", _costly_fragments),
    Attack(
        "lists beside each other",
        lambda: repeated("a%: webhookReceivers { edges { node { subscriptions { id } } } }", 20),
    ),
)
"""Too large, whatever the schema says."""

UNREADABLE: tuple[Attack, ...] = (
    Attack("a comment as long as the body", lambda: "{ __typename } #" + "x" * (_ROOM - 100), None),
    Attack("commas", lambda: "{" + "," * (_ROOM - 100) + "__typename }", None),
    Attack("empty lines", lambda: "{" + "\n" * (_ROOM - 100) + "nothing }", "QUERY_INVALID"),
    Attack("a string without end", lambda: '{ a(b: "' + "x" * (_ROOM - 100), "QUERY_INVALID"),
    Attack("escaped quotes without end", lambda: '{ a(b: "' + '\\"' * (_ROOM // 2 - 100), "QUERY_INVALID"),
    Attack("a block string without end", lambda: '{ a(b: """' + "x\n" * (_ROOM // 2 - 100), "QUERY_INVALID"),
    Attack("escaped blocks without end", lambda: '{ a(b: """' + '\\"""' * (_ROOM // 4 - 100), "QUERY_INVALID"),
    Attack("a string of escapes", lambda: '{ a(b: "' + "\\u0041" * (_ROOM // 6 - 100) + '") }', "QUERY_INVALID"),
    Attack("a block string of lines", lambda: '{ a(b: """' + "\n x" * (_ROOM // 3 - 100) + '""") }', "QUERY_INVALID"),
    Attack(
        "a number",
        lambda: "{ webhookReceivers(first: " + "1" * (_ROOM - 100) + ") { edges { cursor } } }",
        "INVALID_INPUT",
    ),
    Attack(
        "deferred and streamed",
        lambda: "{ ... @defer { webhookReceivers { edges @stream(initialCount: 1) { cursor } } } }",
        "QUERY_INVALID",
    ),
    Attack("a subscription", lambda: "subscription { webhookEvents { edges { cursor } } }", "QUERY_INVALID"),
    Attack("types", lambda: " ".join(f"type T{number} {{ a: Int }}" for number in range(280)), "QUERY_INVALID"),
    Attack(
        "extensions of types",
        lambda: "extend type Query { secrets: [String!]! } { webhookReceivers { id } }",
        "QUERY_INVALID",
    ),
    Attack("letters that look like others", lambda: "{ \uff57ebhookReceivers \u0435dges }", "QUERY_INVALID"),
    Attack("marks that turn the direction", lambda: "{ \u202e__typename\u202c }", "QUERY_INVALID"),
    Attack("marks of byte order", lambda: "\ufeff" * 9_000 + "{ __typename }", None),
    Attack("half a character", lambda: '{ webhookReceiver(id: "\\ud800") { id } }', "QUERY_INVALID"),
    Attack("a character beyond all", lambda: '{ webhookReceiver(id: "\\u{110000}") { id } }', "QUERY_INVALID"),
    Attack("an alias of the system's", lambda: "{ __proto__: __typename }", None),
    Attack("a name", lambda: "{ " + "a" * (_ROOM - 100) + " }", "QUERY_INVALID"),
    Attack("names of nothing", _suggestions, "QUERY_INVALID"),
    Attack("a long name of nothing", lambda: repeated("webhookReceiver" * 200 + "%", 20), "QUERY_INVALID"),
    Attack(
        "enum values of nothing",
        lambda: "{ webhookReceivers(sort: [" + repeated("CREATED_ASK%", 1_900, "", "") + "]) { edges { cursor } } }",
        "QUERY_INVALID",
    ),
    Attack(
        "cycle of fragments",
        lambda: "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "QUERY_INVALID",
    ),
    Attack("long cycle of fragments", lambda: _chain(95).replace("{ __typename }", "{ ...F0 }"), "QUERY_INVALID"),
    Attack(
        "unknown arguments",
        lambda: "{ webhookReceivers(" + repeated("firsd%: 1", 600, "", "") + ") { edges { cursor } } }",
        "QUERY_INVALID",
    ),
    Attack(
        "repeated arguments",
        lambda: "{ webhookReceivers(" + "first: 1 " * 600 + ") { edges { cursor } } }",
        "QUERY_INVALID",
    ),
    Attack("repeated variables", lambda: "query(" + "$a: Int " * 480 + ") { __typename }", "QUERY_INVALID"),
    Attack(
        "unused variables", lambda: "query(" + repeated("$a%: Int", 480, "", "") + ") { __typename }", "QUERY_INVALID"
    ),
    Attack(
        "fields of an input that is none",
        lambda: "{ webhookReceivers(filters: {" + repeated("namf%: 1", 600, "", "") + "}) { edges { cursor } } }",
        "QUERY_INVALID",
    ),
)
"""No larger than allowed by themselves, and no good; they must be cheap to find out."""

WITHIN: tuple[Attack, ...] = (
    Attack(
        "a field 1,000 times but few",
        lambda: "{ webhookReceivers { edges { node { " + "id " * 990 + "} } } }",
        "QUERY_TOO_COMPLEX",
    ),
    Attack(
        "as many different fields as there are",
        lambda: (
            "{ webhookReceivers(first: 1) { edges { node { "
            + "id name webhookUri active created updated " * 12
            + "} } } }"
        ),
        None,
    ),
    Attack(
        "the whole schema",
        get_introspection_query,
        None,
    ),
    Attack(
        "the whole schema as often as there is room",
        lambda: (
            repeated("a%: __schema { types { ...T } }", 20)
            + " fragment T on __Type { name fields { name args { name type { name ofType { name } } } type { name } } }"
        ),
        "QUERY_TOO_COMPLEX",
    ),
    Attack("overlapping fragments", lambda: _overlapping(60), "QUERY_TOO_COMPLEX"),
    Attack("a few overlapping fragments", lambda: _overlapping(10), None),
    Attack(
        "operations that share fragments",
        lambda: (
            " ".join(f"query Q{number} {{ ...F0 }}" for number in range(50))
            + " "
            + _chain(90).removeprefix("{ ...F0 } ")
        ),
        "QUERY_INVALID",
    ),
    Attack(
        "variables used through fragments",
        lambda: (
            "query("
            + repeated("$a%: Int", 100, "", "")
            + ") { ...F0 } "
            + " ".join(
                f"fragment F{number} on Query {{ webhookReceivers(first: $a{number}) {{ edges {{ cursor }} }} ...F{number + 1} }}"
                for number in range(18)
            )
            + " fragment F18 on Query { __typename }"
        ),
        "QUERY_INVALID",
    ),
    Attack(
        "thirty aliases of one fragment",
        lambda: (
            "{ webhookReceivers(first: 1) { edges { node { "
            + repeated("a%: subscriptions(first: 1) { ...S }", 30, "", "")
            + " } } } } fragment S on WebhookSubscription { "
            + "id resource action active created " * 6
            + "}"
        ),
        None,
    ),
    Attack(
        "values of a list",
        lambda: "{ webhookReceivers(filters: {name: {in: [" + '"a" ' * 1_900 + "]}}) { edges { cursor } } }",
        "INVALID_INPUT",
    ),
)
"""At the edge; the code is that of the first error, None where it is answered."""
