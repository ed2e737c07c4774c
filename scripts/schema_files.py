"""schema.graphql and docs/reference/api.md: made from the code, kept in the repository, compared by a test.

The schema is that of a deployment with the reference factory: only the values of `ResourceEnum` differ elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    NullValueNode,
    build_schema,
    find_breaking_changes,
    get_named_type,
    is_required_argument,
    is_required_input_field,
    lexicographic_sort_schema,
    print_ast,
    print_schema,
    specified_scalar_types,
)
from graphql.utilities.get_default_value_ast import get_default_value_ast

from clarion.access.principal import PERMISSIONS
from clarion.api.schema import build_schema as schema_of_resources
from clarion.capture.attachment import OWN_RESOURCES
from clarion.core.ids import ResourceName
from clarion.factory.resources import RESOURCES
from clarion.registry.resources import Resource

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "schema.graphql"
REFERENCE = ROOT / "docs/reference/api.md"

ION = """mutation CreateWebhookReceiver($input: CreateWebhookReceiverInput!) {
  createWebhookReceiver(input: $input) {
    webhookReceiver {
      id name description webhookUri sharedSecret contentType expectedResponseCode
      active subscriptions { resource action id } headers { key value id }
    }
  }
}
# {"input": {"name": "Our example server", "webhookUri": "https://whoknows.where.this.leads"}}

mutation CreateWebhookSubscription($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) {
    webhookSubscription { resource action id active receiverId events { id status } }
  }
}
# {"input": {"receiverId": 1, "resource": "RUNS", "action": "CREATE"}}

{ webhookReceivers { edges { node { sharedSecret id webhookUri _etag name } } } }

{ webhookSubscriptions { edges { node {
    id action resource createdBy { id name } receiver { id description name webhookUri } } } } }
"""

AS_IN_ION = {"createWebhookReceiver", "createWebhookSubscription", "webhookReceivers", "webhookSubscriptions"}

HEAD = """# API reference

Made by `scripts/schema` from the code; the same as text for tools is in [schema.graphql](../../schema.graphql). What clients
send and get, and how errors look, is in [errors.md](errors.md).

Send `POST /graphql` with `content-type: application/json` and `Authorization: Bearer <API key>`. Everything belongs to the
organisation of the key; what belongs to another looks as if it did not exist. `!` marks what is never null, or must be given.

Lists are pages: `edges { node cursor } pageInfo { hasNextPage endCursor totalCount }`, with `first` and `after` forwards, `last`
and `before` backwards, 100 entries at most and by default. Filters compare by `eq`, `neq` and `in`; all that are given must hold.
Every object that can be changed has an `_etag`, which a change sends back as `etag`: CONFLICT says that somebody was faster.

Operations marked *as in ION* run as they are written there:

```graphql
"""


def schema() -> GraphQLSchema:
    """The schema of a deployment with the reference factory, everything in alphabetical order."""
    own = [as_registered(one.resource, one.singular, one.description) for one in OWN_RESOURCES]
    factory = [as_registered(one.name, one.singular, one.description) for one in RESOURCES]
    registered = sorted((*own, *factory), key=lambda one: one.name)
    # By way of its text: the library sorts no enum whose values are Python's.
    return lexicographic_sort_schema(build_schema(schema_of_resources(registered).as_str()))


def as_registered(name: str, singular: str | None, description: str) -> Resource:
    """A resource as the schema needs it, which looks at its names alone."""
    never = datetime.fromtimestamp(0, UTC)
    return Resource(0, ResourceName(name), singular, description, False, None, None, "", never, never)


def breaking(before: str, after: GraphQLSchema) -> list[str]:
    """What in `after` breaks clients that were written against the text `before`, a sentence each."""
    return sorted(change.description for change in find_breaking_changes(build_schema(before), after))


def reference(described: GraphQLSchema) -> Iterator[str]:
    """The lines of the reference."""
    yield from (HEAD + ION + "```").splitlines()
    yield from ("", "## Roles", "", "| role | may |", "|---|---|")
    for role, permissions in PERMISSIONS.items():
        yield f"| {role} | {', '.join(f'`{one}`' for one in sorted(permissions))} |"
    for title, kind, root in (
        ("Queries", "query", described.query_type),
        ("Mutations", "mutation", described.mutation_type),
    ):
        yield from ("", f"## {title}")
        for name, field in (root.fields if root else {}).items():
            yield from operation(kind, name, field)
    roots = {described.query_type, described.mutation_type}
    types = [one for name, one in described.type_map.items() if not name.startswith("__") and one not in roots]
    for title, wanted in (
        ("Objects", GraphQLObjectType | GraphQLInterfaceType),
        ("Inputs", GraphQLInputObjectType),
        ("Enums", GraphQLEnumType),
        ("Scalars", GraphQLScalarType),
    ):
        yield from ("", f"## {title}")
        for one in types:
            if isinstance(one, wanted) and one.name not in specified_scalar_types:
                yield from ("", f"### {one.name}", "", one.description or "")
                yield from members(one)


