"""Hostile requests to a real `clarion serve`: what they are answered with, what refusing them costs, and who else waits.

Its limits are those that the API promises (`attack.graphql`): so many milliseconds of the processor for parsing, for what
is found out before anything is run, and for what is refused before a document is looked at.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Self

from graphql import GraphQLError, parse

from attack.graphql import (
    ANY_MS_MAX,
    ATTACKS,
    BODY_BYTES_MAX,
    PARSED_MS_MAX,
    REFUSED_MS_MAX,
    UNREADABLE,
    WITHIN,
    Attack,
)
from attack.requests import BROKEN, PING, PLAIN, HostileRequest, operation, request
from clarion.access.principal import Role
from clarion.api.gate import BODY_SECONDS_MAX
from clarion.api.limits import TOKENS_MAX, tokens_count
from harness.api import new_key
from harness.oracle import percentile
from harness.process import children_of
from harness.stage import stage
from harness.wire import Reply, exchange
from proof.figures import Figure

BEFORE_MS_MAX = 1.0
"""Of the processor, for what is refused before a document is looked at."""
MEMORY_MB_MAX = 128.0
"""The documents that are kept are 60 of them; a heap in pieces may take as much again."""
LATER_MEMORY_MB_MAX = 10.0
ATTACKERS = 4
OTHERS_P99_MS_MAX = ATTACKERS * ANY_MS_MAX
"""A document is read in one go; whoever comes then waits for one of each attacker at most."""
UNLIMITED = {"CLARION_API_POINTS_PER_SECOND": "1000000", "CLARION_API_POINTS_BURST": "10000000"}
SMALL = operation("{ webhookReceivers(first: 1) { edges { cursor } } }")
PIPELINED = 500
SLOW = 150

Kind = Literal["too large", "within", "before", "other"]


@dataclass(frozen=True, slots=True)
class _Api:
    """A served API: its port, its process, and the keys of two organisations' clients."""

    port: int
    pid: int
    key: str
    others_key: str

    def cpu_ms(self) -> float:
        """What the process has taken of the processor so far, to the microsecond (Linux)."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(slots=True)
class _Case:
    """One attack: `build` makes its bytes, `wrong` says what is wrong with an answer; and what its answers took, in ms."""

    kind: Kind
    name: str
    build: Callable[[], bytes]
    wrong: Callable[[Reply], str | None]
    parsing_ms: float = 0.0
    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_ms)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_ms)

    def send(self, api: _Api) -> None:
        sent = self.build()
        before, began = api.cpu_ms(), time.perf_counter()
        reply = exchange(api.port, sent)
        self.wall_ms.append((time.perf_counter() - began) * 1000)
        # The answer is on its way before the process is done with the request.
        time.sleep(0.002)
        self.cpu_ms.append(api.cpu_ms() - before)
        if (why := self.wrong(reply)) is not None:
            self.mistakes.append(why)


def attacks(brief: bool) -> list[Figure]:
    """Every hostile document and request, sent to `clarion serve`: refused with its code, quickly, beside others' queries."""
    with _served(**UNLIMITED) as api:
        figures = [*_one_by_one(api, 5 if brief else 15), _pipelined(api)]
    with _served() as api:
        return figures + _beside_others(api, 10 if brief else 30)


@contextmanager
def _served(**settings: str) -> Iterator[_Api]:
    with stage() as deployment:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        serving = deployment.serve("--role", "api", CLARION_LISTEN=f"127.0.0.1:{port}", **settings)
        (pid,) = children_of(serving.pid)
        keys = [new_key(deployment.database, name, Role.ADMINISTRATOR, "admin") for name in ("attackers", "others")]
        yield _Api(port, pid, *keys)


# ------------------------------------------------------------ each by itself


def _one_by_one(api: _Api, rounds: int) -> list[Figure]:
    """Each alone, in turn, so many times; points for all of it."""
    before = half = api.resident_mb()
    ping = _Case("other", "a small query", lambda: request(api.key, operation(PING)), lambda _reply: None)
    for _ in range(50):
        ping.send(api)
    cases = _cases(api.key)
    for number in range(rounds):
        if number == (rounds + 1) // 2:
            half = api.resident_mb()
        for case in cases:
            case.send(api)
    after = api.resident_mb()
    mistaken = [case for case in cases if case.mistakes]
    for case in mistaken:
        print(f"# attacks: {case.name}: {case.mistakes[0]}", file=sys.stderr)
    # What any request costs is no part of refusing this one.
    beyond = [(max(case.cpu - case.parsing_ms - ping.cpu, 0), case.name) for case in cases if case.kind == "too large"]
    return [
        Figure("attacks: kinds of documents and requests", len(cases), ""),
        Figure("attacks: answered otherwise than they have to be", len(mistaken), "", 0, "exactly"),
        Figure("attacks: CPU of a small query", ping.cpu, "ms"),
        *_spread("too large a document, CPU beyond its parsing and a small query", beyond, REFUSED_MS_MAX),
        *_spread("parsing a document", [(case.parsing_ms, case.name) for case in cases], PARSED_MS_MAX),
        *_spread("a document within the limits, CPU", _cpu_of(cases, "within"), ANY_MS_MAX),
        *_spread("refused before its document, CPU", _cpu_of(cases, "before"), BEFORE_MS_MAX),
        *_spread("other requests, CPU", _cpu_of(cases, "other")),
        *_spread("time to the answer", [(case.wall, case.name) for case in cases]),
        Figure("attacks: memory, from before the first to the last", after - before, "MB", MEMORY_MB_MAX),
        Figure("attacks: memory, in the second half of the rounds", after - half, "MB", LATER_MEMORY_MB_MAX),
    ]


