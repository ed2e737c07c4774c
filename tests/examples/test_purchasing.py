"""An application that knows nothing of webhooks, attached as `docs/how-to/attach-an-application.md` says, to the letter.

Then it goes its own way (admin, ORM, raw SQL, a migration), and what a receiver got is replayed: object by object it must
give what the application's tables hold.
"""

from __future__ import annotations

import html
import http.cookiejar
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, event

from clarion import publish
from clarion.capture import context
from clarion.capture.acting import acting
from clarion.database.address import DatabaseAddress
from clarion_receive import Webhook
from harness.cluster import libpq_environment
from harness.page import Page
from harness.process import ClarionProcess, clean_environment
from harness.purchasing import PROJECT, in_this_process
from harness.receiver import Received, ReceiverProcess
from tls import Authority, make_authority

pytestmark = pytest.mark.data_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "attach-an-application.md"
TABLES = {
    "purchase_orders": "stock_purchaseorder",
    "purchase_order_lines": "stock_purchaseorderline",
    "parts": "stock_part",
    "part_categories": "stock_part_categories",
    "suppliers": "stock_supplier",
}
BULK_CHANGES = 3 * 40 + 2 + 1 + 5 + 30 + 5 + 4 * (6 + 1) + 1 + (6 + 1) + 2 + 1
"""What `_work_with_the_orm` changes: parts three times, two by an upsert, a supplier, orders, lines, some lines again, four
orders received, a parcel, one deleted with its lines, two parts deleted, an account number."""
MIGRATION = """
from django.db import migrations, models
from django.db.models import F

def fill(apps, schema_editor):
    apps.get_model("stock", "Part").objects.update(minimum_order=F("on_hand"))

class Migration(migrations.Migration):
    dependencies = [("stock", "0003_part_reorder_level")]
    operations = [
        migrations.AddField("part", "minimum_order", models.DecimalField(decimal_places=3, max_digits=14, null=True)),
        migrations.RunPython(fill),
    ]
"""
Start = Callable[..., ClarionProcess]


@pytest.fixture
def purchasing(server: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """The application's database, empty, as its owner."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE purchasing LOGIN")
        connection.execute("CREATE DATABASE purchasing OWNER purchasing TEMPLATE template0")
        yield server.with_database("purchasing").with_user("purchasing")
        connection.execute("DROP DATABASE purchasing WITH (FORCE)")
        for (role,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('clarion', 'purchasing') OR rolname ~ '^clarion_.*_purchasing$'"
        ).fetchall():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


class Staff:
    """A browser with a member of staff before it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))

    def post(self, path: str, request_id: str = "", **fields: str) -> str:
        """The page after the form on `path` was sent with these fields beside those that it holds already."""
        with self._opener.open(self._address + path) as answer:
            form = answer.read().decode()
        held = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
        return self._send(path, {name: html.unescape(value) for name, value in held.items()} | fields, request_id)

    def call(self, path: str, request_id: str = "", **fields: str) -> Any:
        """What a view without a form answers."""
        token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        return json.loads(self._send(path, {"csrfmiddlewaretoken": str(token), **fields}, request_id))

    def _send(self, path: str, fields: dict[str, str], request_id: str) -> str:
        request = urllib.request.Request(self._address + path, urllib.parse.urlencode(fields).encode())
        if request_id:
            request.add_header("X-Request-ID", request_id)
        with self._opener.open(request) as answer:
            shown: str = answer.read().decode()
        assert "Please correct the error" not in shown, re.findall(r'class="errorlist".*?</ul>', shown, re.DOTALL)
        return shown


def test_the_page_is_followed_and_the_application_goes_its_way(
    server: DatabaseAddress, purchasing: DatabaseAddress, clarion_process: Start, tmp_path: Path
) -> None:
    project = tmp_path / "purchasing"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ca").mkdir()
    authority = make_authority(tmp_path / "ca")
    with (
        socket.create_server(("127.0.0.1", 0)) as free,
        ReceiverProcess(tmp_path / "receiver", authority.issue(addresses=["127.0.0.1"])) as receiver,
        psycopg.connect(server.with_database("purchasing").url, autocommit=True) as superuser,
    ):
        api = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        page = Page(
            PAGE,
            project,
            clean_environment(
                tmp_path,
                **libpq_environment(purchasing),
                PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            ),
            {
                "postgresql://clarion:choose-one@db.example.com/purchasing": purchasing.with_user("clarion", "x").url,
                "127.0.0.1:8400": api,
                "https://erp.example.com/hooks": receiver.uri(),
            },
        )
        serving = _follow_to_the_first_webhook(page, clarion_process, superuser, receiver, authority, api)
        _add_what_the_page_says(page, project)
        _follow_through_the_migration(page, receiver)
        site = _site(clarion_process, project, purchasing)
        _work_in_the_admin(site, superuser, receiver)
        page.shell("clarion attach --resource PARCELS --published")
        page.shell("clarion attach --resource PARCELS --published --publisher purchasing")
        _work_with_the_orm(purchasing)
        _settle(superuser)
        _compare(superuser, receiver.received())
        page.run("clarion detach PART_CATEGORIES")
        assert page.is_at_its_end
        assert not superuser.execute(
            "SELECT 1 FROM pg_trigger WHERE tgrelid = 'stock_part_categories'::regclass AND NOT tgisinternal"
        ).fetchall()
        serving.stop()


