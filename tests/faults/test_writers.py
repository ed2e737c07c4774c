"""What the application's writers can do to order and completeness."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import psycopg
import pytest

from clarion.capture.attach import Attachment
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path


def test_contending_writers_lose_nothing_and_keep_each_objects_order(deployment: Deployment) -> None:
    """12 writers, 20 hot objects, 1 to 3 of them a transaction, pauses in between, a fifth rolled back."""
    deployment.attach()
    deployment.subscribe(deployment.register())
    deployment.subscribe(deployment.register())
    with deployment.connection.transaction():
        deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 20)")
    serve = deployment.serve()
    versions: Counter[int] = Counter(dict.fromkeys(range(1, 21), 1))
    lock = threading.Lock()
    stop_at = time.monotonic() + 6

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with psycopg.connect(deployment.database.url) as connection:
            while time.monotonic() < stop_at:
                # In one order, as applications do that want no deadlocks.
                chosen = sorted(dice.sample(range(1, 21), dice.randint(1, 3)))
                for item in chosen:
                    connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                    time.sleep(dice.uniform(0, 0.004))
                if dice.random() < 0.2:
                    connection.rollback()
                    continue
                connection.commit()
                with lock:
                    versions.update(chosen)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    deployment.wait_until_settled()
    serve.stop()
    assert sum(versions.values()) > 500
    deployment.check(committed_versions=dict(versions))


def test_a_rolled_back_change_is_never_sent(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register())
    deployment.serve()
    with psycopg.connect(deployment.database.url) as connection:
        connection.execute("INSERT INTO items (note) VALUES ('never')")
        with connection.transaction():
            connection.execute("INSERT INTO items (note) VALUES ('never either')")
        connection.rollback()
        connection.execute("INSERT INTO items (note) VALUES ('kept')")
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE items SET note = 'undone'")
        connection.commit()
    deployment.receiver.wait_for(1)
    deployment.wait_until_settled()
    assert [request.json()["data"]["note"] for request in deployment.receiver.received()] == ["kept"]
    assert deployment.rows("SELECT change_id, new::json ->> 'note' FROM clarion.ledger WHERE resource = 'ITEMS'") == [
        (deployment.rows("SELECT max(change_id) FROM clarion.ledger")[0][0], "kept")
    ]


@pytest.mark.parametrize("trigger", ["  before ours", "zz after ours"])
def test_a_row_that_its_own_trigger_updates_again_keeps_its_order(deployment: Deployment, trigger: str) -> None:
    """Whichever trigger fires first: the nested update happened after the one that caused it."""
    deployment.connection.execute(
        """CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               IF NEW.version % 3 <> 0 THEN UPDATE items SET version = version + 1 WHERE id = NEW.id; END IF;
               RETURN NULL;
           END $$"""
    )
    deployment.connection.execute(
        psycopg.sql.SQL(
            "CREATE TRIGGER {} AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION again()"
        ).format(psycopg.sql.Identifier(trigger))
    )
    deployment.attach()
    deployment.subscribe(deployment.register())
    # More rows than a batch takes, so that batches cut the transaction in the middle of an object's changes.
    with deployment.connection.transaction():
        deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 700)")
    serve = deployment.serve()
    deployment.wait_until_settled()
    serve.stop()
    deployment.check(committed_versions=dict.fromkeys(range(1, 701), 3))


def test_one_organisations_bulk_does_not_stall_anothers_change(deployment: Deployment) -> None:
    deployment.connection.execute("CREATE TABLE shared (id bigint PRIMARY KEY, owner text NOT NULL)")
    deployment.attach(
        Attachment(resource="ITEMS", table="items"),
        Attachment(resource="SHARED", table="shared", organisation=None, organisation_column="owner"),
    )
    with deployment.connection.transaction():
        deployment.connection.execute("INSERT INTO shared SELECT n, 'bulky' FROM generate_series(1, 20000) n")
        deployment.connection.execute("INSERT INTO shared VALUES (0, 'quiet')")
    deployment.serve("--role", "router")
    deployment.wait_until_settled()
    quiet, bulky = deployment.rows(
        """SELECT position FROM clarion.ledger l JOIN clarion.organisations o ON o.id = l.organisation_id
           WHERE o.name = 'quiet'
           UNION ALL
           SELECT max(position) FROM clarion.ledger l JOIN clarion.organisations o ON o.id = l.organisation_id
           WHERE o.name = 'bulky'"""
    )
    assert quiet[0] < 1000 < bulky[0]


def test_a_batch_has_few_rows_where_many_listen_to_each(deployment: Deployment) -> None:
    deployment.connection.execute("CREATE TABLE shared (id bigint PRIMARY KEY, owner text NOT NULL)")
    deployment.attach(
        Attachment(resource="SHARED", table="shared", organisation=None, organisation_column="owner"),
    )
    crowded = deployment.register(organisation="crowded", active=False)
    for _ in range(400):
        deployment.subscribe(crowded, "SHARED", ["CREATE"])
    deployment.subscribe(deployment.register(organisation="other", active=False), "SHARED", ["CREATE"])
    deployment.connection.execute(
        "INSERT INTO shared SELECT n, CASE WHEN n % 10 = 0 THEN 'other' ELSE 'crowded' END FROM generate_series(1, 100) n"
    )
    deployment.serve("--role", "router")
    deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)")
    batches = deployment.rows(
        """SELECT sum(listening)::integer, count(*) FROM (
               SELECT l.recorded_at, (SELECT count(*) FROM clarion.queue q WHERE q.position = l.position) AS listening
               FROM clarion.ledger l WHERE l.resource = 'SHARED') AS rows GROUP BY recorded_at"""
    )
    assert sum(listening for listening, _ in batches) == 90 * 400 + 10, "all of them, each once"
    assert max(listening for listening, _ in batches) <= 2 * 5000, "as much again may go along with a bulk"
    assert len(batches) < 30, "nor smaller than they need be"
