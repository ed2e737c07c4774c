"""The Django app: whatever way a change is made, it carries who made it, and nothing stays on the connection."""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import clarion
from clarion.capture.acting import acting
from clarion.capture.attach import Attachment, attach
from clarion.capture.publish import PublishRefused
from clarion.capture.published import Published, attach_published
from clarion.database.address import DatabaseAddress
from harness.pooler import pooler
from harness.purchasing import connect, in_this_process

pytestmark = pytest.mark.data_path

Rows = list[tuple[Any, ...]]
LOOK = "SELECT coalesce(current_setting('clarion.actor_id', true), '')"


class Shop:
    """The project's models and user, and what was captured since the test began."""

    def __init__(self, looking: psycopg.Connection[Any]) -> None:
        from django.contrib.auth.models import User
        from stock import models

        self.looking = looking
        self.models = models
        self.user = User.objects.get_or_create(username="nora", is_staff=True, is_superuser=True)[0]
        self.part = models.Part.objects.create(number="P-1", name="bolt", on_hand=1)
        self.captured()

    def captured(self, *columns: str) -> Rows:
        """Rows of the outbox, taken out of it."""
        chosen = ", ".join(columns or ("resource", "action::text", "actor_id", "actor_name", "correlation_id"))
        return self.looking.execute(
            f"WITH taken AS (DELETE FROM clarion.outbox RETURNING *) SELECT {chosen} FROM taken ORDER BY id".encode()
        ).fetchall()


@pytest.fixture(scope="module")
def project(shared_database: DatabaseAddress) -> Iterator[DatabaseAddress]:
    with in_this_process(shared_database):
        with psycopg.connect(shared_database.url) as connection:
            attach(
                connection,
                [
                    Attachment(resource=resource, table=f"stock_{table}")
                    for resource, table in (
                        ("PARTS", "part"),
                        ("ORDERS", "purchaseorder"),
                        ("LINES", "purchaseorderline"),
                    )
                ],
            )
            attach_published(connection, Published("PARCELS"))
        yield shared_database


@pytest.fixture
def shop(project: DatabaseAddress) -> Iterator[Shop]:
    with psycopg.connect(project.url, autocommit=True) as looking:
        made = Shop(looking)
        yield made
        for model in (made.models.PurchaseOrder, made.models.Part, made.models.Supplier):
            model.objects.all().delete()
        made.captured()


def _order(shop: Shop) -> Any:
    supplier = shop.models.Supplier.objects.create(name="Bolts & Co")
    order = shop.models.PurchaseOrder.objects.create(supplier=supplier)
    order.lines.create(part=shop.part, quantity=3, unit_price=Decimal("1.5"))
    shop.captured()
    return order


def _client(shop: Shop) -> Any:
    from django.test import Client

    client = Client()
    client.force_login(shop.user)
    return client


@contextmanager
def _sent(alias: str = "default") -> Iterator[list[str]]:
    """What libpq sends on the connection in the block: one entry for each round trip, its statement."""
    from django.db import connections

    connections[alias].ensure_connection()
    wire = connections[alias].connection.pgconn
    sent: list[str] = []
    with tempfile.TemporaryFile() as file:
        wire.trace(file.fileno())
        try:
            yield sent
        finally:
            wire.untrace()
            file.seek(0)
            sent += re.findall(r'^\S+ \S+\tF\t\d+\t(?:Query|Parse)\t.*?"(.*)"', file.read().decode(), re.MULTILINE)


def test_a_request_acts_for_its_user_as_part_of_what_it_names(shop: Shop) -> None:
    order = _order(shop)
    answer = _client(shop).post(f"/orders/{order.pk}/receive/", headers={"X-Request-ID": "request-7"})
    assert answer.json() == {"status": "received"}
    who = (str(shop.user.pk), "nora", "request-7")
    assert shop.captured() == [("PARTS", "u", *who), ("ORDERS", "u", *who)]


def test_an_async_request_does_too(shop: Shop) -> None:
    from django.test import AsyncClient

    async def ask() -> Any:
        client = AsyncClient()
        await client.aforce_login(shop.user)
        return await client.post(
            f"/parts/{shop.part.pk}/reprice/", {"unit_price": "2.5"}, headers={"X-Request-ID": "request-8"}
        )

    assert asyncio.run(ask()).json() == {"unit_price": "2.5"}
    assert shop.captured() == [("PARTS", "u", str(shop.user.pk), "nora", "request-8")]


def test_with_a_transaction_around_each_request_the_values_are_said_once(shop: Shop) -> None:
    from django.db import connection

    order = _order(shop)
    client = _client(shop)
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with _sent() as sent:
            client.post(f"/orders/{order.pk}/receive/", headers={"X-Request-ID": "request-9"})
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert [row[4] for row in shop.captured()] == ["request-9"] * 2
    # Before who it is was known, and after.
    assert 1 <= len([statement for statement in sent if "set_config" in statement]) <= 2


