"""An installed factory for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import Engine

from clarion.database.address import DatabaseAddress
from clarion.database.migrate import adopt
from clarion.factory.act import open_engine
from clarion.factory.install import install

Connection = psycopg.Connection[dict[str, Any]]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def factory_template(server: DatabaseAddress, template: str) -> str:
    """The name of a migrated database with the factory in it, which the tests' databases are copies of."""
    name = f"{template}_factory"
    with psycopg.connect(server.url, autocommit=True) as connection:
        _copy(connection, template, name)
    install(server.with_database(name))
    return name


@pytest.fixture
def factory(server: DatabaseAddress, factory_template: str) -> Iterator[DatabaseAddress]:
    """A fresh database with the factory in it, of its own incarnation."""
    with _copied(server, factory_template) as address:
        yield address


@pytest.fixture
def engine(factory: DatabaseAddress) -> Iterator[Engine]:
    """The factory's own engine on the fresh database, which tells who acts."""
    engine = open_engine(factory)
    yield engine
    engine.dispose()


@pytest.fixture
def committing(factory: DatabaseAddress) -> Iterator[Connection]:
    """A plain connection to the fresh database, in autocommit mode, with rows as dictionaries."""
    with psycopg.connect(factory.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture(scope="module")
def shared_factory(server: DatabaseAddress, factory_template: str) -> Iterator[DatabaseAddress]:
    """A database with the factory in it that all tests of a module work in."""
    with _copied(server, factory_template) as address:
        yield address


@pytest.fixture(scope="module")
def shared_engine(shared_factory: DatabaseAddress) -> Iterator[Engine]:
    """The factory's own engine on the shared database."""
    engine = open_engine(shared_factory)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared(shared_factory: DatabaseAddress) -> Iterator[Connection]:
    """A plain connection to the shared database, in autocommit mode, with rows as dictionaries."""
    with psycopg.connect(shared_factory.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def connection(shared: Connection) -> Iterator[Connection]:
    """The same connection, in a transaction that is rolled back after the test."""
    with shared.transaction(force_rollback=True):
        yield shared


@contextmanager
def _copied(server: DatabaseAddress, source: str) -> Iterator[DatabaseAddress]:
    name = f"factory_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as administering:
        _copy(administering, source, name)
        with psycopg.connect(server.with_database(name).url) as connection:
            adopt(connection)
        yield server.with_database(name)
        administering.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _copy(connection: psycopg.Connection[Any], source: str, name: str) -> None:
    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source)))
