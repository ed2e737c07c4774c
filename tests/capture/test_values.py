"""What PostgreSQL can store arrives as it was stored: same digits, same text, whatever the session had set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from clarion.capture.attach import Attachment, attach
from clarion.database.address import DatabaseAddress
from clarion.delivery.body import render
from clarion.delivery.event import Event
from clarion.ledger.change import Change
from clarion_receive import Webhook
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

# Each reads like SQL's text input for its type; None is a NULL.
_WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_NUMERIC = st.one_of(
    st.from_regex(r"-?[0-9]{1,60}(\.[0-9]{0,40})?", fullmatch=True),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1.0", "1.00", "-0.0", "1e-300", "9" * 400, "0.1" + "0" * 300]),
)
_FLOAT = st.floats().map(repr)
_STRING = st.one_of(
    _WORDS.map(json.dumps), st.sampled_from([r'"\u0000"', r'"\ud800"', r'"\udc00\ud800"', r'"\u0041\/"', '"\x7f"'])
)
_JSON = st.recursive(
    st.one_of(
        _STRING,
        st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
        st.sampled_from(["null", "true", "false"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: "[ " + " ,".join(values) + "\t]"),
        # Keys may come twice, or be empty.
        st.lists(st.tuples(_STRING | st.just('"a"'), inner), max_size=4).map(
            lambda pairs: "{" + ",\n".join(f"{key} :{value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)
_MOMENT = st.one_of(
    st.datetimes().map(lambda moment: f"{moment.isoformat(' ')}"),
    st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"]),
)
_ZONED = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC])).map(lambda moment: moment.isoformat(" ")),
    st.sampled_from(
        ["infinity", "0044-03-15 12:00:00+00 BC", "2026-03-29 02:30:00+02", "1883-11-18 12:00:00-04:56:02"]
    ),
)
_INTERVAL = st.tuples(*[st.integers(-1000, 1000)] * 3, st.integers(-(10**9), 10**9)).map(
    lambda parts: f"{parts[0]} years {parts[1]} mons {parts[2]} days {parts[3]} microseconds"
)


def _range_of(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.just("empty"),
        value.map(lambda one: f'["{one}","{one}"]'),
        value.map(lambda one: f'["{one}",)'),
        st.just("(,)"),
    )


def _array_of(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def quoted(text: str | None) -> str:
        return "NULL" if text is None else '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'

    return st.lists(value | st.none(), max_size=3).map(lambda values: "{" + ",".join(map(quoted, values)) + "}")


_MONEY = st.decimals(-(10**12), 10**12, places=2).map(str)
_BYTES = st.binary(max_size=20).map(lambda raw: "\\x" + raw.hex())
_ADDRESS = st.one_of(st.ip_addresses(v=4).map(lambda a: f"{a}/24"), st.ip_addresses(v=6).map(str))
_FINITE = st.sampled_from(["2026-11-24 01:02:03.456789+00", "1999-12-31 23:59:59+00"])

TYPES: dict[str, st.SearchStrategy[str]] = {
    "numeric": _NUMERIC,
    "numeric(30,10)": st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{0,10})?", fullmatch=True),
    "price": _NUMERIC.filter(lambda text: text not in {"Infinity", "-Infinity"}),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "float8": _FLOAT,
    "float4": st.floats(width=32).map(repr),
    "json": _JSON,
    "text": _WORDS,
    "bytea": _BYTES,
    "date": st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31"]),
    "money": _MONEY,
    "timetz": st.times().map(lambda time: f"{time}-04:56:02"),
    "int4multirange": st.sampled_from(["{}", "{[1,3),[5,9)}", "{(,)}"]),
    "jsonpath": st.sampled_from(["$.a[*]", 'strict $."b c" ? (@ > 1.0)']),
    "tsvector": st.sampled_from(["'a':1 'it''s':2B", ""]),
    "character(5)": st.text("ab ", max_size=5),
    "xid8": st.integers(0, 2**64 - 1).map(str),
    "daterange[]": _array_of(_range_of(st.dates().map(str))),
    "time": st.times().map(str),
    "timestamp": _MOMENT,
    "timestamptz": _ZONED,
    "interval": _INTERVAL,
    "uuid": st.uuids().map(str),
    "inet": _ADDRESS,
    "mood": st.sampled_from(["sad", 'so "so"', "it's"]),
    "boolean": st.sampled_from(["t", "f"]),
    "regclass": st.sampled_from(["public.laid_down", "pg_catalog.pg_class"]),
    "bit varying(8)": st.from_regex(r"[01]{0,8}", fullmatch=True),
    "numrange": _range_of(st.sampled_from(["1.0", "-2.50", "3e20"])),
    "tstzrange": _range_of(_FINITE),
    "tstzmultirange": _range_of(_FINITE).map(lambda one: "{" + one + "}"),
    "point": st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2).map(repr),
    "size": _FLOAT.map(lambda number: f'({number},"2026-11-24 01:02:03+00")'),
    "numeric[]": _array_of(_NUMERIC),
    "float8[]": _array_of(_FLOAT),
    "text[]": _array_of(_WORDS),
    "bytea[]": _array_of(_BYTES),
    "timestamptz[]": _array_of(_ZONED),
    "interval[]": _array_of(_INTERVAL),
    "size[]": _array_of(st.just('(0.1,"2026-11-24 01:02:03+00")')),
}
COLUMNS = {f"c{number}": kind for number, kind in enumerate(TYPES)}

SESSIONS = st.fixed_dictionaries(
    {
        "TimeZone": st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns", "<-03>+3", "Europe/Berlin"]),
        "DateStyle": st.sampled_from(["ISO, MDY", "German, DMY", "SQL, DMY", "Postgres, MDY"]),
        "extra_float_digits": st.sampled_from(["-15", "0", "1", "3"]),
        "IntervalStyle": st.sampled_from(["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        "bytea_output": st.sampled_from(["hex", "escape"]),
        "lc_monetary": st.sampled_from(["C", "C.UTF-8", "POSIX"]),
        "quote_all_identifiers": st.sampled_from(["on", "off"]),
        "search_path": st.sampled_from(["public", "pg_catalog", '""']),
        "client_encoding": st.sampled_from(["UTF8", "LATIN1"]),
    }
)


PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "extra_float_digits": "1",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog",
}
"""What the trigger prints under."""


@dataclass(frozen=True, slots=True)
class Exact:
    """A JSON number with all its digits."""

    digits: str


def exactly(text: str | bytes) -> Any:
    """The JSON value with numbers as they are spelled, constants such as NaN refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_float=Exact, parse_int=Exact, parse_constant=refuse)


