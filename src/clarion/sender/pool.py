"""The connections to one receiver, and the exchanges that wait for one.

A new TLS connection costs fifty times a request on a kept one, so callers wait for a free connection rather than
open beyond the receiver's concurrency, and idle connections are kept. Every exchange given to a pool leaves it
once: answered, failed, or taken back by `take_back`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from datetime import datetime

import msgspec

from clarion.core.clock import Clock
from clarion.sender.address import Target
from clarion.sender.answer import KeptHeaders
from clarion.sender.connection import Opener
from clarion.sender.destination import Destination
from clarion.sender.http1 import Http1Connection
from clarion.sender.opening import Opening, fault_of_ours
from clarion.sender.outcome import Attempt, Failure, Outcome
from clarion.sender.route import OpeningFailed

IDLE_NS_MAX = 120 * 1_000_000_000
CONNECTION_AGE_NS_MAX = 600 * 1_000_000_000
"""A busy connection is replaced after this time, so that a changed name is noticed."""

OPENING_ALONE_S = 0.05
"""The first connection to a receiver is opened alone for so long, then others beside it. A worker that begins has something for
all receivers at once: the first requests would wait for the handshakes of many connections that the first one makes needless.
"""

EXCHANGES_WHILE_CONTENDED = 50
"""After so many requests a connection is given up for a receiver that waits for room at the same destination."""


class Exchange(msgspec.Struct, eq=False):
    """One request on its way, from `send` to `done`.

    `waiting_since_ns` is when it found no connection (None: it never had to wait), `opening` what its connection came from
    if it waited for a new one, `served_ns` when it was given one that came free.
    """

    expected_response_code: int | None
    started_at: datetime
    started_ns: int
    deadline_ns: int
    done: Callable[[Attempt], None]
    request: bytes = b""
    private: tuple[str, ...] = ()
    pool: Pool | None = None
    connection: Http1Connection | None = None
    peer_address: str | None = None
    source_address: str | None = None
    waiting_since_ns: int | None = None
    opening: Opening | None = None
    served_ns: int | None = None
    repeated: bool = False
    uniform: bool = False


Finish = Callable[[Exchange, Failure | None], Callable[[], None]]
"""Reads the answer off the exchange's connection; the function returned tells the caller of `send`."""