def test_a_request_that_writes_nothing_asks_nothing(shop: Shop) -> None:
    client = _client(shop)
    with _sent() as sent:
        assert client.get("/nowhere/").status_code == 404
    assert sent == []


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 201, "ü", "a\tb"])
def test_a_request_that_names_no_usable_id_gets_one(shop: Shop, given: str | None) -> None:
    order = _order(shop)
    headers = {} if given is None else {"X-Request-ID": given}
    _client(shop).post(f"/orders/{order.pk}/receive/", headers=headers)
    ids = {row[4] for row in shop.captured()}
    assert len(ids) == 1
    assert re.fullmatch("[0-9a-f]{32}", ids.pop())


def test_of_nobody_there_is_no_actor(shop: Shop) -> None:
    from django.test import RequestFactory

    from clarion.capture.django.middleware import acting_middleware

    def view(request: Any) -> Any:
        shop.part.name = "nut"
        shop.part.save()
        return request

    request = RequestFactory().post("/", headers={"X-Request-ID": "r"})
    acting_middleware(view)(request)
    assert shop.captured() == [("PARTS", "u", None, None, "r")]


def test_the_middleware_without_the_app_is_refused(project: DatabaseAddress) -> None:
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.test import override_settings

    from clarion.capture.django.middleware import acting_middleware

    others = [app for app in settings.INSTALLED_APPS if app != "clarion.capture.django"]
    with override_settings(INSTALLED_APPS=others), pytest.raises(ImproperlyConfigured, match="in INSTALLED_APPS"):
        acting_middleware(lambda request: request)


def test_a_write_outside_a_transaction_carries_the_values_and_leaves_nothing(shop: Shop) -> None:
    from django.db import connection

    with acting(actor_id="import", correlation_id="night"):
        shop.models.Part.objects.create(number="P-2", name="nut")
        shop.models.Part.objects.filter(number="P-2").update(name="lock nut")
        with connection.cursor() as cursor:
            cursor.execute(" /* a comment */ -- and one\n (WITH x AS (SELECT 1) SELECT * FROM x)")
            cursor.executemany("update stock_part SET name = %s WHERE number = %s", [("a", "P-1"), ("b", "P-2")])
            cursor.execute(b"UPDATE stock_part SET name = 'c' WHERE number = 'P-1'")
            cursor.execute(psycopg.sql.SQL("DELETE FROM stock_part WHERE number = {}").format("P-2"))
            cursor.execute(LOOK)
            assert cursor.fetchone() == ("",)
        assert connection.get_autocommit()
    assert shop.captured("action::text", "actor_id", "correlation_id") == [
        (action, "import", "night") for action in ("c", "u", "u", "u", "u", "d")
    ]


def test_what_a_write_costs(shop: Shop) -> None:
    """One more round trip for a transaction, three for a write without one, none where nothing is to be said."""
    from django.db import transaction

    change = shop.models.Part.objects.filter(pk=shop.part.pk)
    with _sent() as bare:
        change.update(name="a")
    with acting(actor_id="1"):
        with _sent() as alone:
            change.update(name="b")
        with _sent() as together, transaction.atomic():
            for name in ("c", "d", "e"):
                change.update(name=name)
        with _sent() as reading:
            assert change.get().name == "e"
    assert [len(bare), len(alone), len(together), len(reading)] == [1, 4, 6, 1]


def test_blocks_and_savepoints_and_a_rollback_leave_the_right_values_in_force(shop: Shop) -> None:
    from django.db import IntegrityError, transaction

    def add(number: str) -> None:
        shop.models.Part.objects.create(number=number, name=number)

    with acting(actor_id="outer"), transaction.atomic():
        add("a")
        with acting(actor_id="inner"):
            with suppress(IntegrityError), transaction.atomic():
                add("a")
            with transaction.atomic():
                add("b")
        add("c")
        with acting(actor_id="inner"), suppress(ZeroDivisionError), transaction.atomic():
            add("d")
            raise ZeroDivisionError
        add("e")
    with transaction.atomic():
        add("f")
    with acting(actor_id="outer"):
        with suppress(ZeroDivisionError), transaction.atomic():
            add("g")
            raise ZeroDivisionError
        with transaction.atomic():
            add("h")
    found = shop.captured("(new::json)->>'number'", "actor_id")
    assert found == [("a", "outer"), ("b", "inner"), ("c", "outer"), ("e", "outer"), ("f", None), ("h", "outer")]


