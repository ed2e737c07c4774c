"""The schema as a whole: described, alike everywhere, the same as the files that clients are written against."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_list_type,
    is_required_argument,
    is_required_input_field,
)

from clarion.access.principal import Role
from clarion.api.nodes import FINDERS
from clarion.api.permissions import OPERATIONS
from clarion.api.schema import build_schema
from harness.api import Caller

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> ModuleType:
    specification = importlib.util.spec_from_file_location("schema_files", ROOT / "scripts/schema_files.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schema(files: ModuleType) -> GraphQLSchema:
    return build_schema([files.as_registered("RUNS", "RUN", "Runs.")]).graphql_schema


def test_everything_is_described(schema: GraphQLSchema) -> None:
    missing = []
    for name, kind in schema.type_map.items():
        if name.startswith("__"):
            continue
        described = {name: kind.description}
        if isinstance(kind, GraphQLEnumType):
            described |= {f"{name}.{value}": one.description for value, one in kind.values.items()}
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            for field_name, field in kind.fields.items():
                described[f"{name}.{field_name}"] = field.description
                for argument, one in field.args.items() if isinstance(field, GraphQLField) else ():
                    described[f"{name}.{field_name}({argument})"] = one.description
        missing += [place for place, text in described.items() if not (text or "").strip(" .")]
    assert missing == [], "say what these mean: where they stand, or in clarion.api.common_descriptions"


def test_every_type_with_an_id_of_its_own_is_found_by_node(schema: GraphQLSchema) -> None:
    node = schema.get_type("Node")
    assert isinstance(node, GraphQLInterfaceType)
    assert {one.name for one in schema.get_possible_types(node)} == set(FINDERS)


def test_every_object_that_can_be_changed_says_when_and_by_whom(schema: GraphQLSchema) -> None:
    wanted = {"id", "_etag", "created", "updated", "createdBy", "updatedBy"}
    changeable = [
        kind
        for name, kind in schema.type_map.items()
        if isinstance(kind, GraphQLObjectType) and f"Update{name}Input" in schema.type_map
    ]
    assert {"WebhookReceiver", "WebhookSubscription", "WebhookHeader", "Resource"} <= {kind.name for kind in changeable}
    assert {kind.name: wanted - set(kind.fields) for kind in changeable if not wanted <= set(kind.fields)} == {}


def test_every_update_takes_the_etag_under_both_names(schema: GraphQLSchema) -> None:
    for name, kind in schema.type_map.items():
        if isinstance(kind, GraphQLInputObjectType) and name.startswith("Update"):
            assert {"id", "etag", "_etag"} <= set(kind.fields), name


def test_all_lists_are_alike(schema: GraphQLSchema) -> None:
    assert schema.query_type is not None
    lists = {
        name: field
        for name, field in schema.query_type.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
    }
    assert {"webhookReceivers", "webhookSubscriptions", "webhookEvents", "changes"} <= set(lists)
    for name, field in lists.items():
        assert {"first", "after", "last", "before"} <= set(field.args), name
        if "filters" in field.args:
            filters = get_named_type(field.args["filters"].type)
            assert isinstance(filters, GraphQLInputObjectType)
            operators = {
                operator
                for one in filters.fields.values()
                if isinstance(one.type, GraphQLInputObjectType)
                for operator in one.type.fields
            }
            assert operators <= {"eq", "neq", "in", "gte", "lt"}, name
        if "sort" in field.args:
            values = get_named_type(field.args["sort"].type)
            assert isinstance(values, GraphQLEnumType)
            assert all(value.endswith(("_ASC", "_DESC")) for value in values.values), name
        connection = get_named_type(field.type)
        assert isinstance(connection, GraphQLObjectType)
        assert set(connection.fields) == {"edges", "pageInfo"}, name


def test_every_mutation_needs_a_permission_and_is_refused_without_it(
    schema: GraphQLSchema, administrator: Caller
) -> None:
    assert schema.mutation_type is not None
    mutations = schema.mutation_type.fields
    assert sorted(set(mutations) - set(OPERATIONS)) == [], "say in clarion.api.permissions what these need"
    auditor = administrator.of("default", Role.AUDITOR)
    for name, field in mutations.items():
        assert f"`{OPERATIONS[name]}`" in (field.description or "")
        given = ", ".join(f"{key}: {value(one.type)}" for key, one in field.args.items() if is_required_argument(one))
        answer = auditor(f"mutation {{ {name}({given}) {{ __typename }} }}")
        assert answer.refusal == ("FORBIDDEN", None), (name, answer.body)
        assert str(OPERATIONS[name]) in answer.error["message"]


def value(kind: object) -> str:
    """A literal that a type takes."""
    if isinstance(kind, GraphQLNonNull):
        return value(kind.of_type)
    if is_list_type(kind):
        return "[]"
    if isinstance(kind, GraphQLInputObjectType):
        fields = (f"{name}: {value(one.type)}" for name, one in kind.fields.items() if is_required_input_field(one))
        return f"{{{', '.join(fields)}}}"
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    return {"Int": "1", "BigInt": "1", "Boolean": "true"}.get(str(kind), '"1"')


def test_the_files_that_clients_are_written_against_are_as_the_code_is(
    files: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert files.main(["--check"]) == 0, capsys.readouterr()


def test_a_change_that_breaks_clients_is_named_and_not_written(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (ROOT / "schema.graphql").read_text().replace("type Query {", "type Query {\n  former: String\n", 1)
    for name in ("SCHEMA", "REFERENCE"):
        monkeypatch.setattr(files, name, tmp_path / name)
        (tmp_path / name).write_text(before)
    assert files.main([]) == files.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "Query.former was removed" in said
    assert "scripts/schema --accept-breaking" in said
    assert files.SCHEMA.read_text() == before
    assert files.main(["--accept-breaking"]) == 0
    assert files.SCHEMA.read_text() == (ROOT / "schema.graphql").read_text()