@pytest.fixture(scope="module")
def samples(shared_database: DatabaseAddress) -> Iterator[psycopg.Connection[Any]]:
    """A table with a column of each type, attached, and an equal one where values are laid down before."""
    columns = ", ".join(f"{name} {kind if kind not in OWN else 'public.' + kind}" for name, kind in COLUMNS.items())
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        connection.execute(
            f"""CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'it''s');
                CREATE DOMAIN price AS numeric CHECK (VALUE IS NOT NULL OR VALUE IS NULL);
                CREATE TYPE size AS (width float8, at timestamptz);
                CREATE TABLE laid_down (id int PRIMARY KEY, {columns});
                CREATE TABLE samples (id int PRIMARY KEY, {columns})""".encode()
        )
        attach(connection, [Attachment(resource="SAMPLES", table="samples")])
        yield connection


OWN = ("mood", "price", "size", "size[]")


SEARCH = settings(
    max_examples=60,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


def _captured(connection: psycopg.Connection[Any]) -> list[tuple[str | None, str | None]]:
    return connection.execute("SELECT old, new FROM clarion.outbox ORDER BY id").fetchall()


@SEARCH
@given(
    first=st.fixed_dictionaries(dict(zip(COLUMNS, (s | st.none() for s in TYPES.values()), strict=True))),
    sessions=st.lists(SESSIONS, min_size=2, max_size=2),
)
def test_the_captured_text_is_the_same_whatever_the_session_had_set(
    samples: psycopg.Connection[Any], first: dict[str, str | None], sessions: list[dict[str, str]]
) -> None:
    seen = []
    for session in sessions:
        with samples.transaction(force_rollback=True):
            samples.execute(
                sql.SQL("INSERT INTO laid_down VALUES (1, {})").format(
                    sql.SQL(", ").join(sql.Literal(first[name]) for name in COLUMNS)
                )
            )
            for name, value in session.items():
                samples.execute("SELECT set_config(%s, %s, true)", (name, value))
            samples.execute("INSERT INTO public.samples SELECT * FROM public.laid_down")
            samples.execute("UPDATE public.samples SET id = 1")  # nothing
            samples.execute("DELETE FROM public.samples")
            samples.execute("SET LOCAL client_encoding = 'UTF8'")
            seen.append(_captured(samples))
            for name, value in PINNED.items():
                samples.execute("SELECT set_config(%s, %s, true)", (name, value))
            printed = samples.execute("SELECT row_to_json(l)::text FROM public.laid_down l").fetchone()
            stored = samples.execute(
                "SELECT c0::text, c1::text, c2::text, c3::text, c6::text, c7 FROM public.laid_down"
            ).fetchone()
    assert seen[0] == seen[1]
    assert printed is not None
    assert seen[0][0][1] == printed[0], "another text than PostgreSQL's own"
    (nothing, new), (old, nothing_either) = seen[0]
    assert nothing is nothing_either is None
    assert new is not None
    assert new == old
    row = exactly(new)
    assert stored is not None
    for name, text in zip(("c0", "c1", "c2", "c3"), stored[:4], strict=True):
        # What JSON has no number for is text, and nothing is lost.
        assert row[name] == (text if text in {"NaN", "Infinity", "-Infinity"} or text is None else Exact(text))
    assert row["c6"] == (None if stored[4] is None else exactly(stored[4]))
    assert row["c7"] == stored[5]
    assert exactly(render(_event(old=None, new=new)))["data"] == row


@SEARCH
@given(
    rows=st.lists(
        st.fixed_dictionaries({name: TYPES[kind] for name, kind in COLUMNS.items() if kind in {"numeric", "json"}}),
        min_size=2,
        max_size=2,
    )
)
def test_an_update_tells_the_fields_whose_text_differs_and_their_old_values(
    samples: psycopg.Connection[Any], rows: list[dict[str, str]]
) -> None:
    before, after = rows
    with samples.transaction(force_rollback=True):
        samples.execute("INSERT INTO samples (id, c0, c6) VALUES (1, %(c0)s, %(c6)s)", before)
        samples.execute("UPDATE samples SET c0 = %(c0)s, c6 = %(c6)s", after)
        _, *updates = _captured(samples)
        texts = samples.execute("SELECT %s::numeric::text = %s::numeric::text", (before["c0"], after["c0"])).fetchone()
    expected = [name for name, same in (("c0", texts == (True,)), ("c6", before["c6"] == after["c6"])) if not same]
    if not expected:
        assert updates == []
        return
    ((old, new),) = updates
    body = exactly(render(_event(old=old, new=new)))
    assert old is not None
    assert body["changed"] == expected
    assert body["previous"] == {name: exactly(old)[name] for name in expected}


def _event(*, old: str | None, new: str | None) -> Event:
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    action = "c" if old is None else "u"
    change = Change(1, 1, "SAMPLES", action, "1", moment, moment, None, None, None, old, new)
    return Event(1, 1, 0, 1, 1, 1, 1, 1, change)


REFUSED_BY_JSONB = {
    "a NUL": r'{"a": "\u0000"}',
    "a NUL in a key": r'{"\u0000": 1}',
    "half a pair": r'{"a": "\ud800"}',
    "a pair the wrong way round": r'["\udc00\ud800"]',
    "a number beyond numeric": '{"a": 1e999999}',
}


def test_what_jsonb_refuses_is_captured_and_delivered(deployment: Deployment) -> None:
    connection = deployment.connection
    connection.execute("CREATE TABLE odd (id int PRIMARY KEY, document json, amount numeric, raw bytea)")
    deployment.attach(Attachment(resource="ODD", table="odd"))
    deployment.subscribe(deployment.register(), "ODD")
    documents = list(REFUSED_BY_JSONB.values())
    for document in documents:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT %s::text::json::jsonb", (document,))
    documents += [
        '{"a": 1, "a": 2}',
        "[" * 3000 + "]" * 3000,
        " [1.0, 1.00,\n1e400] ",
        '"' + "ü\U0001f469" * 1000 + '"',
    ]
    digits = "123456789012345678901234567890.10"
    deployment.serve()
    for number, document in enumerate(documents):
        connection.execute("INSERT INTO odd VALUES (%s, %s, %s, '\\x00ff')", (number, document, digits))
        connection.execute("UPDATE odd SET amount = 'NaN' WHERE id = %s", (number,))
    # Too large for a body: left out, and said so.
    connection.execute("INSERT INTO odd VALUES (99, to_json(repeat('x', 300000)))")
    received = deployment.receiver.wait_for(2 * len(documents) + 1)
    deployment.wait_until_settled()
    bodies: dict[tuple[str, str], bytes] = {}
    for request in received:
        Webhook(list(deployment.secrets.values())).verify(request.body, request.headers)
        assert len(request.body) <= 256 * 1024
        head = json.loads(request.body.partition(b',"change_id"')[0] + b"}")
        bodies[head["object_id"], head["action"]] = request.body
    assert len(bodies) == len(received)
    for number, document in enumerate(documents):
        prefix = b'"data":{"id":%d,"document":%b,"amount":' % (number, document.encode())
        assert prefix + digits.encode() + rb',"raw":"\\x00ff"}' in bodies[str(number), "create"]
        update = bodies[str(number), "update"]
        assert prefix + rb'"NaN","raw":"\\x00ff"}' in update
        assert b'"changed":["amount"]' in update
        assert update.endswith(b',"previous":{"amount":%b}}' % digits.encode())
    omitted = json.loads(bodies["99", "create"])
    assert omitted["data"] is None
    assert omitted["data_omitted"] is True
    assert deployment.rows("SELECT status, count(*) FROM clarion.events GROUP BY status") == [
        ("DELIVERED", len(received))
    ]


def test_a_key_of_any_type_is_one_text_whatever_the_session_had_set(samples: psycopg.Connection[Any]) -> None:
    with samples.transaction(force_rollback=True):
        samples.execute(
            "CREATE TABLE measured (at timestamptz, width float8, lasted interval, PRIMARY KEY (at, width, lasted))"
        )
        attach(samples, [Attachment(resource="MEASURED", table="measured")])
        samples.execute("INSERT INTO measured VALUES ('2026-11-24 01:02:03.5+00', 0.1::float8 + 0.2, '1 day 02:00')")
        samples.execute(
            "SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL DateStyle = 'German'; SET LOCAL extra_float_digits = -3;"
            "SET LOCAL IntervalStyle = 'postgres_verbose'"
        )
        samples.execute("DELETE FROM measured")
        object_ids = samples.execute("SELECT object_id FROM clarion.outbox ORDER BY id").fetchall()
    assert object_ids == [('["2026-11-24 01:02:03.5+00", "0.30000000000000004", "P1DT2H"]',)] * 2
