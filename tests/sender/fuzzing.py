"""Nasty answers from a seed, what the client makes of them, and a second opinion.

`scripts/fuzz-sender [--seconds N] [--seed N] [--cases N]` runs it for longer; a failing case names its seed, and
`--seed N --cases 1` replays it. Here the client's parser is driven without sockets, for volume; `test_fuzz.py` sends
the same answers over TLS as well.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import cast

import h11

from clarion.sender.http1 import (
    ANSWER_BYTES_MAX,
    BODY_KEPT_BYTES_MAX,
    BODY_READ_BYTES_MAX,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    Http1Connection,
    Shared,
)
from clarion.sender.outcome import Failure, Outcome

READ_BUFFER_BYTES = 64 * 1024
ENDS = ("open", "close", "reset")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one exchange. `kind`: answered, waiting, or an Outcome's name."""

    kind: str
    status_code: int | None
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    reusable: bool


class MemoryTransport:
    """As much of a transport as the connection uses."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.written += data

    def abort(self) -> None:
        self.ended = True

    close = abort


class Witness:
    """An owner that insists on one end for each exchange; begins `following` the moment the first one ended."""

    def __init__(self, following: bytes | None = None) -> None:
        self.verdicts: list[Verdict] = []
        self.following = following
        self.lost = 0

    def exchange_ended(self, connection: Http1Connection, failure: Failure | None) -> None:
        self.verdicts.append(verdict(connection, failure))
        if self.following is not None and connection.usable:
            following, self.following = self.following, None
            connection.begin(following)

    def connection_ended(self, connection: Http1Connection) -> None:
        self.lost += 1


def verdict(connection: Http1Connection, failure: Failure | None) -> Verdict:
    kind = "answered" if failure is None else failure.outcome.name
    return _noted(kind, connection, reusable=connection.usable)


def _noted(kind: str, connection: Http1Connection, *, reusable: bool) -> Verdict:
    # Headers without a status are nobody's business: the attempt does not show them.
    headers = tuple(connection.headers) if connection.status_code is not None else ()
    return Verdict(kind, connection.status_code, headers, connection.body, reusable)


def replay(segments: list[bytes], end: str = "open", following: bytes | None = None) -> tuple[Witness, Http1Connection]:
    """One exchange (and `following` on the same connection, if it is kept) answered by these segments."""
    witness = Witness(following)
    shared = Shared(READ_BUFFER_BYTES, lambda write: write())
    buffer = shared.read_buffer
    connection = Http1Connection(witness, shared, "127.0.0.1", "127.0.0.1")
    transport = MemoryTransport()
    connection.connection_made(cast("asyncio.BaseTransport", transport))
    connection.begin(b"POST / HTTP/1.1\r\n\r\n")
    for segment in segments:
        for start in range(0, len(segment), READ_BUFFER_BYTES):
            if transport.ended:
                break
            data = segment[start : start + READ_BUFFER_BYTES]
            connection.get_buffer(-1)[: len(data)] = data
            connection.buffer_updated(len(data))
            buffer[: len(data)] = b"\xee" * len(data)  # nothing may look at the buffer later
            assert sum(len(name) + len(value) for name, value in connection.headers) <= HEADERS_BYTES_MAX
            assert len(connection.headers) <= HEADERS_MAX
            assert len(connection.body) <= BODY_KEPT_BYTES_MAX
    if not transport.ended and end != "open":
        if end == "close":
            assert not connection.eof_received()
        connection.connection_lost(ConnectionResetError() if end == "reset" else None)
    elif transport.ended:
        connection.connection_lost(None)
    assert witness.lost == (transport.ended or end != "open")
    assert connection.usable <= (witness.lost == 0)
    return witness, connection


def outcome(segments: list[bytes], end: str = "open") -> Verdict:
    """The verdict on one exchange; at most one, and exactly one if the connection ended."""
    witness, connection = replay(segments, end)
    assert len(witness.verdicts) == (not connection.busy)
    if not witness.verdicts:
        return _noted("waiting", connection, reusable=False)
    found = witness.verdicts[0]
    # What came after the answer, in a segment of its own, has ended the connection without another verdict.
    return Verdict(found.kind, found.status_code, found.headers, found.body, connection.usable)


def second_opinion(data: bytes, end: str) -> Verdict:
    """What h11 makes of the same bytes."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=4 * ANSWER_BYTES_MAX)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    status_code: int | None = None
    body = b""
    kind = "waiting"
    try:
        client.receive_data(data)
        ending = end == "close"
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA and ending:
                ending = False
                client.receive_data(b"")
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
            elif isinstance(event, h11.Response):
                status_code = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                kind = "answered"
                break
    except h11.RemoteProtocolError:
        kind = "refused"
    trailing = client.trailing_data[0]
    clean = kind == "answered" and client.their_state is h11.DONE and not trailing.strip(b"\r\n")
    return Verdict(kind, status_code, (), body, clean and end == "open")