def test_a_rollback_to_a_savepoint_by_hand_is_seen(shop: Shop) -> None:
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT mine")
        with acting(actor_id="1"):
            cursor.execute("SELECT 1")
            cursor.execute("ROLLBACK TO mine")
            cursor.execute("UPDATE stock_part SET name = 'x'")
    assert shop.captured("actor_id") == [("1",)]


def test_a_copy_carries_the_values_once_any_statement_went_before(shop: Shop) -> None:
    """It passes Django's hook by."""
    from django.db import connection, transaction

    with acting(actor_id="1"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        with cursor.copy(
            "COPY stock_part (number, name, unit_price, on_hand, reorder_level, specification, created) FROM STDIN"
        ) as copy:
            copy.write_row(("P-9", "nut", 1, 1, 1, "{}", "2026-11-24"))
    assert shop.captured("actor_id") == [("1",)]


def test_an_error_of_a_write_is_what_it_would_have_been(shop: Shop) -> None:
    from django.db import DatabaseError, IntegrityError, connection, transaction

    with acting(actor_id="1"):
        with pytest.raises(IntegrityError, match="stock_part_number_key"):
            shop.models.Part.objects.create(number="P-1", name="again")
        assert connection.get_autocommit()
        with suppress(ZeroDivisionError), transaction.atomic():
            with connection.cursor() as cursor:
                with pytest.raises(DatabaseError, match="division by zero"):
                    cursor.execute("SELECT 1 / 0")
                with pytest.raises(DatabaseError, match="transaction is aborted"):
                    cursor.execute("SELECT 1")
            raise ZeroDivisionError
        shop.part.delete()
    assert shop.captured("action::text", "actor_id") == [("d", "1")]


def test_each_database_and_each_thread_has_its_own(shop: Shop) -> None:
    from django.db import connections, transaction

    def change(alias: str, name: str) -> None:
        shop.models.Part.objects.using(alias).create(number=name, name=name)

    def elsewhere() -> None:
        with acting(actor_id="thread"):
            change("default", "t")
        connections.close_all()

    with acting(actor_id="1"), transaction.atomic(), transaction.atomic(using="other"):
        change("default", "a")
        with acting(actor_id="2"):
            change("other", "b")
        change("default", "c")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(10)
    assert sorted(shop.captured("(new::json)->>'number'", "actor_id")) == [
        ("a", "1"),
        ("b", "2"),
        ("c", "1"),
        ("t", "thread"),
    ]


def test_with_binding_on_the_server_it_is_the_same(shop: Shop, project: DatabaseAddress) -> None:
    from django.db import connections, transaction

    connect("other", project, server_side_binding=True)
    try:
        with acting(actor_id="1"):
            shop.models.Part.objects.using("other").filter(pk=shop.part.pk).update(name="a")
            with transaction.atomic(using="other"):
                shop.models.Part.objects.using("other").filter(pk=shop.part.pk).update(name="b")
                clarion.publish(connections["other"], "PARCELS", "UPDATE", 1, {"a": 1})
    finally:
        connect("other", project)
    assert shop.captured("resource", "actor_id") == [("PARTS", "1"), ("PARTS", "1"), ("PARCELS", "1")]


@pytest.mark.system
def test_through_a_pooler_in_transaction_mode_everybody_keeps_his_own(
    shop: Shop, project: DatabaseAddress, tmp_path: Path
) -> None:
    """All share one session of the server: what one left on it, the next would be."""
    from django.db import connections

    def work(name: str) -> None:
        change = shop.models.Part.objects.using("other")
        try:
            for number in range(20):
                with acting(actor_id=name) if name != "nobody" else nullcontext():
                    change.create(number=f"{name} {number}", name="x")
        finally:
            connections.close_all()

    with pooler(project, tmp_path, "transaction", 1) as address:
        connect("other", address.with_database(project.database or ""), prepare_threshold=None)
        try:
            with ThreadPoolExecutor(4) as workers:
                list(workers.map(work, ["a", "b", "c", "nobody"]))
        finally:
            connect("other", project)
    found = shop.captured("(new::json)->>'number'", "coalesce(actor_id, 'nobody')")
    assert len(found) == 80
    assert all(number.startswith(f"{name} ") for number, name in found)


def test_a_change_is_published_in_its_transaction_and_not_without_one(shop: Shop) -> None:
    from django.db import connection, connections, transaction

    with pytest.raises(PublishRefused, match="no transaction is open"):
        clarion.publish(connection, "PARCELS", "DELETE", 1)
    with acting(actor_id="1"):
        with transaction.atomic():
            clarion.publish(connection, "PARCELS", "DELETE", 1)
        with suppress(ZeroDivisionError), transaction.atomic(using="other"):
            clarion.publish(connections["other"], "PARCELS", "DELETE", 2)
            raise ZeroDivisionError
    assert shop.captured("object_id", "actor_id") == [("1", "1")]
