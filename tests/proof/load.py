"""The application's side of a proof: writers that commit at an even rate, and what their commits took to arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import orjson
import psycopg

from harness.deployment import Deployment
from harness.receiver import Received

SCHEMA = """
    CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organisation text NOT NULL DEFAULT 'default',
                        version integer NOT NULL DEFAULT 1, note text);
    CREATE INDEX ON items (organisation);
"""


class Writer:
    """A thread that raises the versions of some items, one commit each, until the block ends."""

    def __init__(self, deployment: Deployment, items: Sequence[int], per_second: float) -> None:
        self._url = deployment.database.url
        self._items = items
        self._per_second = per_second
        self._stop = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.commits_count = 0

    def _run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                begun = time.monotonic()
                while not self._stop.is_set():
                    item = self._items[self.commits_count % len(self._items)]
                    connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                    self.commits_count += 1
                    self._stop.wait(max(0, begun + self.commits_count / self._per_second - time.monotonic()))
        except psycopg.Error as error:
            self._failed = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failed is not None and error is None:
            raise self._failed


def add_items(deployment: Deployment, count: int, organisation: str = "default") -> list[int]:
    """Ids of new items, in one transaction."""
    rows = deployment.connection.execute(
        "INSERT INTO items (organisation) SELECT %s FROM generate_series(1, %s) RETURNING id", (organisation, count)
    )
    return [row[0] for row in rows]


def committed_by_receiver(deployment: Deployment) -> dict[int, dict[str, int]]:
    """For each receiver the items of its organisation and their last version."""
    found: dict[int, dict[str, int]] = {receiver: {} for receiver in deployment.secrets}
    for receiver, item, version in deployment.rows(
        """SELECT r.id, i.id::text, i.version FROM clarion.receivers r
           JOIN clarion.organisations o ON o.id = r.organisation_id JOIN items i ON i.organisation = o.name"""
    ):
        found[receiver][item] = version
    return found


def receiver_of(deployment: Deployment) -> dict[int, int]:
    """The receiver of each subscription."""
    return dict(deployment.rows("SELECT id, receiver_id FROM clarion.subscriptions"))


def latencies_ms(
    deployment: Deployment,
    requests: Iterable[Received],
    *,
    receivers: Iterable[int],
    since: float = 0,
    until: float = 1e18,
) -> list[float]:
    """Milliseconds from the trigger's clock to the receiver's, of each change at each receiver when it first arrived there.

    Counted are changes that were captured from `since` to `until` (Unix seconds), at these receivers.
    """
    wanted = set(receivers)
    owners = {
        row[0]: (row[1], row[2])
        for row in deployment.rows("SELECT id, receiver_id, organisation_id FROM clarion.subscriptions")
    }
    captured: dict[tuple[int, int], float] = {
        (row[0], row[1]): row[2]
        for row in deployment.rows(
            "SELECT organisation_id, change_id, extract(epoch FROM captured_at)::float8 FROM clarion.ledger"
        )
    }
    seen: set[tuple[int, int]] = set()
    result = []
    for request in requests:
        body: dict[str, Any] = orjson.loads(request.body)
        receiver, organisation = owners[body["subscription_id"]]
        if (receiver, body["change_id"]) in seen:
            continue
        seen.add((receiver, body["change_id"]))
        at = captured[(organisation, body["change_id"])]
        if receiver in wanted and since <= at <= until:
            result.append((request.at - at) * 1000)
    return result
