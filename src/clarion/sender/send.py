"""One attempt from start to Outcome.

    send ── template, bytes ──▶ pool ── free or new connection ──▶ http1 ── answer ──▶ judged ──▶ done

Callbacks throughout: on a kept connection no task and no timer is made for a request. Deadlines are looked at
by one sweep every 50 ms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clarion.core.clock import Clock, Now
from clarion.core.errors import RequestRefused
from clarion.sender.answer import RETRY_AFTER_STATUSES, judge_status, retry_after_s
from clarion.sender.connection import CONNECT_BUDGET_S, Opener
from clarion.sender.destination import CONNECTIONS_MAX, Destination
from clarion.sender.http1 import BODY_KEPT_BYTES_MAX
from clarion.sender.mirror import without_private
from clarion.sender.outcome import Attempt, Failure, Outcome
from clarion.sender.policy import Policy, Rule
from clarion.sender.pool import IDLE_NS_MAX, Exchange, Pool
from clarion.sender.request import RequestTemplate, RequestUnsendable, request_template
from clarion.sender.resolve import RESOLVE_BUDGET_S
from clarion.sender.route import BLOCKED, Route
from clarion.sender.signing_key import SigningKey
from clarion.sender.tls import COMMON, Identity, IdentityUnusable

SWEEP_S = 0.05
_HOUSEKEEPING_NS = 1_000_000_000
_STALL_NS = 1_000_000_000
_CLOSE_BUDGET_S = 1.5
_UNREACHED = frozenset(
    {
        Outcome.BLOCKED,
        Outcome.CONNECT_FAILED,
        Outcome.DNS_FAILED,
        Outcome.OVERLOADED,
        Outcome.PROXY_FAILED,
        Outcome.TIMED_OUT,
    }
)
_UNIFORM_NS = round((RESOLVE_BUDGET_S + CONNECT_BUDGET_S) * 1e9)
_UNIFORM_MARGIN_NS = 150_000_000
"""Longer than a sweep, so that what a sweep ends is not later than the rest."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is needed to reach a receiver.

    All of `secrets` sign, the current one first; `previous_secret` too, before the Unix second beside it. `signatures`
    holds what the receiver asked for: "V1", "V1A" (by those of `signing_keys` whose time it is), "ION". `identity`
    is what is special about its TLS. `timeout_s` is the whole attempt's deadline, `concurrency` the connections at most.
    Pass the same object as long as nothing changed: it is compared at each send.
    """

    receiver_id: int
    uri: str
    content_type: str
    headers: tuple[tuple[str, str], ...]
    secrets: tuple[bytes, ...]
    signatures: tuple[str, ...]
    timeout_s: int
    concurrency: int
    expected_response_code: int | None
    identity: Identity = COMMON
    previous_secret: tuple[bytes, int] | None = None
    signing_keys: tuple[SigningKey, ...] = ()

    def __repr__(self) -> str:
        return f"Endpoint(receiver_id={self.receiver_id}, uri={self.uri!r}, headers and secrets hidden)"


class _Receiver:
    """An endpoint made ready; `template` and `pool` are missing when nothing can be sent to it, for the reason `failure`."""

    __slots__ = ("endpoint", "failure", "pool", "template", "used_ns")

    def __init__(
        self, endpoint: Endpoint, template: RequestTemplate | None, pool: Pool | None, failure: Failure, used_ns: int
    ) -> None:
        self.endpoint = endpoint
        self.failure = failure
        self.template = template
        self.pool = pool
        self.used_ns = used_ns


class Sender:
    """Sends requests to receivers. Made inside a running event loop, ended by `close`."""

    def __init__(
        self,
        clock: Clock,
        *,
        policy: Policy,
        ca_file: Path | None,
        route: Route = Route(),
        connections_per_host: int = CONNECTIONS_MAX,
    ) -> None:
        """`policy` says where requests may go, `route` how they get there; `ca_file` adds authorities (PEM).
        `connections_per_host` bounds what all receivers together may open to one host.

        Raises EnvironmentRefused when `ca_file` cannot be used.
        """
        self._clock = clock
        self._opener = Opener(policy, route, ca_file)
        self._loop = asyncio.get_running_loop()
        self._receivers: dict[int, _Receiver] = {}
        self._connections_per_host = connections_per_host
        self._retired: list[Pool] = []
        self._destinations: dict[str, Destination] = {}
        self._active: set[Exchange] = set()
        self._untold: dict[Exchange, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._closed = False
        self._swept_ns = self._tidied_ns = clock.monotonic_ns()
        self._stalled_ns = 0
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def __repr__(self) -> str:
        return f"Sender(receivers={len(self._receivers)}, active={len(self._active)})"

    def send(
        self,
        endpoint: Endpoint,
        message_id: str,
        now: Now,
        body: bytes,
        extra_headers: tuple[tuple[str, str], ...],
        done: Callable[[Attempt], None],
        *,
        uniform: bool = False,
    ) -> None:
        """Make one attempt; `done` gets its Attempt, once and never before this returns.

        `uniform` makes all ways in which no connection came about look alike, in words, addresses and time: for requests
        that somebody could look around with.

        `message_id` is the `webhook-id` (letters, digits, `_`, `-`), `now` a reading of the clock as the attempt begins,
        `extra_headers` Clarion's own for this attempt. Raises nothing.
        """
        now_ns = now.monotonic_ns
        exchange = Exchange(
            endpoint.expected_response_code,
            now.wall,
            now_ns,
            now_ns + endpoint.timeout_s * 1_000_000_000,
            done,
        )
        if uniform:
            exchange.uniform = True
            self._loop.call_later(_uniform_ns(exchange) / 1e9, self._end_unconnected, exchange)
        self._active.add(exchange)
        if self._closed:
            self._fail_later(exchange, _CLOSED)
            return
        receiver = self._receivers.get(endpoint.receiver_id)
        if receiver is None or (receiver.endpoint is not endpoint and receiver.endpoint != endpoint):
            receiver = self._prepare(endpoint, now_ns)
        receiver.used_ns = now_ns
        if receiver.template is None or receiver.pool is None:
            self._fail_later(exchange, receiver.failure)
            return
        try:
            exchange.request = receiver.template.build(message_id, int(now.wall.timestamp()), body, extra_headers)
        except RequestUnsendable as error:
            _log.warning("a request to receiver %d was not sent: %s", endpoint.receiver_id, error)
            self._fail_later(exchange, BLOCKED)
            return
        exchange.private = receiver.template.private
        receiver.pool.submit(exchange)

    def send_while(self, may_send: Callable[[], bool]) -> None:
        """Ask `may_send` from now on before requests are written, in the turn of the event loop that writes them.

        Where it says no they never leave, and end as OVERLOADED, not counting against receivers.
        """
        self._opener.write_while(may_send)

    def set_rules(self, rules: tuple[Rule, ...]) -> None:
        """Hold all that is sent from now on to these egress rules. Connections opened under others are not used again."""
        if rules == self._opener.policy.rules:
            return
        self._opener.policy = replace(self._opener.policy, rules=rules)
        for receiver in self._receivers.values():
            if receiver.pool is not None:
                receiver.pool.retire()
                self._retired.append(receiver.pool)
        self._receivers.clear()

    async def close(self) -> None:
        """End all attempts (as OVERLOADED, not counting against receivers) and all connections."""
        self._closed = True
        self._timer.cancel()
        for exchange in list(self._active):
            self._end(exchange, _CLOSED)
        for timer, tell in list(self._untold.values()):
            timer.cancel()
            tell()
        pools = [receiver.pool for receiver in self._receivers.values() if receiver.pool is not None]
        pools += self._retired
        try:
            async with asyncio.timeout(_CLOSE_BUDGET_S):
                await asyncio.gather(*(pool.shut() for pool in pools))
        except TimeoutError:
            _log.debug("connections were still closing when the sender ended")
        self._receivers.clear()
        self._retired.clear()

    def _prepare(self, endpoint: Endpoint, now_ns: int) -> _Receiver:
        """The endpoint made ready, with the pool it had if the target is still the same."""
        former = self._receivers.get(endpoint.receiver_id)
        pool = former.pool if former is not None else None
        template: RequestTemplate | None = None
        target = None
        failure = BLOCKED
        try:
            target = self._opener.policy.parse(endpoint.uri)
            template = request_template(
                target,
                endpoint.content_type,
                endpoint.headers,
                endpoint.secrets,
                endpoint.signatures,
                endpoint.previous_secret,
                endpoint.signing_keys,
            )
        except (RequestRefused, RequestUnsendable) as error:
            _log.warning("nothing can be sent to receiver %d: %s", endpoint.receiver_id, error)
        limit = max(1, endpoint.concurrency)
        same = (
            former is not None
            and former.endpoint.identity == endpoint.identity
            and pool is not None
            and target is not None
            and (pool.target.host, pool.target.port) == (target.host, target.port)
        )
        if pool is not None and not same:
            pool.retire()
            self._retired.append(pool)
            pool = None
        if pool is not None:
            pool.limit = limit
        elif target is not None:
            try:
                context = self._opener.context(endpoint.identity)
            except IdentityUnusable as error:
                failure = Failure(Outcome.TLS_FAILED, str(error))
                return self._keep(_Receiver(endpoint, None, None, failure, now_ns))
            destination = self._destinations.setdefault(target.host, Destination(self._connections_per_host))
            pool = Pool(target, limit, destination, self._opener, context, self._clock, self._finish)
        return self._keep(_Receiver(endpoint, template, pool, failure, now_ns))

    def _keep(self, receiver: _Receiver) -> _Receiver:
        self._receivers[receiver.endpoint.receiver_id] = receiver
        return receiver

    def _finish(self, exchange: Exchange, failure: Failure | None) -> Callable[[], None]:
        """Judge an exchange that ended; what is returned tells the caller of `send`."""
        self._active.discard(exchange)
        if exchange.uniform and failure is not None and exchange.connection is None and failure.outcome in _UNREACHED:
            return partial(self._tell_later, exchange)
        return partial(exchange.done, self._attempt(exchange, failure))

    def _end_unconnected(self, exchange: Exchange) -> None:
        """Nobody can tell from the time whether a connection was refused or there was no room for it."""
        if exchange.connection is None:
            self._end(exchange, Failure(Outcome.TIMED_OUT, "no connection in time"))

    def _tell_later(self, exchange: Exchange) -> None:
        """Tell of a connection that did not come about, when the slowest way to find that out would have ended."""
        limit_ns = _uniform_ns(exchange)
        attempt = Attempt(
            outcome=Outcome.CONNECT_FAILED,
            started_at=exchange.started_at,
            duration_ms=limit_ns // 1_000_000,
            status_code=None,
            response_headers=(),
            response_body=b"",
            error="no connection to the destination could be made",
            source_address=None,
            peer_address=None,
            retry_after_s=None,
            ours=True,
        )
        wait_s = (exchange.started_ns + limit_ns - self._clock.monotonic_ns()) / 1e9

        def tell() -> None:
            del self._untold[exchange]
            exchange.done(attempt)

        self._untold[exchange] = (self._loop.call_later(max(wait_s, 0), tell), tell)

    def _attempt(self, exchange: Exchange, failure: Failure | None) -> Attempt:
        connection, pool = exchange.connection, exchange.pool
        duration_ms = (self._clock.monotonic_ns() - exchange.started_ns) // 1_000_000
        if connection is None or connection.status_code is None or pool is None:
            failure = failure or Failure(Outcome.PROTOCOL_ERROR, "the answer has no status")
            return Attempt(
                outcome=failure.outcome,
                started_at=exchange.started_at,
                duration_ms=duration_ms,
                status_code=None,
                response_headers=(),
                response_body=b"",
                error=failure.error,
                source_address=connection.source_address if connection is not None else exchange.source_address,
                peer_address=connection.peer_address if connection is not None else exchange.peer_address,
                retry_after_s=None,
                ours=failure.ours,
            )
        status_code = connection.status_code
        if failure is None:
            outcome, error = judge_status(status_code, exchange.expected_response_code)
        else:
            outcome, error = failure.outcome, failure.error
        retry_after = None
        if failure is None and status_code in RETRY_AFTER_STATUSES:
            retry_after = retry_after_s(connection.headers, self._clock.wall())
        headers, body = pool.kept_headers.of(connection.headers), connection.body
        if exchange.private:
            headers, body = without_private(headers, body, exchange.private, BODY_KEPT_BYTES_MAX)
        return Attempt(
            outcome,
            exchange.started_at,
            duration_ms,
            status_code,
            headers,
            body,
            error,
            connection.source_address,
            connection.peer_address,
            retry_after,
            failure is not None and failure.ours,
        )

    def _fail_later(self, exchange: Exchange, failure: Failure) -> None:
        self._loop.call_soon(self._end, exchange, failure)

    def _end(self, exchange: Exchange, failure: Failure) -> None:
        """End an exchange that is still active by our decision."""
        if exchange not in self._active:
            return
        tell = self._finish(exchange, failure)
        if exchange.pool is not None:
            exchange.pool.take_back(exchange)
        tell()

    def _sweep(self) -> None:
        """End what is past its deadline; every second, close what has been idle for too long."""
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        now_ns = self._clock.monotonic_ns()
        late = now_ns - self._swept_ns > _STALL_NS
        self._swept_ns = now_ns
        if late:
            # This process stood still (starved or stopped). Answers that wait in the sockets are read before the
            # next sweep; whoever is without one then cannot be blamed on the receiver.
            self._stalled_ns = now_ns
            return
        expired = [exchange for exchange in self._active if exchange.deadline_ns <= now_ns]
        # Judged before the first is ended: who is behind it would be thought to wait for what it waited for.
        for exchange, failure in [(exchange, self._deadline_failure(exchange)) for exchange in expired]:
            self._end(exchange, failure)
        if now_ns - self._tidied_ns >= _HOUSEKEEPING_NS:
            self._tidied_ns = now_ns
            self._tidy(now_ns)

    def _deadline_failure(self, exchange: Exchange) -> Failure:
        limit_s = (exchange.deadline_ns - exchange.started_ns) // 1_000_000_000
        if exchange.deadline_ns <= self._stalled_ns:
            return Failure(Outcome.OVERLOADED, "this process stood still during the attempt", ours=True)
        if exchange.pool is None:
            return Failure(Outcome.OVERLOADED, f"it was not begun within {limit_s} s", ours=True)
        if (ours := exchange.pool.fault_of_ours(exchange)) is not None:
            return ours
        what = "no connection"
        if exchange.connection is not None:
            what = "the answer was not complete" if exchange.connection.answered_any else "no answer"
        return Failure(Outcome.TIMED_OUT, f"{what} within {limit_s} s")

    def _tidy(self, now_ns: int) -> None:
        for pool in self._retired:
            pool.close_idle(now_ns)
        self._retired = [pool for pool in self._retired if not pool.is_empty]
        forgotten: list[int] = []
        for receiver_id, receiver in self._receivers.items():
            if receiver.pool is not None:
                receiver.pool.close_idle(now_ns)
            if now_ns - receiver.used_ns > IDLE_NS_MAX and (receiver.pool is None or receiver.pool.is_empty):
                forgotten.append(receiver_id)
        for receiver_id in forgotten:
            del self._receivers[receiver_id]
        if forgotten:
            pools = [
                *self._retired,
                *(receiver.pool for receiver in self._receivers.values() if receiver.pool is not None),
            ]
            self._destinations = {pool.target.host: pool.destination for pool in pools}


def _uniform_ns(exchange: Exchange) -> int:
    """How long a uniform exchange that gets no connection takes."""
    return min(exchange.deadline_ns - exchange.started_ns, _UNIFORM_NS) + _UNIFORM_MARGIN_NS


_CLOSED = Failure(Outcome.OVERLOADED, "this process is shutting down", ours=True)
