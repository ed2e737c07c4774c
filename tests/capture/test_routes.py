"""Nothing silences capture unseen: each way around it, with the guard and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from capture.routes import ALWAYS, ROUTES, Fate, Route, prepare, take
from clarion.capture import guard
from clarion.capture.doctor import inspect
from clarion.database.address import DatabaseAddress
from clarion.database.migrate import adopt

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def guarded_database(server: DatabaseAddress, template: str) -> Iterator[DatabaseAddress]:
    """A migrated database with the guard, for all tests of this module."""
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE guarded TEMPLATE {template}".encode())
        address = server.with_database("guarded")
        with psycopg.connect(address.url, autocommit=True) as connection:
            adopt(connection)
            guard.turn_on(connection)
        yield address
        administrator.execute("DROP DATABASE guarded WITH (FORCE)")


@contextmanager
def _rolled_back(address: DatabaseAddress) -> Iterator[Connection]:
    with psycopg.connect(address.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        yield opened


@pytest.fixture(scope="module", params=["guarded", "unguarded"])
def prepared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    """With the guard or without; a superuser's session after `prepare`, inside a transaction that is rolled back.

    One after the other: both make the same role, and roles belong to the whole server.
    """
    address = request.getfixturevalue("guarded_database" if request.param == "guarded" else "shared_database")
    with _rolled_back(address) as opened:
        prepare(opened)
        yield request.param, opened


def _named(route: Route) -> str:
    return route.name


@pytest.mark.parametrize("route", ROUTES, ids=_named)
def test_each_way_around_capture_ends_as_expected(prepared: tuple[str, Connection], route: Route) -> None:
    how, connection = prepared
    _check(connection, route, route.guarded if how == "guarded" else route.unguarded)


def _check(connection: Connection, route: Route, expected: Fate) -> None:
    if connection.info.server_version < route.version_min * 10000:
        pytest.skip(f"PostgreSQL {route.version_min} and newer")
    ended = take(connection, route)
    assert ended.fate is expected, ended
    if expected is Fate.CAPTURED:
        assert ended.captured == route.captured
    if expected in (Fate.DETECTED, Fate.INFORMATION):
        assert route.code in ended.codes


def test_before_any_route_is_gone_nothing_is_wrong(prepared: tuple[str, Connection]) -> None:
    """Otherwise the routes would be found out by what was there before."""
    how, connection = prepared
    found = {(one.code, one.subject) for one in inspect(connection)}
    assert found == ALWAYS - ({("GUARD_OFF", "guard")} if how == "guarded" else set())
