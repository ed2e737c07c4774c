from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from clarion.core.errors import EnvironmentRefused, StoreUnavailable
from clarion.database.address import DatabaseAddress
from clarion.factory.install import install, installed
from clarion.factory.resources import RESOURCES
from clarion.factory.simulate import Simulator

Connection = psycopg.Connection[dict[str, Any]]

# Objects whose identity shows whether something was made again.
FINGERPRINT = """
    SELECT (SELECT array_agg(xmin::text || ctid::text ORDER BY oid) FROM pg_trigger
            WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'factory'::regnamespace)) AS triggers,
           (SELECT array_agg(xmin::text ORDER BY oid) FROM pg_proc
            WHERE pronamespace = 'factory'::regnamespace) AS functions,
           (SELECT array_agg(xmin::text ORDER BY id) FROM clarion.resources) AS resources,
           (SELECT version FROM clarion.configuration) AS configuration,
           (SELECT count(*) FROM factory.parts) AS parts, (SELECT count(*) FROM factory.steps) AS steps
"""


def test_a_second_installation_changes_nothing(database: DatabaseAddress) -> None:
    assert not installed(database)
    assert install(database)
    assert installed(database)
    with psycopg.connect(database.url, autocommit=True) as connection:
        before = connection.execute(FINGERPRINT).fetchone()
        assert not install(database)
        assert connection.execute(FINGERPRINT).fetchone() == before


def test_master_data_was_there_before_the_tables_were_attached(committing: Connection) -> None:
    counts = committing.execute(
        """SELECT (SELECT count(*) FROM clarion.outbox) AS changes,
                  (SELECT count(*) FROM factory.locations WHERE type = 'workcenter') AS workcenters,
                  (SELECT count(*) FROM factory.procedures WHERE status = 'released') AS procedures,
                  (SELECT count(*) FROM factory.steps WHERE location_id IS NULL) AS steps_nowhere,
                  (SELECT count(*) FROM factory.mbom_item) AS items,
                  (SELECT count(*) FROM factory.suppliers) AS suppliers"""
    ).fetchone()
    assert counts is not None
    assert counts["changes"] == counts["steps_nowhere"] == 0
    assert counts["workcenters"] >= 5
    assert counts["procedures"] >= 3
    assert counts["items"] >= 10
    assert counts["suppliers"] >= 3


def test_two_installations_at_once_make_one_factory(database: DatabaseAddress) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(install(database))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == [False, True]


def test_an_installation_beside_a_working_factory_disturbs_nobody(engine: Engine, factory: DatabaseAddress) -> None:
    stop = threading.Event()
    simulator = Simulator(engine, Random(4))
    working = threading.Thread(target=simulator.run, args=(500, 60, stop))
    working.start()
    try:
        for _ in range(5):
            assert not install(factory)
    finally:
        stop.set()
        working.join(10)
    assert not working.is_alive()


def test_what_was_taken_away_is_put_back(factory: DatabaseAddress, committing: Connection) -> None:
    committing.execute('ALTER TABLE factory.runs DISABLE TRIGGER "!clarion_capture"')
    assert not installed(factory)
    assert install(factory)
    committing.execute("INSERT INTO factory.runs (title) VALUES ('x')")
    assert committing.execute("SELECT resource FROM clarion.outbox").fetchall() == [{"resource": "RUNS"}]


def test_an_emptied_factory_is_not_sown_again_while_it_stands(factory: DatabaseAddress, committing: Connection) -> None:
    committing.execute("DELETE FROM factory.suppliers")
    assert not install(factory)
    assert committing.execute("SELECT count(*) AS n FROM factory.suppliers").fetchone() == {"n": 0}


def test_a_new_version_of_the_roll_ups_replaces_the_old_one(factory: DatabaseAddress, committing: Connection) -> None:
    committing.execute("INSERT INTO factory.runs (title) VALUES ('kept')")
    committing.execute("COMMENT ON SCHEMA factory IS 'an older one'")
    committing.execute("DROP TRIGGER roll_up_insert ON factory.run_steps")
    assert install(factory)
    committing.execute("INSERT INTO factory.run_steps (run_id, title, status) VALUES (1, 'x', 'hold')")
    assert committing.execute("SELECT title, status FROM factory.runs").fetchall() == [
        {"title": "kept", "status": "hold"}
    ]
    assert committing.execute("SELECT count(*) AS n FROM factory.users").fetchone() == {"n": 8}


def test_all_resources_belong_to_organisation_default(committing: Connection) -> None:
    rows = committing.execute(
        """SELECT count(*) AS n FROM clarion.resources AS r JOIN clarion.organisations AS o ON o.id = r.organisation_id
           WHERE r.schema_name = 'factory' AND o.name = 'default'"""
    ).fetchall()
    assert rows == [{"n": len(RESOURCES)}]


def test_a_database_without_the_right_to_create_is_refused_with_what_is_missing(
    make_database: Callable[..., DatabaseAddress], server: DatabaseAddress
) -> None:
    address = make_database(migrated=False)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS factory_poor")
        connection.execute("CREATE ROLE factory_poor LOGIN")
    try:
        with pytest.raises(EnvironmentRefused, match="permission denied for database") as refused:
            install(address.with_user("factory_poor"))
        assert "CREATE on the database" in refused.value.hint
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP ROLE factory_poor")


def test_a_server_that_is_not_there_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = DatabaseAddress.of_socket(str(tmp_path_factory.mktemp("nowhere")), "postgres", "postgres")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        install(nowhere)