def _cpu_of(cases: Sequence[_Case], kind: Kind) -> list[tuple[float, str]]:
    return [(case.cpu, case.name) for case in cases if case.kind == kind]


def _spread(what: str, values: Sequence[tuple[float, str]], most: float | None = None) -> list[Figure]:
    """The median over the attacks, and the largest with the attack's name."""
    largest, name = max(values)
    return [
        Figure(f"attacks: {what}, median", statistics.median(value for value, _ in values), "ms"),
        Figure(f"attacks: {what}, largest ({name})", largest, "ms", most),
    ]


def _cases(key: str) -> list[_Case]:
    return [
        *(_document(key, attack, "too large") for attack in ATTACKS),
        *(_document(key, attack, "within") for attack in (*UNREADABLE, *WITHIN)),
        *(_request(key, hostile) for hostile in PLAIN),
        *(_request(key, hostile, may_end=True) for hostile in BROKEN),
    ]


_numbers = itertools.count()


def _unseen(query: str) -> str:
    """The same document for GraphQL, and another one for whoever keeps documents."""
    number = next(_numbers)
    return "".join(" ,"[number >> bit & 1] for bit in range(20)) + query


def _document(key: str, attack: Attack, kind: Kind) -> _Case:
    query = attack.build()
    body_bytes = len(operation(_unseen(query)))
    if body_bytes > BODY_BYTES_MAX:
        # What has to be escaped in JSON is larger there.
        kind, wrong, parsing_ms = "before", _expecting(413, "TOO_LARGE"), 0.0
    else:
        wrong, parsing_ms = _expecting(200, attack.code), _parsing_ms(query)
    return _Case(kind, attack.name, lambda: request(key, operation(_unseen(query))), wrong, parsing_ms)


def _parsing_ms(query: str) -> float:
    """What parsing takes here, the best of a few times; 0 for what is refused for its tokens before."""
    if tokens_count(query) > TOKENS_MAX:
        return 0.0
    times = []
    for _ in range(5):
        began = time.thread_time()
        with suppress(GraphQLError):
            parse(query, max_tokens=TOKENS_MAX)
        times.append((time.thread_time() - began) * 1000)
    return min(times)


def _request(key: str, hostile: HostileRequest, *, may_end: bool = False) -> _Case:
    kind: Kind = "before" if hostile.status in {400, 405, 413} else "other"
    expected = _expecting(hostile.status, hostile.code)
    if not may_end:
        return _Case(kind, hostile.name, lambda: hostile.build(key), expected)
    return _Case(
        kind, hostile.name, lambda: hostile.build(key), lambda reply: None if reply.status is None else expected(reply)
    )


def _expecting(status: int, code: str | None) -> Callable[[Reply], str | None]:
    def wrong(reply: Reply) -> str | None:
        codes = _codes(reply)
        if reply.status == status and codes == (set() if code is None else {code}):
            return None
        return f"{reply.status} {sorted(codes)}, not {status} {code}: {reply.body[:200]!r}"

    return wrong


def _codes(reply: Reply) -> set[str]:
    """The codes of an answer's errors; none in an answer that is not the API's."""
    try:
        content = json.loads(reply.body)
    except ValueError:
        return set()
    answers = content if isinstance(content, list) else [content]
    return {error["extensions"]["code"] for answer in answers for error in answer.get("errors", ())}


def _pipelined(api: _Api) -> Figure:
    """Queries that are sent without waiting for an answer, on one connection."""
    sent = b"".join(
        request(api.key, operation(f"{{ a{number}: __typename }}")) + (b"" if number % 2 else request(api.key, b"{"))
        for number in range(PIPELINED)
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        sending = threading.Thread(target=connection.sendall, args=(sent,))
        sending.start()
        # The answers come back to back: one reader for them all.
        reading = connection.makefile("rb")
        right = 0
        for number in range(PIPELINED):
            right += json.loads(_next_body(reading)) == {"data": {f"a{number}": "Query"}}
            if not number % 2:
                _next_body(reading)
        sending.join()
    return Figure(f"attacks: answers in order, of {PIPELINED} queries sent at once", right, "", PIPELINED, "exactly")


def _next_body(reading: BinaryIO) -> bytes:
    lines = iter(reading.readline, b"\r\n")
    length = next(int(line.split(b":")[1]) for line in list(lines) if line.lower().startswith(b"content-length:"))
    return reading.read(length)


# ------------------------------------------------------------ beside others


class _Others:
    """A client of another organisation that asks a small thing fifty times a second. Its answers' times, in milliseconds."""

    def __init__(self, api: _Api) -> None:
        self._api = api
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_ms: list[float] = []
        self.refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._api.port, timeout=30)
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._api.others_key}"}
        while not self._ended.wait(0.02):
            began = time.perf_counter()
            try:
                connection.request("POST", "/graphql", SMALL, headers)
                is_right = "data" in json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException, ValueError):
                is_right = False
                connection.close()
            self.took_ms.append((time.perf_counter() - began) * 1000)
            self.refused += not is_right
        connection.close()