# Answers from a seed

_LINES = (b"HTTP/1.1 200 OK", b"HTTP/1.1 503 No", b"HTTP/1.1 204 None", b"HTTP/1.1 304 Same", b"HTTP/1.1 205 Reset",
          b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 103 Hints", b"HTTP/1.1 100 Continue", b"HTTP/1.1 199 X",
          b"HTTP/1.1 101 Switch", b"HTTP/1.1 999 X", b"HTTP/1.1 413 Large", b"HTTP/2 200", b"http/1.1 200 OK",
          b"HTTP/1.1  200 OK", b"ICY 200 OK", b"HTTP/1.1 200 \xff\x80", b"HTTP/1.1\t200 OK")  # fmt: skip
_HEADERS = (b"content-length: 3", b"Content-Length: 0", b"content-length: 3", b"content-length: 5", b"content-length : 3",
            b"content-length: +3", b"content-length: 3,3", b"content-length: 0x3", b"content-length:", b"content-length: 03",
            b"transfer-encoding: chunked", b"Transfer-Encoding: CHUNKED", b"transfer-encoding: gzip, chunked",
            b"transfer-encoding: chunked, gzip", b"transfer-encoding: identity", b"transfer-encoding: xchunked",
            b"transfer-encoding:\x0bchunked", b"connection: close", b"connection: keep-alive", b"connection: close, x",
            b"connection: upgrade", b"upgrade: h2c", b"retry-after: 7", b"x: a\x00b", b"x: \x1b", b" folded", b"x:y",
            b"x", b":", b"x y: z", b"\xffx: y", b"x: \xff", b"x: a\rb", b"x: a\nb", b"trailer: x", b"x:" + b" " * 500)  # fmt: skip
_CONTENTS = (b"", b"abc", b"abcde", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\n", b"0\r\n\r\n",
             b"3\nabc\n0\n\n", b"3\r\nabcd\r\n0\r\n\r\n", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"03\r\nabc\r\n00\r\n\r\n",
             b"3 \r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"0\r\ncontent-length: 9\r\n\r\n", b"x" * 70_000,
             b"0;" + b"e" * 1000 + b"\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"0\r\n" + b"t: v\r\n" * 300 + b"\r\n")  # fmt: skip
_SURPLUS = (b"", b"", b"\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"H", b"\x00")
_SNIPPETS = (b"\r\n", b"\n", b"\r", b"\x00", b":", b" ", b"\t", b"0", b"HTTP/1.1 ", b"\r\n\r\n", b"\xff", b";")


def nasty_answer(random: Random) -> bytes:
    """Something like an answer: assembled from parts that go together or do not, then perhaps damaged."""
    if random.random() < 0.03:
        return random.randbytes(random.randrange(200))
    data = b""
    for _ in range(random.choice((1, 1, 1, 2, 3, 18))):
        lines = [random.choice(_LINES if random.random() < 0.5 else _LINES[:1])]
        lines += random.choices(_HEADERS, k=random.choice((0, 1, 1, 1, 2, 3, 5)))
        if random.random() < 0.01:
            lines.append(b"x: " + b"y" * random.choice((100, 60_000, 65_000, 65_536, 70_000)))
        if random.random() < 0.01:
            lines += [b"a: b"] * random.choice((190, 199, 200, 201, 400))
        data += b"\r\n".join(lines) + b"\r\n\r\n" + random.choice(_CONTENTS)
        if random.random() < 0.7:
            break
    data += random.choice(_SURPLUS)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 4))):
        place = random.randrange(len(data) + 1)
        cut = random.choice((0, 0, 1, 1, 2, 5))
        data = data[:place] + random.choice(_SNIPPETS) * random.choice((0, 1, 1, 2)) + data[place + cut :]
    return data if random.random() < 0.9 else data[: random.randrange(len(data) + 1)]


