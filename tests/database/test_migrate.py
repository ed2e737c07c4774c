from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from clarion.core.errors import EnvironmentRefused
from clarion.database import migrate as migration
from clarion.database.address import DatabaseAddress
from clarion.database.migrate import HEAD, adopt, assert_migrated, identity_mismatch, migrate
from clarion.database.roles import Roles, read_roles, role_names

pytestmark = pytest.mark.data_path


@pytest.fixture
def empty(make_database: Callable[..., DatabaseAddress], server: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """An empty database; the roles that a migration makes for it are dropped afterwards."""
    address = make_database(migrated=False)
    yield address
    _drop_roles(server, [*astuple(role_names(address.database or ""))], address)


@pytest.fixture
def login(server: DatabaseAddress, empty: DatabaseAddress) -> Iterator[Callable[[str], DatabaseAddress]]:
    """Makes a login with the given attributes; the address of the empty database under it comes back."""
    made = []

    def make(attributes: str) -> DatabaseAddress:
        name = f"login_{empty.database}_{len(made)}"
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN " + attributes).format(sql.Identifier(name)))
        made.append(name)
        return empty.with_user(name)

    yield make
    _drop_roles(server, made, empty)


def _drop_roles(server: DatabaseAddress, names: list[str], used_in: DatabaseAddress) -> None:
    for address in (used_in, server):
        with psycopg.connect(address.url, autocommit=True) as connection:
            for name in names:
                exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
                if exists:
                    connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
    with psycopg.connect(server.url, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def _execute(address: DatabaseAddress, statement: str) -> None:
    with psycopg.connect(address.url, autocommit=True) as connection:
        connection.execute(statement)


def _value(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def test_head_is_the_newest_revision() -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(migration._MIGRATIONS))
    assert ScriptDirectory.from_config(configuration).get_heads() == [HEAD]


def test_migrating_again_changes_nothing(empty: DatabaseAddress) -> None:
    lines: list[str] = []
    migrate(empty, progress=lines.append)
    assert any(HEAD in line for line in lines)
    with psycopg.connect(empty.url) as connection:
        before = _value(connection, "SELECT row_to_json(d)::text FROM clarion.deployment d")
    migrate(empty, progress=lines.append)
    assert_migrated(empty)
    with psycopg.connect(empty.url) as connection:
        assert _value(connection, "SELECT row_to_json(d)::text FROM clarion.deployment d") == before


def test_two_migrations_at_once_agree(empty: DatabaseAddress) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_migrated(empty)


def test_deployment_says_which_life_of_which_database(empty: DatabaseAddress) -> None:
    migrate(empty)
    with psycopg.connect(empty.url) as connection:
        incarnation = _value(connection, "SELECT incarnation FROM clarion.deployment")
        assert re.fullmatch("[a-z2-7]{10}", incarnation)
        assert identity_mismatch(connection) is None
        assert adopt(connection) != incarnation


def test_everything_belongs_to_the_owner_role_and_nothing_to_the_public(empty: DatabaseAddress) -> None:
    migrate(empty)
    with psycopg.connect(empty.url) as connection:
        roles = read_roles(connection)
        assert roles == role_names(empty.database or "")
        owners = connection.execute(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'clarion'::regnamespace "
            "UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'clarion'"
        ).fetchall()
        assert owners == [(roles.owner,)]
        public = connection.execute(
            "SELECT table_name FROM information_schema.table_privileges "
            "WHERE table_schema = 'clarion' AND grantee = 'PUBLIC'"
        ).fetchall()
        assert public == []
        can_login = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND (rolcanlogin OR rolsuper)"
        assert connection.execute(can_login, [list(astuple(roles))]).fetchall() == []


def test_copy_of_a_database_is_noticed_until_adopted(
    server: DatabaseAddress, database: DatabaseAddress, make_database: Callable[..., DatabaseAddress]
) -> None:
    copy = make_database(migrated=False)
    with psycopg.connect(server.url, autocommit=True) as connection:
        names = [sql.Identifier(address.database or "") for address in (copy, database)]
        connection.execute(sql.SQL("DROP DATABASE {}").format(names[0]))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    with psycopg.connect(copy.url) as connection:
        assert identity_mismatch(connection) == "the database is a copy made on the same server"
        adopt(connection)
        assert identity_mismatch(connection) is None
        connection.execute("UPDATE clarion.deployment SET timeline = 7")
        assert "from timeline 7 to 1" in str(identity_mismatch(connection))
        connection.execute("UPDATE clarion.deployment SET system_identifier = '1'")
        assert "another server" in str(identity_mismatch(connection))


def test_unmigrated_database_is_refused_with_the_command(empty: DatabaseAddress) -> None:
    with pytest.raises(EnvironmentRefused, match="no Clarion schema.*clarion migrate"):
        assert_migrated(empty)


def test_newer_schema_is_refused(database: DatabaseAddress) -> None:
    _execute(database, "UPDATE clarion.alembic_version SET version_num = '9999_from_the_future'")
    for refused_by in (assert_migrated, migrate):
        with pytest.raises(EnvironmentRefused, match="9999_from_the_future.*newer"):
            refused_by(database)


def test_foreign_schema_of_the_same_name_is_left_alone(empty: DatabaseAddress) -> None:
    _execute(empty, "CREATE SCHEMA clarion CREATE TABLE somebody_elses (x integer)")
    with pytest.raises(EnvironmentRefused, match="not Clarion's"):
        migrate(empty)


def test_missing_right_to_make_the_schema_names_the_grant(login: Callable[[str], DatabaseAddress]) -> None:
    address = login("CREATEROLE")
    with pytest.raises(EnvironmentRefused, match='GRANT CREATE ON DATABASE "test_[0-9]+" TO "login_test_'):
        migrate(address)
    with psycopg.connect(address.url) as connection:
        assert _value(connection, "SELECT count(*) FROM pg_roles WHERE rolname LIKE current_database()") == 0


def test_login_that_may_create_roles_migrates_and_uses_them(
    empty: DatabaseAddress, login: Callable[[str], DatabaseAddress]
) -> None:
    address = login("CREATEROLE")
    name = psycopg.conninfo.conninfo_to_dict(address.url)["user"]
    _execute(empty, f'GRANT CREATE ON DATABASE "{empty.database}" TO "{name}"')
    migrate(address)
    assert_migrated(address)
    with psycopg.connect(address.url) as connection:
        assert read_roles(connection) == role_names(empty.database or "")
        for role in astuple(read_roles(connection)):
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
            connection.execute("RESET ROLE")
        assert identity_mismatch(connection) is None
        adopt(connection)


def test_login_without_the_roles_is_told_the_grant(
    empty: DatabaseAddress, login: Callable[[str], DatabaseAddress]
) -> None:
    migrate(empty)
    address = login("")
    grant = 'GRANT "clarion_owner_test_[0-9]+".* TO "login_test_'
    for refused_by in (assert_migrated, migrate):
        with pytest.raises(EnvironmentRefused, match=grant) as refused:
            refused_by(address)
    _execute(empty, refused.value.hint)
    assert_migrated(address)
    migrate(address)


def _organisation_rows(connection: psycopg.Connection[Any], organisation: str) -> list[tuple[Any, ...]]:
    connection.execute("SELECT set_config('clarion.organisation_id', %s, true)", [organisation])
    return connection.execute("SELECT name FROM clarion.clients ORDER BY name").fetchall()


def test_single_role_still_keeps_organisations_apart(
    empty: DatabaseAddress, login: Callable[[str], DatabaseAddress]
) -> None:
    address = login("")
    name = psycopg.conninfo.conninfo_to_dict(address.url)["user"]
    _execute(empty, f'GRANT CREATE ON DATABASE "{empty.database}" TO "{name}"')
    lines: list[str] = []
    migrate(address, progress=lines.append)
    assert any(line.startswith("warning: ") and "CREATEROLE" in line for line in lines)
    assert_migrated(address)
    with psycopg.connect(address.url) as connection:
        assert read_roles(connection) == Roles.same(str(name))
        connection.execute("INSERT INTO clarion.organisations (name) VALUES ('one'), ('two')")
        connection.execute(
            "INSERT INTO clarion.clients (organisation_id, name, kind, role) "
            "SELECT id, 'client of ' || name, 'MACHINE', 'AUDITOR' FROM clarion.organisations"
        )
        assert len(_organisation_rows(connection, "")) == 2
        first = str(_value(connection, "SELECT id FROM clarion.organisations WHERE name = 'one'"))
        assert _organisation_rows(connection, first) == [("client of one",)]
        assert connection.execute("SELECT name FROM clarion.organisations").fetchall() == [("one",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(
                "INSERT INTO clarion.clients (organisation_id, name, kind, role) VALUES (-1, 'x', 'MACHINE', 'AUDITOR')"
            )


def test_single_role_lets_the_deployments_own_organisation_make_others(
    empty: DatabaseAddress, login: Callable[[str], DatabaseAddress]
) -> None:
    address = login("")
    name = psycopg.conninfo.conninfo_to_dict(address.url)["user"]
    _execute(empty, f'GRANT CREATE ON DATABASE "{empty.database}" TO "{name}"')
    migrate(address)
    make = "SELECT * FROM clarion.create_organisation('made', 'boss', 'clk_00000000', sha256('key'), 'admin')"
    with psycopg.connect(address.url) as connection:
        connection.execute("INSERT INTO clarion.organisations (name) VALUES ('default'), ('other')")
        ids = {name: str(key) for name, key in connection.execute("SELECT name, id FROM clarion.organisations")}
        _organisation_rows(connection, ids["other"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(make)
        assert _organisation_rows(connection, ids["default"]) == []
        assert len(connection.execute(make).fetchall()) == 1
        assert connection.execute(make).fetchall() == []
        seen = connection.execute("SELECT name FROM clarion.organisations ORDER BY name").fetchall()
        assert seen == [("default",), ("made",), ("other",)]
        assert connection.execute("SELECT name FROM clarion.clients").fetchall() == []
        # When keys were last used is written without an organisation.
        _organisation_rows(connection, "")
        connection.execute(
            "SELECT clarion.note_keys_used(ARRAY(SELECT id FROM clarion.api_keys), ARRAY[60000]::bigint[])"
        )
        assert connection.execute(
            "SELECT last_used BETWEEN now() - interval '70 s' AND now() - interval '50 s' FROM clarion.api_keys"
        ).fetchall() == [(True,)]


def test_api_role_sees_only_the_organisation_it_named(database: DatabaseAddress) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO clarion.organisations (name) VALUES ('one'), ('two')")
        connection.execute(
            "INSERT INTO clarion.clients (organisation_id, name, kind, role) "
            "SELECT id, 'client of ' || name, 'MACHINE', 'AUDITOR' "
            "FROM clarion.organisations WHERE name IN ('one', 'two')"
        )
        second = str(_value(connection, "SELECT id FROM clarion.organisations WHERE name = 'two'"))
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(read_roles(connection).api)))
        assert _organisation_rows(connection, "") == []
        assert _organisation_rows(connection, second) == [("client of two",)]


def test_role_names_fit_and_differ() -> None:
    names = ["a" * 80, "a" * 80 + "b", "plain", 'it\'s 100% "odd"', "ünïcode", "it-s"]
    made = [role for name in names for role in astuple(role_names(name))]
    assert len(set(made)) == len(made)
    assert all(len(role.encode()) <= 63 and re.fullmatch("[A-Za-z0-9_-]+", role) for role in made)
