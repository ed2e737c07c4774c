"""Contending writers whose rows move between partitions, while an application's own trigger updates them again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import psycopg
import pytest

from clarion.capture.attach import Attachment
from harness.deployment import Deployment
from harness.process import children_of

pytestmark = pytest.mark.data_path

STATES = ("open", "held", "done")
TICKETS = """
    CREATE TABLE tickets (id bigint, state text, version int NOT NULL DEFAULT 1, PRIMARY KEY (id, state)) PARTITION BY LIST (state);
    CREATE TABLE tickets_open PARTITION OF tickets FOR VALUES IN ('open');
    CREATE TABLE tickets_rest PARTITION OF tickets DEFAULT PARTITION BY LIST (state);
    CREATE TABLE tickets_held PARTITION OF tickets_rest FOR VALUES IN ('held');
    CREATE TABLE tickets_done PARTITION OF tickets_rest FOR VALUES IN ('done')
"""
ROLL_UP = """
    CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.version % 3 <> 0 THEN
            UPDATE tickets SET version = version + 1, state = CASE WHEN version % 3 = 1 THEN 'held' ELSE state END WHERE id = NEW.id;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER "{}" AFTER INSERT OR UPDATE ON tickets FOR EACH ROW EXECUTE FUNCTION again()
"""
OBJECTS = range(1, 13)
SECONDS = 2.0


def write(deployment: Deployment, seed: int, stop_at: float, moves: Counter[str]) -> None:
    """Bump and move tickets until it is time; a fifth is rolled back, and so is who meets a row that another one moved."""
    dice = random.Random(seed)
    with psycopg.connect(deployment.database.url) as connection:
        while time.monotonic() < stop_at:
            try:
                for item in sorted(dice.sample(OBJECTS, dice.randint(1, 3))):
                    for _ in range(dice.randint(1, 2)):
                        moved = connection.execute(
                            "UPDATE tickets SET version = version + 1, state = %s WHERE id = %s",
                            (dice.choice(STATES), item),
                        )
                        assert moved.rowcount == 1
                    time.sleep(dice.uniform(0, 0.003))
                if dice.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    moves["committed"] += 1
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                connection.rollback()
                moves["met a moved row"] += 1


@pytest.mark.parametrize("trigger", [None, "  before ours"])
def test_moving_rows_lose_nothing_and_keep_each_objects_order(deployment: Deployment, trigger: str | None) -> None:
    connection = deployment.connection
    connection.execute(TICKETS)
    if trigger:
        connection.execute(ROLL_UP.format(trigger).encode())
    deployment.attach(Attachment(resource="TICKETS", table="tickets", key_columns=("id",)))
    receiver = deployment.register()
    deployment.subscribe(receiver, "TICKETS")
    connection.execute("INSERT INTO tickets SELECT n, 'open' FROM generate_series(1, 12) n")
    serve = deployment.serve()
    stop_at, counted = time.monotonic() + SECONDS, Counter[str]()
    writers = [threading.Thread(target=write, args=(deployment, seed, stop_at, counted)) for seed in range(8)]
    for writer in writers:
        writer.start()
    # The router dies in the middle, and the next one is careful with what it finds.
    deployment.wait_for_row("SELECT FROM clarion.ledger WHERE position > 150")
    for child in children_of(serve.pid):
        os.kill(child, signal.SIGKILL)
    for writer in writers:
        writer.join()
    deployment.wait_until_settled(timeout_s=60)
    deployment.assert_chained()
    assert counted["committed"] > 50
    assert counted["met a moved row"] > 0
    versions = {
        str(item): version for item, version in connection.execute("SELECT id, version FROM tickets").fetchall()
    }
    told: dict[str, list[tuple[str, int, int]]] = {}
    for object_id, action, before, after in connection.execute(
        "SELECT object_id, action::text, (old::json ->> 'version')::int, (new::json ->> 'version')::int "
        "FROM clarion.ledger WHERE resource = 'TICKETS' ORDER BY position"
    ).fetchall():
        told.setdefault(object_id, []).append((action, before, after))
    assert told == {
        item: [("c", None, 1), *(("u", version, version + 1) for version in range(1, last))]
        for item, last in versions.items()
    }
    verdict = deployment.judge({receiver: versions}, deployment.receiver.received(), resource="TICKETS")
    assert verdict.faults() == {}
    # The creation is for one subscription, each later version for another.
    assert verdict.expected == sum(versions.values())