def well_formed_answer(random: Random, marker: bytes = b"") -> tuple[bytes, int, bytes, bool]:
    """A correct answer, smaller than the read buffer: its bytes, status, body, and whether the connection stays open."""
    data = b"".join(
        b"HTTP/1.1 %d Wait\r\nlink: <%d>\r\n\r\n" % (random.choice((100, 102, 103)), number)
        for number in range(random.choice((0, 0, 0, 1, 16)))
    )
    status = random.choice((200, 201, 204, 304, 400, 404, 410, 413, 429, 500, 503, 599))
    version = random.choice((b"1.1", b"1.1", b"1.0"))
    body = marker + random.randbytes(random.choice((0, 0, 1, 5, 300, 5000, 50_000)))
    headers = [b"X-%d: %b" % (number, b"v" * random.randrange(50)) for number in range(random.choice((0, 1, 5, 150)))]
    framing = random.choice(("length", "chunks", "end")) if version == b"1.1" else random.choice(("length", "end"))
    open_after = framing != "end"
    content = body
    if status in {204, 304}:
        body = content = b""
        open_after = True
    elif framing == "length":
        headers.append(b"Content-Length:  %d " % len(body))
    elif framing == "chunks":
        open_after = random.random() < 0.8
        headers.append(b"Transfer-Encoding: CHUNKED" if open_after else b"transfer-encoding: gzip, chunked")
        content = _chunked(random, body)
    if version == b"1.0":
        if random.random() < 0.5:
            headers.append(b"connection: keep-alive")
        else:
            open_after = False
    elif random.random() < 0.2:
        headers.append(b"Connection: close")
        open_after = False
    random.shuffle(headers)
    head = b"\r\n".join([b"HTTP/%b %d Some reason" % (version, status), *headers])
    return data + head + b"\r\n\r\n" + content, status, body, open_after


def _chunked(random: Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = random.randrange(1, min(len(body), 20_000) + 1)
        extension = random.choice((b"", b"", b";a=b", b';q="x y"'))
        parts.append(b"%x%b\r\n%b\r\n" % (size, extension, body[:size]))
        body = body[size:]
    return b"".join([*parts, b"0\r\n", *random.choice(([], [b"Retry-After: 9\r\n", b"t: v\r\n"])), b"\r\n"])


def segments_of(random: Random, data: bytes) -> list[bytes]:
    """The same bytes, cut as a network might."""
    if len(data) < 2000 and random.random() < 0.2:
        return [data[place : place + 1] for place in range(len(data))]
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 1, 2, 8))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