def operation(kind: str, name: str, field: GraphQLField) -> Iterator[str]:
    """One query or mutation."""
    yield from ("", f"### {kind} {name}", "")
    if name in AS_IN_ION:
        yield from ("*As in ION.*", "")
    yield field.description or ""
    yield from ("", f"Answers {link(field.type)}.")
    if field.args:
        yield from table("argument", field.args)


def members(kind: object) -> Iterator[str]:
    """A type's fields or values."""
    match kind:
        case GraphQLObjectType() | GraphQLInterfaceType():
            yield from ("", "| field | type | |", "|---|---|---|")
            for name, field in kind.fields.items():
                given = ", ".join(f"`{one}{default(argument)}`" for one, argument in field.args.items())
                shown = f"`{name}`" + (f" ({given})" if given else "")
                yield f"| {shown} | {link(field.type)} | {cell(field.description)}{deprecation(field.deprecation_reason)} |"
        case GraphQLInputObjectType():
            yield from table("field", kind.fields)
        case GraphQLEnumType():
            yield from ("", "| value | |", "|---|---|")
            for name, value in kind.values.items():
                yield f"| `{name}` | {cell(value.description)}{deprecation(value.deprecation_reason)} |"


def table(what: str, inputs: dict[str, GraphQLArgument] | dict[str, GraphQLInputField]) -> Iterator[str]:
    """Arguments, or fields of an input: those that must be given first."""
    yield from ("", f"| {what} | type | default | |", "|---|---|---|---|")

    def needed(one: GraphQLArgument | GraphQLInputField) -> bool:
        return is_required_argument(one) if isinstance(one, GraphQLArgument) else is_required_input_field(one)

    for name, one in sorted(inputs.items(), key=lambda entry: not needed(entry[1])):
        value = "required" if needed(one) else f"`{default(one)[3:]}`" if default(one) else ""
        yield f"| `{name}` | {link(one.type)} | {value} | {cell(one.description)}{deprecation(one.deprecation_reason)} |"


def default(one: GraphQLArgument | GraphQLInputField) -> str:
    """The default value with its sign, empty if there is none or it is null."""
    node = get_default_value_ast(one)
    return "" if node is None or isinstance(node, NullValueNode) else f" = {print_ast(node)}"


def link(kind: object) -> str:
    """A type's name as a link to where it is described."""
    name = get_named_type(kind).name
    text = f"`{kind}`"
    return text if name in specified_scalar_types else f"[{text}](#{name.lower()})"


def deprecation(reason: str | None) -> str:
    return f" **Deprecated**: {reason}" if reason else ""


def cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def written(lines: Iterable[str]) -> str:
    """The text of a file."""
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write both files, or with `--check` compare them. 1 if they differ or if a change would break clients."""
    made = schema()
    files = {SCHEMA: written([print_schema(made)]), REFERENCE: written(reference(made))}
    before = SCHEMA.read_text() if SCHEMA.exists() else files[SCHEMA]
    breaks = breaking(before, made)
    if breaks and "--accept-breaking" not in arguments:
        print("These changes break clients that were written against schema.graphql:")
        print("\n".join(f"  - {one}" for one in breaks))
        print(
            "Keep what was there, deprecated if need be. If it must go, say so in the changelog and run "
            "scripts/schema --accept-breaking."
        )
        return 1
    if "--check" not in arguments:
        for path, text in files.items():
            path.write_text(text)
        return 0
    differs = False
    for path, text in files.items():
        was = path.read_text() if path.exists() else ""
        name = str(path.relative_to(ROOT))
        for line in unified_diff(was.splitlines(), text.splitlines(), name, "code", lineterm="", n=1):
            print(line)
            differs = True
    if differs:
        print("The files are not as the code is: run scripts/schema.")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