def _follow_to_the_first_webhook(
    page: Page,
    clarion_process: Start,
    superuser: psycopg.Connection[Any],
    receiver: ReceiverProcess,
    authority: Authority,
    api: str,
) -> ClarionProcess:
    """Steps 1 to 6. The server comes back, running."""
    _manage(page, "migrate", "--verbosity=0")
    superuser.execute(page.next("sql", "CREATE ROLE clarion").encode())
    page.run("clarion migrate")
    page.run("clarion attach --table stock_part")
    planned = page.run("--plan")
    assert "CREATE OR REPLACE TRIGGER" in planned
    listed = page.run("clarion attach")
    assert "\nCATEGORIES" not in listed, "a plan changes nothing"
    for resource, table in TABLES.items():
        assert re.search(rf"^{resource.upper()} +public\.{table} +id ", listed, re.MULTILINE), listed
    assert page.next("sh", "clarion serve") == "clarion serve\n"
    serving = clarion_process(
        "serve",
        CLARION_DATABASE_URL=page.exported("CLARION_DATABASE_URL"),
        CLARION_SECRET_KEY_FILE=page.exported("CLARION_SECRET_KEY_FILE"),
        CLARION_LISTEN=api,
        CLARION_CA_FILE=str(authority.ca_file),
        CLARION_ALLOWED_NETWORKS="127.0.0.0/8",
    )
    serving.wait_for_line(f"^clarion ready on http://{api}$")
    page.run("clarion keys create")
    made = json.loads(page.run("createWebhookReceiver"))["data"]["createWebhookReceiver"]["webhookReceiver"]
    assert made["id"] == "1"
    assert len(re.findall('"id"', page.run("createWebhookSubscription"))) == 2
    tested = json.loads(page.run("testWebhookReceiver"))["data"]["testWebhookReceiver"]["attempt"]
    assert (tested["outcome"], tested["statusCode"]) == ("SUCCEEDED", 200)
    page.run("Part.objects.create(number='M6', name='bolt')")
    _, first = receiver.wait_for(2)
    Webhook(made["sharedSecret"]).verify(first.body, first.headers)
    body = first.json()
    assert (body["resource"], body["action"], body["data"]["number"], body["actor"]) == ("parts", "create", "M6", None)
    assert re.fullmatch(r"tx-[a-z2-7]{10}-\d+", body["correlation_id"])
    _settle(superuser)
    shown = json.loads(page.run("webhookEvents"))["data"]["webhookEvents"]["edges"][0]["node"]
    assert shown == {
        "status": "DELIVERED",
        "resource": "PARTS",
        "action": "CREATE",
        "objectId": body["object_id"],
        "attempts": [{"outcome": "SUCCEEDED", "statusCode": 200}],
    }
    previewed = json.loads(page.run("previewWebhookSubscription"))["data"]["previewWebhookSubscription"]
    assert previewed == {
        "matchedCount": 1,
        "changes": [{"objectId": body["object_id"], "outcome": "MATCHED", "error": None}],
    }
    superuser.execute(
        "INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action) "
        "SELECT r.organisation_id, 1, resource, action FROM clarion.receivers r, unnest(%s::text[]) resource, "
        "unnest('{CREATE,UPDATE,DELETE}'::text[]) action "
        "WHERE (resource, action) NOT IN (('PARTS', 'CREATE'), ('PARTS', 'UPDATE'))",
        (["PARCELS", *(resource.upper() for resource in TABLES if resource != "part_categories")],),
    )
    return serving


def _add_what_the_page_says(page: Page, project: Path) -> None:
    with (project / "purchasing" / "settings.py").open("a") as settings:
        settings.write(page.next("python", "clarion.capture.django"))