def _beside_others(api: _Api, seconds: float) -> list[Figure]:
    """Four attackers with one client's points, and slow connections, while a client of another organisation works."""
    cases = _cases(api.key)
    with _Others(api) as calm:
        time.sleep(seconds / 2)
    before = api.resident_mb()
    counts = _Counts()
    until = time.monotonic() + seconds
    attackers = [
        threading.Thread(target=_attack, args=(api, cases[n::ATTACKERS], until, counts)) for n in range(ATTACKERS)
    ]
    with _slow(api) as slow:
        with _Others(api) as beside:
            for attacker in attackers:
                attacker.start()
            for attacker in attackers:
                attacker.join()
        with _Others(api) as beside_slow:
            left = slow.wait_for_their_end(BODY_SECONDS_MAX + 5)
    return [
        Figure("attacks: answers to four attackers", counts.answers / seconds, "1/s"),
        Figure("attacks: of these, refused for want of points", counts.limited / seconds, "1/s"),
        Figure("attacks: of these, neither that nor right", counts.wrong, "", 0, "exactly"),
        Figure("attacks: memory beside them", api.resident_mb() - before, "MB", MEMORY_MB_MAX),
        Figure("attacks: another's small query before, p99", percentile(calm.took_ms, 0.99), "ms"),
        Figure("attacks: another's small query meanwhile, median", percentile(beside.took_ms, 0.5), "ms"),
        Figure(
            "attacks: another's small query meanwhile, p99", percentile(beside.took_ms, 0.99), "ms", OTHERS_P99_MS_MAX
        ),
        Figure(
            "attacks: another's small query, p99 of the second half, when the attackers' points are spent",
            percentile(beside.took_ms[len(beside.took_ms) // 2 :], 0.99),
            "ms",
            OTHERS_P99_MS_MAX,
        ),
        Figure("attacks: another's small query meanwhile, largest", max(beside.took_ms), "ms"),
        Figure(
            f"attacks: the same beside {2 * SLOW} slow connections alone, p99",
            percentile(beside_slow.took_ms, 0.99),
            "ms",
        ),
        Figure("attacks: another's small queries not answered", beside.refused + beside_slow.refused, "", 0, "exactly"),
        Figure("attacks: slow connections not ended in time", left, "", 0, "exactly"),
    ]


@dataclass(slots=True)
class _Counts:
    answers: int = 0
    limited: int = 0
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, case: _Case, reply: Reply) -> None:
        is_limited = reply.status in {200, 429} and _codes(reply) == {"RATE_LIMITED"}
        why = None if is_limited else case.wrong(reply)
        with self.lock:
            self.answers += 1
            self.limited += is_limited
            self.wrong += why is not None
        if why is not None:
            print(f"# attacks: {case.name}: {why}", file=sys.stderr)


def _attack(api: _Api, cases: Sequence[_Case], until: float, counts: _Counts) -> None:
    """One attack after the other, as fast as they are answered."""
    for case in itertools.cycle(cases):
        if time.monotonic() > until:
            return
        counts.count(case, exchange(api.port, case.build()))


class _Slow:
    """Connections that send a byte a second: half of them a head, half of them a body."""

    def __init__(self, api: _Api) -> None:
        head = b"POST /graphql HTTP/1.1\r\nhost: clarion.example\r\nx: "
        body = request(api.key, b"", length="60000")
        self.began = time.monotonic()
        self.open = [self._opened(api, head if number % 2 else body) for number in range(2 * SLOW)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @staticmethod
    def _opened(api: _Api, begun: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", api.port), timeout=10)
        connection.sendall(begun)
        connection.setblocking(False)
        return connection

    def _run(self) -> None:
        while not self._ended.wait(1):
            for connection in list(self.open):
                try:
                    connection.send(b" ")
                    connection.recv(4_096)
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                # Answered or ended.
                self.open.remove(connection)
                connection.close()

    def wait_for_their_end(self, seconds: float) -> int:
        """How many are still open so many seconds after they began."""
        while self.open and time.monotonic() < self.began + seconds:
            time.sleep(0.1)
        return len(self.open)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for connection in self.open:
            connection.close()


@contextmanager
def _slow(api: _Api) -> Iterator[_Slow]:
    slow = _Slow(api)
    try:
        yield slow
    finally:
        slow.stop()