class Pool:
    """At most `limit` connections to one target. Owned by one receiver, so that none is shared across receivers."""

    def __init__(
        self,
        target: Target,
        limit: int,
        destination: Destination,
        opener: Opener,
        context: ssl.SSLContext,
        clock: Clock,
        finish: Finish,
    ) -> None:
        self.target = target
        self.destination = destination
        self.limit = limit
        self.kept_headers = KeptHeaders()
        self._opener = opener
        self._context = context
        self._clock = clock
        self._finish = finish
        self._idle: list[Http1Connection] = []
        self._busy: dict[Http1Connection, Exchange] = {}
        self._closing: set[Http1Connection] = set()
        self._opening: dict[asyncio.Task[None], Opening] = {}
        self._waiting: deque[Exchange] = deque()
        self._waiting_for_fresh: deque[Exchange] = deque()
        self._preference = 0
        self._alone: asyncio.TimerHandle | None = None
        self._retired = False
        self._all_ended = asyncio.Event()

    def __repr__(self) -> str:
        return (
            f"Pool({self.target.authority}, idle={len(self._idle)}, busy={len(self._busy)},"
            f" opening={len(self._opening)}, waiting={len(self._waiting) + len(self._waiting_for_fresh)})"
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open, opening or waiting."""
        return not (
            self._idle or self._busy or self._closing or self._opening or self._waiting or self._waiting_for_fresh
        )

    @property
    def connections_count(self) -> int:
        """Connections that are open or being opened."""
        return len(self._idle) + len(self._busy) + len(self._closing) + len(self._opening)

    def fault_of_ours(self, exchange: Exchange) -> Failure | None:
        """What became of an exchange whose deadline passed, if the time went on our side; None if the receiver had it."""
        since_ns = exchange.waiting_since_ns
        if since_ns is None:
            return None
        opening = exchange.opening
        if exchange.connection is None:
            # The first opening serves the first that waits.
            waiting = [*self._waiting_for_fresh, *self._waiting]
            opening = dict(zip(waiting, self._opening.values(), strict=False)).get(exchange)
        return fault_of_ours(exchange.started_ns, exchange.deadline_ns, since_ns, opening, exchange.served_ns)

    def submit(self, exchange: Exchange) -> None:
        """Send `exchange` on a free connection, now or when there is one."""
        exchange.pool = self
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._begin(connection, exchange)
                return
        exchange.waiting_since_ns = exchange.started_ns
        self._waiting.append(exchange)
        self._open_as_needed()

    def take_back(self, exchange: Exchange) -> None:
        """Forget an exchange that is over by decision (deadline, shutdown); its connection ends at once."""
        connection = exchange.connection
        if connection is not None:
            if self._busy.pop(connection, None) is not None:
                self._closing.add(connection)
                connection.abandon()
        elif exchange in self._waiting:
            self._waiting.remove(exchange)
        elif exchange in self._waiting_for_fresh:
            self._waiting_for_fresh.remove(exchange)

    def give_up_idle(self) -> bool:
        """Close one idle connection for the sake of another pool, if there is one."""
        if not self._idle:
            return False
        self._close(self._idle.pop(0))
        return True

    def open_in_turn(self) -> None:
        """Open what waits, now that the destination has room."""
        self._open_as_needed()

    def close_idle(self, now_ns: int) -> None:
        """Close connections that have been idle for longer than `IDLE_NS_MAX`."""
        expired = [connection for connection in self._idle if now_ns - connection.idle_since_ns > IDLE_NS_MAX]
        for connection in expired:
            self._idle.remove(connection)
            self._close(connection)

    def retire(self) -> None:
        """Take no further exchange and keep no connection; exchanges under way end as usual."""
        self._retired = True
        self._close_all_idle()

    async def shut(self) -> None:
        """Stop opening and close all connections; returns when the last one has ended.

        Exchanges must have been taken back before.
        """
        self.retire()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        self._opening.clear()
        if self._closing:
            self._all_ended.clear()
            await self._all_ended.wait()

    # Connections call these

    def exchange_ended(self, connection: Http1Connection, failure: Failure | None) -> None:
        exchange = self._busy.pop(connection)
        if failure is not None and self._may_repeat(connection, exchange, failure):
            # The receiver closed a kept connection as we used it, as every server may. Whatever else is kept is
            # as old, so the repetition takes a connection opened from now on.
            exchange.repeated = True
            exchange.connection = None
            exchange.waiting_since_ns = self._clock.monotonic_ns()
            exchange.opening = exchange.served_ns = None
            self._close_all_idle()
            self._closing.add(connection)
            self._waiting_for_fresh.append(exchange)
            self._open_as_needed()
            return
        tell = self._finish(exchange, failure)
        self._release(connection)
        tell()

    def connection_ended(self, connection: Http1Connection) -> None:
        self._closing.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closing:
            self._all_ended.set()
        self.destination.left(self)
        self._open_as_needed()

    # Inner workings

    @staticmethod
    def _may_repeat(connection: Http1Connection, exchange: Exchange, failure: Failure) -> bool:
        return (
            failure.outcome is Outcome.CONNECTION_CLOSED
            and connection.exchanges_count > 1
            and not connection.answered_any
            and not exchange.repeated
        )

    def _begin(self, connection: Http1Connection, exchange: Exchange) -> None:
        self._busy[connection] = exchange
        exchange.connection = connection
        connection.begin(exchange.request)

    def _release(self, connection: Http1Connection) -> None:
        now_ns = self._clock.monotonic_ns()
        if not connection.usable:
            self._closing.add(connection)
        elif (
            self._retired
            or len(self._busy) + len(self._idle) >= self.limit
            or now_ns - connection.opened_ns > CONNECTION_AGE_NS_MAX
            or (
                self.destination.is_contended
                and (not self._waiting or connection.exchanges_count >= EXCHANGES_WHILE_CONTENDED)
            )
        ):
            self._close(connection)
        elif self._waiting:
            exchange = self._waiting.popleft()
            exchange.served_ns = now_ns
            self._begin(connection, exchange)
            return
        else:
            connection.idle_since_ns = now_ns
            self._idle.append(connection)
            return
        self._open_as_needed()

    def _close(self, connection: Http1Connection) -> None:
        self._closing.add(connection)
        connection.close()

    def _close_all_idle(self) -> None:
        for connection in self._idle:
            self._close(connection)
        self._idle = []

    def _open_as_needed(self) -> None:
        wanted = len(self._waiting_for_fresh) + len(self._waiting)
        while len(self._opening) < wanted and len(self._busy) + len(self._idle) + len(self._opening) < self.limit:
            if self._first_is_opened_alone() or not self.destination.admits(self):
                return
            opening = Opening(self._clock.monotonic_ns)
            task = asyncio.get_running_loop().create_task(self._open(opening))
            self._opening[task] = opening
            task.add_done_callback(lambda task: self._opening.pop(task, None))

    def _first_is_opened_alone(self) -> bool:
        """Whether the others are to wait for the opening under way; they are asked again when its time is over."""
        if self._busy or self._idle or not self._opening:
            return False
        first = next(iter(self._opening.values()))
        left_s = OPENING_ALONE_S - (self._clock.monotonic_ns() - first.began_ns) / 1e9
        if left_s <= 0:
            return False
        if self._alone is None:
            self._alone = asyncio.get_running_loop().call_later(left_s, self._open_beside)
        return True

    def _open_beside(self) -> None:
        self._alone = None
        self._open_as_needed()

    async def _open(self, opening: Opening) -> None:
        try:
            connection = await self._opener.open(self.target, self, self._preference, self._context, opening)
        except OpeningFailed as failed:
            self._preference += 1
            self._opening_failed(failed.failure, failed.peer_address, failed.source_address)
        except Exception:
            self._opening_failed(Failure(Outcome.OVERLOADED, "opening a connection failed", ours=True))
            raise
        else:
            if connection.usable:
                self._opened(connection, opening)
            else:
                failure = connection.loss or Failure(Outcome.CONNECTION_CLOSED, _CLOSED_AT_ONCE)
                self._opening_failed(failure, connection.peer_address, connection.source_address)

    def _opened(self, connection: Http1Connection, opening: Opening) -> None:
        self._leave_opening()
        connection.opened_ns = connection.idle_since_ns = self._clock.monotonic_ns()
        queue = self._waiting_for_fresh or self._waiting
        if queue:
            exchange = queue.popleft()
            exchange.opening = opening
            self._begin(connection, exchange)
        elif self._retired:
            self._close(connection)
        else:
            self._idle.append(connection)
        self._open_as_needed()

    def _opening_failed(
        self, failure: Failure, peer_address: str | None = None, source_address: str | None = None
    ) -> None:
        """One opening answers for one exchange; the others have their own, or get one now."""
        self._leave_opening()
        queue = self._waiting_for_fresh or self._waiting
        if queue:
            exchange = queue.popleft()
            exchange.peer_address = peer_address
            exchange.source_address = source_address
            self._finish(exchange, failure)()
        self.destination.left(self)
        self._open_as_needed()

    def _leave_opening(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._opening.pop(task, None)


_CLOSED_AT_ONCE = "the receiver closed the connection before it answered"