def _follow_through_the_migration(page: Page, receiver: ReceiverProcess) -> None:
    """Steps 7 and 8."""
    before = receiver.count()
    page.run("with acting")
    changed = receiver.wait_for(before + 1)[-1]
    body = changed.json()
    assert (body["actor"]["id"], body["correlation_id"]) == ("nightly-import", "import-2026-11-24")
    assert body["previous"] == {"unit_price": 0.0}
    assert b'"unit_price":0.1250' in changed.body
    engine = create_engine("postgresql+psycopg://")
    exec(page.next("python", "install(engine)"), {"engine": engine})  # the page's own words
    assert event.contains(engine, "before_cursor_execute", context._before_statement)
    _manage(page, "shell", "-c", "from stock.models import Part; Part.objects.update(on_hand=5)")
    receiver.wait_for(before + 2)
    (page.directory / "stock" / "migrations" / "0004_part_minimum_order.py").write_text(MIGRATION)
    page.run("python manage.py migrate")
    page.run("clarion doctor")
    migrated = receiver.wait_for(before + 3)[-1].json()
    assert (migrated["data"]["minimum_order"], migrated["previous"]) == (5.0, {"minimum_order": None})


def _manage(page: Page, *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=page.directory, env=page.environment, check=True, capture_output=True)


def _site(clarion_process: Start, project: Path, purchasing: DatabaseAddress) -> Staff:
    """The application's own server, with nora signed in at its admin."""
    settings = {
        **libpq_environment(purchasing),
        "DJANGO_SUPERUSER_PASSWORD": "a long password",
        "PYTHONUNBUFFERED": "1",
    }

    def manage(*arguments: str) -> ClarionProcess:
        return clarion_process("manage.py", *arguments, home=project, command=sys.executable, **settings)

    assert manage("createsuperuser", "--noinput", "--username=nora", "--email=n@example.com").wait().code == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    manage("runserver", "--noreload", place).wait_for_line("Quit the server")
    staff = Staff(f"http://{place}")
    staff.post("/admin/login/", username="nora", password="a long password")
    return staff


def _work_in_the_admin(staff: Staff, superuser: psycopg.Connection[Any], receiver: ReceiverProcess) -> None:
    before = receiver.count()
    staff.post(
        "/admin/stock/supplier/add/",
        "req-1",
        name="Bolts & Söhne",
        email="b@example.com",
        bank_account="DE02",
        terms='{"days": 30, "discount": 2.50}',
    )
    ((part, supplier),) = superuser.execute(
        "SELECT p.id::text, s.id::text FROM stock_part p, stock_supplier s"
    ).fetchall()
    staff.post(
        "/admin/stock/purchaseorder/add/",
        "req-2",
        **{"supplier": supplier, "status": "draft", "notes": "urgent", "lines-TOTAL_FORMS": "1"},
        **{"lines-0-part": part, "lines-0-quantity": "2.500", "lines-0-unit_price": "0.1250"},
    )
    ((order,),) = superuser.execute("SELECT id::text FROM stock_purchaseorder").fetchall()
    staff.post("/admin/stock/purchaseorder/", "req-3", action="mark_ordered", _selected_action=order)
    assert staff.call(f"/orders/{order}/receive/", "req-4") == {"status": "received"}
    assert staff.call(f"/parts/{part}/reprice/", "req-5", unit_price="0.1300") == {"unit_price": "0.1300"}
    ((nora,),) = superuser.execute("SELECT id::text FROM auth_user").fetchall()
    done = [request.json() for request in receiver.wait_for(before + 7)[before:]]
    assert {(body["actor"]["id"], body["actor"]["name"]) for body in done} == {(nora, "nora")}
    assert sorted((body["correlation_id"], body["resource"], body["action"]) for body in done) == [
        ("req-1", "suppliers", "create"),
        ("req-2", "purchase_order_lines", "create"),
        ("req-2", "purchase_orders", "create"),
        ("req-3", "purchase_orders", "update"),
        ("req-4", "parts", "update"),
        ("req-4", "purchase_orders", "update"),
        ("req-5", "parts", "update"),
    ]