def check(seed: int) -> tuple[str, str]:
    """One case: our kind of verdict and h11's. Raises AssertionError where they cannot both be right."""
    random = Random(seed)
    data, end = nasty_answer(random), random.choice(ENDS)
    whole = outcome([data], end)
    cut = outcome(segments_of(random, data), end)
    assert (whole.kind, whole.status_code, whole.headers, whole.body) == (
        cut.kind,
        cut.status_code,
        cut.headers,
        cut.body,
    ), "the verdict depends on the segmentation"
    if end != "open":
        assert whole.kind != "waiting"
        assert not whole.reusable
    opinion = second_opinion(data, end)
    if whole.kind == "answered" and opinion.kind == "answered":
        assert whole.status_code == opinion.status_code
        assert whole.body == opinion.body[:BODY_KEPT_BYTES_MAX]
    if whole.reusable or cut.reusable:
        assert opinion.kind == "answered", "kept, although h11 does not see a whole answer"
        assert opinion.reusable, "kept, although h11 would not keep it"
    if whole.kind == "waiting":
        assert opinion.kind != "answered", "waits, although h11 sees a whole answer"
    assert whole.kind != Outcome.TLS_FAILED.name
    assert len(opinion.body) <= BODY_READ_BYTES_MAX or whole.kind in {"answered", Outcome.PROTOCOL_ERROR.name}
    check_well_formed(random)
    check_behind_another(random, data)
    return whole.kind, opinion.kind


def check_well_formed(random: Random) -> None:
    """A correct answer is read exactly, however it is cut, and the next one on the connection is its own."""
    data, status, body, open_after = well_formed_answer(random)
    framed = outcome(segments_of(random, data), "open")
    if framed.kind == "waiting":
        framed = outcome(segments_of(random, data), "close")
        assert not open_after
    assert (framed.kind, framed.status_code) == ("answered", status)
    assert framed.body == body[:BODY_KEPT_BYTES_MAX]
    assert framed.reusable == open_after
    assert not any(name.lower() == b"retry-after" for name, _ in framed.headers)
    if not open_after:
        return
    second = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"
    evil = random.choice((b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"x", b"\x00"))
    witness, _ = replay([*segments_of(random, data), second], following=b"POST / HTTP/1.1\r\n\r\n")
    assert [seen.body for seen in witness.verdicts] == [body[:BODY_KEPT_BYTES_MAX], b"second"]
    witness, connection = replay([data + evil, second], following=b"POST / HTTP/1.1\r\n\r\n")
    assert [seen.body for seen in witness.verdicts] == [body[:BODY_KEPT_BYTES_MAX]]
    assert not connection.usable


def check_behind_another(random: Random, data: bytes) -> None:
    """What an answer means does not depend on the one before it, however much alike they are."""
    first = random.choice((data, well_formed_answer(random)[0], _LINES[0] + b"\r\nContent-Length: 3\r\n\r\nabc"))
    if not outcome([first]).reusable:
        return
    place = random.randrange(len(first))
    second = random.choice(
        (
            first,
            first[:-1] + b"~",
            first[:-1],
            first + b"~",
            first[:place] + random.choice(_SNIPPETS) + first[place + 1 :],
            data,
        )
    )
    alone = outcome([second])
    witness, connection = replay([first, second], following=b"POST / HTTP/1.1\r\n\r\n")
    assert connection.busy == (alone.kind == "waiting")
    if alone.kind == "waiting":
        return
    found = witness.verdicts[1]
    assert (found.kind, found.status_code, found.headers, found.body, connection.usable) == (
        alone.kind,
        alone.status_code,
        alone.headers,
        alone.body,
        alone.reusable,
    ), ("the answer before it made a difference", first, second, found, connection.usable, alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each further one adds 1")
    parser.add_argument("--cases", type=int, default=0, help="at most; 0: no limit")
    options = parser.parse_args()
    kinds: Counter[tuple[str, str]] = Counter()
    begun = shown = time.monotonic()
    seed = options.seed
    while time.monotonic() - begun < options.seconds and (not options.cases or seed - options.seed < options.cases):
        try:
            kinds[check(seed)] += 1
        except BaseException:
            print(f"failed: scripts/fuzz-sender --seed {seed} --cases 1", flush=True)
            raise
        seed += 1
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{shown - begun:6.0f} s  {seed - options.seed:9} cases", flush=True)
    print(f"{seed - options.seed} cases from seed {options.seed}, none failed (each with a well-formed answer besides)")
    for (ours, theirs), count in kinds.most_common():
        print(f"  {count:9}  {ours:18} h11: {theirs}")


if __name__ == "__main__":
    main()
