from __future__ import annotations

import threading
from collections import Counter
from random import Random
from time import monotonic
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from clarion.core.errors import EnvironmentRefused
from clarion.database.address import DatabaseAddress
from clarion.factory.act import Act, ActRefused, Person, open_engine, perform
from clarion.factory.install import install
from clarion.factory.shop_floor import complete_step, create_run, start_step
from clarion.factory.simulate import Simulator
from factory.model import assert_consistent

Connection = psycopg.Connection[dict[str, Any]]
ADA = Person(1, "Ada Okafor")


def test_three_hundred_acts_leave_a_consistent_factory(engine: Engine, committing: Connection) -> None:
    simulator = Simulator(engine, Random(7))
    acts = [simulator.step() for _ in range(300)]
    assert_consistent(committing)
    assert acts[0].name == "create_run"
    kinds = Counter(act.name for act in acts)
    assert {
        "create_run",
        "start_step",
        "enter_value",
        "complete_step",
        "install_child",
        "place_order",
        "receive",
    } <= set(kinds)
    _assert_captured(committing, acts)


def _assert_captured(connection: Connection, acts: list[Act]) -> None:
    """What each act says it changed is in the outbox under its correlation id, in one transaction, with who acted."""
    rows = connection.execute("SELECT *, action::text AS what FROM clarion.outbox ORDER BY id").fetchall()
    by_act: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_act.setdefault(row["correlation_id"], []).append(row)
    assert set(by_act) == {act.correlation_id for act in acts}
    letters = {"CREATE": "c", "UPDATE": "u", "DELETE": "d"}
    for act in acts:
        own = by_act[act.correlation_id]
        written = {(row["resource"], row["what"], row["object_id"]) for row in own}
        assert {(change.resource, letters[change.action], change.object_id) for change in act.changes} <= written, act
        assert len({row["xid"] for row in own}) == 1
        assert all(row["actor_id"] and row["actor_name"] for row in own)


def test_the_same_seed_plays_the_same_life(engine: Engine, database: DatabaseAddress) -> None:
    install(database)
    other = open_engine(database)
    try:
        first, second = Simulator(engine, Random(3)), Simulator(other, Random(3))
        for _ in range(60):
            here, there = first.step(), second.step()
            assert (here.name, here.summary, here.changes) == (there.name, there.summary, there.changes)
    finally:
        other.dispose()


def test_several_simulators_work_side_by_side(factory: DatabaseAddress, committing: Connection) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        engine = open_engine(factory)
        try:
            simulator = Simulator(engine, Random(seed))
            for _ in range(60):
                simulator.step()
        except BaseException as error:
            failures.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert_consistent(committing)


def test_acts_are_paced_evenly(shared_engine: Engine) -> None:
    moments: list[float] = []
    started = monotonic()
    played = Simulator(shared_engine, Random(1)).run(
        25, 1.0, threading.Event(), lambda act, played: moments.append(monotonic())
    )
    assert played.acts_count == len(moments) == 25
    assert played.seconds >= 1.0
    assert played.rate_per_second == pytest.approx(25 / played.seconds)
    # None comes before it is due.
    assert all(moment - started >= number / 25 for number, moment in enumerate(moments))


def test_a_simulator_stops_when_it_is_told_to(shared_engine: Engine) -> None:
    stop = threading.Event()
    played = Simulator(shared_engine, Random(1)).run(1000, None, stop, lambda act, played: stop.set())
    assert played.acts_count == 1


def test_a_simulator_waits_out_an_outage(engine: Engine, committing: Connection, factory: DatabaseAddress) -> None:
    stop = threading.Event()

    def watch(act: Act, played: Any) -> None:
        if played.acts_count == 3:
            committing.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'clarion factory'"
            )
        if played.acts_count == 6:
            stop.set()

    played = Simulator(engine, Random(1)).run(1000, None, stop, watch)
    assert played.acts_count == 6
    assert played.failures >= 1
    assert_consistent(committing)


def test_a_factory_without_people_says_so(engine: Engine, committing: Connection) -> None:
    committing.execute("UPDATE factory.users SET active = false")
    with pytest.raises(EnvironmentRefused, match="no users"):
        Simulator(engine, Random(1)).step()


def test_an_act_that_the_state_does_not_allow_is_refused_and_changes_nothing(
    shared_engine: Engine, shared: Connection
) -> None:
    made = perform(shared_engine, ADA, lambda session: create_run(session, 1, ADA))
    first, second, *_ = (int(change.object_id) for change in made.changes if change.resource == "RUN_STEPS")
    shared.execute("TRUNCATE clarion.outbox")
    with pytest.raises(ActRefused, match="not in progress"):
        perform(shared_engine, ADA, lambda session: complete_step(session, first))
    with pytest.raises(ActRefused, match="is todo and cannot start"):
        perform(shared_engine, ADA, lambda session: start_step(session, second))
    assert shared.execute("SELECT FROM clarion.outbox").fetchall() == []


def test_a_run_carries_the_steps_fields_and_parts_of_its_procedure(shared_engine: Engine, shared: Connection) -> None:
    run_id = perform(shared_engine, ADA, lambda session: create_run(session, 1, ADA)).object_id
    for copied, origin in (
        (
            "SELECT title, position, location_id FROM factory.run_steps WHERE run_id = %s ORDER BY position",
            "SELECT title, position, location_id FROM factory.steps WHERE procedure_id = 1 ORDER BY position",
        ),
        (
            """SELECT f.name, f.type, f.unit, f.value_min, f.value_max, f.required, f.options
               FROM factory.run_steps_fields AS f JOIN factory.run_steps AS s ON s.id = f.run_step_id
               WHERE s.run_id = %s ORDER BY s.position, f.position""",
            """SELECT f.name, f.type, f.unit, f.value_min, f.value_max, f.required, f.options
               FROM factory.steps_fields AS f JOIN factory.steps AS s ON s.id = f.step_id
               WHERE s.procedure_id = 1 ORDER BY s.position, f.position""",
        ),
        (
            "SELECT part_id, quantity FROM factory.build_requirements WHERE run_id = %s ORDER BY id",
            """SELECT item.part_id, item.quantity FROM factory.procedures AS p JOIN factory.mboms AS m USING (part_id)
               JOIN factory.mbom_item AS item ON item.mbom_id = m.id WHERE p.id = 1 ORDER BY item.id""",
        ),
    ):
        rows = shared.execute(copied, (run_id,)).fetchall()
        assert rows
        assert rows == shared.execute(origin).fetchall()
    look = """SELECT i.status, i.part_id = r.part_id AS of_the_part FROM factory.runs AS r
              JOIN factory.parts_inventory AS i ON i.id = r.parts_inventory_id WHERE r.id = %s"""
    assert shared.execute(look, (run_id,)).fetchall() == [{"status": "wip", "of_the_part": True}]