def _work_with_the_orm(purchasing: DatabaseAddress) -> None:
    """Everything that passes a model's `save` and signals by, and what does not."""
    with in_this_process(purchasing), acting(actor_id="nightly", correlation_id="bulk"):
        from django.db import connection, transaction
        from django.db.models import F
        from stock.models import Category, Part, PurchaseOrder, PurchaseOrderLine, Supplier

        parts = Part.objects.bulk_create(
            [Part(number=f"P-{n}", name=f"part {n}", specification={"n": n, "half": n / 2}) for n in range(40)]
        )
        for part in parts:
            part.unit_price = Decimal(part.pk) / 7
        Part.objects.bulk_update(parts, ["unit_price"], batch_size=15)
        Part.objects.filter(number__startswith="P-").update(on_hand=F("on_hand") + F("unit_price") * 3)
        Part.objects.bulk_create(
            [Part(number="P-1", name="again"), Part(number="P-new", name="new")],
            update_conflicts=True,
            unique_fields=["number"],
            update_fields=["name"],
        )
        supplier, _ = Supplier.objects.update_or_create(name="Bolts & Söhne", defaults={"terms": {"days": 14}})
        orders = [PurchaseOrder.objects.create(supplier=supplier) for _ in range(5)]
        with transaction.atomic():
            PurchaseOrderLine.objects.bulk_create(
                PurchaseOrderLine(order=order, part=part, quantity=part.pk, unit_price=part.unit_price)
                for order in orders
                for part in parts[:6]
            )
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE stock_purchaseorderline SET quantity = quantity * 1.5 WHERE part_id = %s", [parts[0].pk]
                )
        for order in orders[:3]:
            PurchaseOrder.objects.get(pk=order.pk).receive()
        with transaction.atomic():
            orders[3].receive()
            publish(connection, "PARCELS", "CREATE", 7, {"order": orders[3].pk, "arrived": orders[3].received})
        with suppress(ZeroDivisionError), transaction.atomic():
            publish(connection, "PARCELS", "CREATE", 8, {})
            raise ZeroDivisionError
        orders[4].delete()
        parts[0].categories.add(*Category.objects.all())
        Part.objects.filter(number__in=["P-38", "P-39"]).delete()
        with suppress(ZeroDivisionError), transaction.atomic():
            Part.objects.update(name="never")
            raise ZeroDivisionError
        Supplier.objects.filter(pk=supplier.pk).update(bank_account="DE02 too")


def _settle(superuser: psycopg.Connection[Any]) -> None:
    left = "SELECT EXISTS (SELECT FROM clarion.outbox) OR EXISTS (SELECT FROM clarion.queue)"
    waited_until = time.monotonic() + 30
    while superuser.execute(left.encode()).fetchone() != (False,):
        assert time.monotonic() < waited_until


def _compare(superuser: psycopg.Connection[Any], log: list[Received]) -> None:
    """What the receiver got, replayed, is what the tables hold; each change begins where the one before it ended."""
    held: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    assert len({request.message_id for request in log}) == len(log)
    of_the_bulk = 0
    for request in log:
        assert b"DE02" not in request.body
        body = json.loads(request.body, parse_float=Decimal)
        if body["resource"] == "webhook_tests":
            continue
        of_the_bulk += (body["correlation_id"], body["actor"] and body["actor"]["id"]) == ("bulk", "nightly")
        objects, object_id = held[body["resource"]], body["object_id"]
        match body["action"]:
            case "create":
                assert object_id not in objects
                objects[object_id] = body["data"]
            case "update":
                before = body["data"] | body["previous"]
                # The migration gave the table a column between two changes.
                assert objects[object_id] == {name: before[name] for name in objects[object_id]}
                objects[object_id] = body["data"]
            case "delete":
                assert objects.pop(object_id) == body["data"]
    ((order, arrived),) = superuser.execute(
        "SELECT o.id, row_to_json(o) ->> 'received' FROM stock_purchaseorder o ORDER BY id DESC LIMIT 1"
    ).fetchall()
    assert held["parcels"] == {"7": {"order": order, "arrived": arrived}}
    assert of_the_bulk == BULK_CHANGES
    for resource, table in TABLES.items():
        if resource != "part_categories":
            rows = superuser.execute(f"SELECT id::text, row_to_json(t)::text FROM {table} t".encode()).fetchall()
            tables = {key: json.loads(row, parse_float=Decimal) for key, row in rows}
            for row in tables.values():
                row.pop("bank_account", None)
            assert held[resource] == tables, resource
    ((on_hand, ordered),) = superuser.execute(
        "SELECT (SELECT sum(on_hand) FROM stock_part), (SELECT sum(quantity * unit_price) FROM stock_purchaseorderline)"
    ).fetchall()
    assert sum(part["on_hand"] for part in held["parts"].values()) == on_hand
    assert sum(line["quantity"] * line["unit_price"] for line in held["purchase_order_lines"].values()) == ordered
