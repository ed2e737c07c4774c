"""Every GraphQL document that a command sends fits the schema."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
from graphql import GraphQLSchema, build_schema, parse, validate

import clarion.cli

SCHEMA = Path(__file__).resolve().parents[2] / "schema.graphql"
AGAIN = "query Again($e0: ID!) { e0: webhookEvent(id: $e0) { ...Shown } }"


def _documents() -> dict[str, str]:
    """By module and name; commands import nothing heavy, so that all can be loaded."""
    found = {}
    for module in pkgutil.iter_modules(clarion.cli.__path__, "clarion.cli."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and value.strip().startswith(("query ", "mutation ", "{ ")) and "{" in value:
                found[f"{module.name.removeprefix('clarion.cli.')}.{name}"] = value
    return found


DOCUMENTS = _documents()


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema(SCHEMA.read_text())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_fits_the_schema(schema: GraphQLSchema, name: str) -> None:
    assert validate(schema, parse(DOCUMENTS[name])) == []


def test_the_document_that_watching_makes_fits_the_schema(schema: GraphQLSchema) -> None:
    assert validate(schema, parse(AGAIN + importlib.import_module("clarion.cli.watch")._FIELDS)) == []
    assert len(DOCUMENTS) >= 30
