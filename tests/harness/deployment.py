"""A whole deployment for the tests of the data path: an application's table, receivers, `clarion serve`, and the oracle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

from clarion.capture.attach import Attachment, attach
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.endpoint import header_binding, secret_binding
from clarion.sender.seal import Sealer, create_key
from clarion.sender.sign import new_secret
from harness.oracle import Verdict, judge
from harness.process import ClarionProcess, Finished, clean_environment
from harness.receiver import Received, ReceiverProcess
from harness.tables import count_broken_links, read_tables
from tls import make_authority

ITEMS = """
    CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, version integer NOT NULL DEFAULT 1, note text);
"""

FURTHER_SUBSCRIPTIONS = (0, 1, 0, 2)
"""How many subscriptions to updates the first, second … of several receivers have beyond the first."""
SHARDS_APART = 11
"""Has no divisor in common with the number of shards, so that receivers come to all of them."""


class Deployment:
    """Beside `database`: an application's table `items` (resource ITEMS), keys, a certificate authority, one receiver process."""

    def __init__(
        self, database: DatabaseAddress, directory: Path, start: Callable[..., ClarionProcess], *, schema: str = ITEMS
    ) -> None:
        self.database = database
        self.directory = directory
        self._start = start
        self._random = SystemRandom()
        (directory / "ca").mkdir()
        self.authority = make_authority(directory / "ca")
        self._sealer = Sealer(create_key(directory / "secret.key", self._random), self._random)
        self.secrets: dict[int, str] = {}
        self.connection: psycopg.Connection[Any] = psycopg.connect(database.url, autocommit=True)
        self.connection.execute(schema)
        self.receiver = ReceiverProcess(directory / "receiver", self.authority.issue(addresses=["127.0.0.1"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.receiver.__exit__(None, None, None)

    def attach(self, *attachments: Attachment) -> None:
        """Attach tables; without arguments the table `items`."""
        attach(self.connection, attachments or [Attachment(resource="ITEMS", table="items")])

    def register(self, uri: str | None = None, *, organisation: str = "default", **columns: object) -> int:
        """A receiver's id, with a secret of its own; the organisation is made if it is not there."""
        self.connection.execute(
            "INSERT INTO clarion.organisations (name) VALUES (%s) ON CONFLICT DO NOTHING", (organisation,)
        )
        found = self.connection.execute(
            "SELECT nextval(pg_get_serial_sequence('clarion.receivers', 'id')), id FROM clarion.organisations WHERE name = %s",
            (organisation,),
        ).fetchone()
        assert found is not None
        receiver_id, organisation_id = found
        secret = self.secrets[receiver_id] = new_secret(self._random)
        values = {
            "id": receiver_id,
            "organisation_id": organisation_id,
            "name": f"receiver {receiver_id}",
            "webhook_uri": uri or self.receiver.uri(),
            "shared_secret_sealed": self._sealer.seal(secret.encode(), secret_binding(organisation_id, receiver_id)),
            "shared_secret_hint": secret[-4:],
            **columns,
        }
        self.connection.execute(
            psycopg.sql.SQL("INSERT INTO clarion.receivers ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, values)),
                psycopg.sql.SQL(", ").join(map(psycopg.sql.Placeholder, values)),
            ),
            values,
        )
        return int(receiver_id)

    def unseal(self, sealed: bytes, binding: str) -> bytes:
        """What the deployment's key has sealed."""
        return self._sealer.unseal(sealed, binding)

    def add_header(self, receiver_id: int, key: str, value: str) -> None:
        """A custom header of the receiver, sealed as the API does it."""
        ((organisation_id,),) = self.rows("SELECT organisation_id FROM clarion.receivers WHERE id = %s", receiver_id)
        self.connection.execute(
            "INSERT INTO clarion.headers (organisation_id, receiver_id, key, value_sealed) VALUES (%s, %s, %s, %s)",
            (
                organisation_id,
                receiver_id,
                key,
                self._sealer.seal(value.encode(), header_binding(organisation_id, receiver_id, key)),
            ),
        )

    def subscribe(
        self,
        receiver_id: int,
        resource: str = "ITEMS",
        actions: Sequence[str] = ("CREATE", "UPDATE", "DELETE"),
        *,
        condition: str | None = None,
        fields: Sequence[str] | None = None,
        template: str | None = None,
    ) -> list[int]:
        """Subscriptions of the receiver, one for each action; their ids. Nothing is checked."""
        return [
            int(row[0])
            for action in actions
            if (
                row := self.connection.execute(
                    "INSERT INTO clarion.subscriptions "
                    "(organisation_id, receiver_id, resource, action, condition, fields, template) "
                    "SELECT organisation_id, id, %s, %s, %s, %s::text[], %s "
                    "FROM clarion.receivers WHERE id = %s RETURNING id",
                    (resource, action, condition, None if fields is None else list(fields), template, receiver_id),
                ).fetchone()
            )
        ]

    def register_several(
        self, count: int, uri: str | None = None, *, organisation: str = "default", **columns: object
    ) -> list[int]:
        """Receivers of ITEMS, subscribed to every action; some of them twice or three times to updates. Their ids.

        Each of an object's events waits for the one before, whichever subscriptions of a receiver the two belong to.
        The ids are spread over the shards: those of few neighbours would all stay with the worker that came first.
        """
        receivers = []
        for place in range(count):
            receivers.append(self.register(uri, organisation=organisation, **columns))
            self.subscribe(receivers[-1])
            for _ in range(FURTHER_SUBSCRIPTIONS[place % len(FURTHER_SUBSCRIPTIONS)]):
                self.subscribe(receivers[-1], actions=["UPDATE"])
            self.connection.execute(
                "SELECT setval(pg_get_serial_sequence('clarion.receivers', 'id'), %s)",
                (receivers[-1] + SHARDS_APART - 1,),
            )
        return receivers

    def serve(self, *arguments: str, **settings: str) -> ClarionProcess:
        """`clarion serve` with router and delivery, ready."""
        roles = arguments or ("--role", "router", "--role", "delivery")
        environment = {
            "CLARION_DATABASE_URL": self.database.url,
            "CLARION_SECRET_KEY_FILE": str(self.directory / "secret.key"),
            "CLARION_CA_FILE": str(self.authority.ca_file),
            "CLARION_ALLOWED_NETWORKS": "127.0.0.0/8",
            # One process stands for the hosts of all receivers.
            "CLARION_CONNECTIONS_PER_HOST": "4096",
        }
        process = self._start("serve", *roles, **(environment | settings))
        process.wait_for_line("^clarion ready")
        return process

    @contextmanager
    def single_router(self, *arguments: str) -> Iterator[ClarionProcess]:
        """`harness.single_router`, which is killed at the end of the block."""
        command = [sys.executable, "-m", "harness.single_router", self.database.url, *arguments]
        environment = clean_environment(self.directory, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
        process = ClarionProcess(command, environment, self.directory)
        try:
            yield process
        finally:
            process.kill()

    def command(self, *arguments: str) -> Finished:
        """What `clarion ARGUMENTS…` left, run on this database."""
        return self._start(*arguments, CLARION_DATABASE_URL=self.database.url).wait(60)

    def reconnect(self, seconds: float = 20) -> None:
        """A new session, as soon as the server gives one."""
        self.connection.close()
        deadline = time.monotonic() + seconds
        while self.connection.closed:
            try:
                self.connection = psycopg.connect(self.database.url, autocommit=True)
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, f"no connection for {seconds} s"
                time.sleep(0.02)

    # ------------------------------------------------------------ what is in the tables

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, parameters).fetchall()

    def wait_until_settled(self, timeout_s: float = 30) -> None:
        """Until outbox and queue are empty."""
        self.wait_for_row(
            "SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox) AND NOT EXISTS (SELECT FROM clarion.queue)",
            timeout_s=timeout_s,
        )

    def wait_for_row(self, query: str, *parameters: object, timeout_s: float = 30) -> tuple[Any, ...]:
        """The first row of the query, as soon as there is one."""
        deadline = time.monotonic() + timeout_s
        while True:
            if found := self.rows(query, *parameters):
                return found[0]
            assert time.monotonic() < deadline, f"after {timeout_s} s still no row: {query}"
            time.sleep(0.02)

    # ------------------------------------------------------------ the oracle

    def assert_chained(self) -> None:
        """Every stored change hashes to its link, from the genesis on, no number is missing, and each knows its events."""
        assert count_broken_links(self.connection) == 0
        made_by = {
            first + place: position
            for position, first, count in self.rows("SELECT position, first_event_id, events_count FROM clarion.ledger")
            for place in range(count)
        }
        assert made_by == dict(
            self.rows(
                "SELECT event_id, position FROM clarion.events UNION SELECT event_id, position FROM clarion.queue"
            )
        )

    def judge(
        self,
        committed: Mapping[int, Mapping[str, int]],
        log: Iterable[Received],
        *,
        resource: str = "ITEMS",
        chained: bool = True,
    ) -> Verdict:
        """What `harness.oracle` says of these receivers' objects, given their last versions; see there."""
        return judge(committed, read_tables(self.connection, resource, chained=chained), self.secrets, log)

    def check(self, *, committed_versions: dict[int, int], duplicates_max: int = 0) -> list[Received]:
        """All requests, once everything is settled: the oracle finds no fault, and at most so many duplicates.

        `committed_versions` has the last version of each row of `items`, which each receiver subscribed to.
        """
        assert self.rows("SELECT id, version FROM items ORDER BY id") == sorted(committed_versions.items())
        received = self.receiver.received()
        versions = {str(item): version for item, version in committed_versions.items()}
        verdict = self.judge(dict.fromkeys(self.secrets, versions), received)
        assert verdict.expected > 0
        assert not verdict.faults(), verdict
        assert verdict.duplicates <= duplicates_max, verdict
        assert verdict.unrecorded == verdict.duplicates, f"not made again though its outcome was lost: {verdict}"
        return received
