"""Answers made to hurt whoever reads them: what each has to come to, and within which bounds of time, memory and CPU."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from harness.network import Network

LATE_PERCENT_MAX = 5.0
RESIDENT_KIB_MAX = 256.0
CPU_MS_MAX = 20.0
BODY_BYTES_MAX = 4096
RECEIVER = "8.8.8.8"

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"transfer-encoding: chunked\r\n\r\n"


def _raw(answer: bytes, *, close: bool = False) -> str:
    return f"/raw?bytes={base64.urlsafe_b64encode(answer).decode()}{'&close=1' if close else ''}"


def _dribble(start: bytes, rest: bytes) -> str:
    parts = (base64.urlsafe_b64encode(part).decode() for part in (start, rest))
    return "/dribble-bytes?every=0.1&start={}&rest={}".format(*parts)


def _redirect(status: int, location: str) -> str:
    return f"/status?code={status}&location={quote(location, safe='')}"


_LOCATIONS = (
    *(
        "https://8.8.8.8/echo",
        "http://8.8.8.8/echo",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/",
    ),
    *("https://8.8.8.8:8443/echo", "//10.0.0.1/", "/echo", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x"),
)

REDIRECTS = {
    f"{status} to {location}": _redirect(status, location)
    for status in (301, 302, 303, 307, 308)
    for location in _LOCATIONS
}

SUCCEEDED, FAILED, TIMED_OUT, CLOSED = "SUCCEEDED", "PROTOCOL_ERROR", "TIMED_OUT", "CONNECTION_CLOSED"

ENDED: dict[str, tuple[str, set[str]]] = {
    "endless body": ("/endless-body", {SUCCEEDED, FAILED}),
    "endless header": ("/endless-header", {FAILED}),
    "endless trailer": ("/endless-trailer", {SUCCEEDED, FAILED}),
    "endless trailers": ("/trailers", {SUCCEEDED, FAILED}),
    "100,000 interim answers": ("/interim?count=100000", {FAILED}),
    "endless interim answers": ("/interim-endless", {FAILED}),
    "header line of 5 MB": ("/long-line?bytes=5000000", {FAILED}),
    "200,000 headers": ("/header-count?count=200000", {FAILED}),
    "gzip of 400 MB": ("/bomb?encoding=gzip", {SUCCEEDED, FAILED}),
    "deflate of 400 MB": ("/bomb?encoding=deflate", {SUCCEEDED, FAILED}),
    "gzip in gzip": ("/bomb?encoding=nested", {SUCCEEDED, FAILED}),
    "length that lies, closed": (_raw(_OK + b"content-length: 1000\r\n\r\nabc", close=True), {CLOSED, FAILED}),
    "length of 10^30": (_raw(_OK + b"content-length: " + b"9" * 30 + b"\r\n\r\nx", close=True), {FAILED}),
    "negative length": (_raw(_OK + b"content-length: -1\r\n\r\n"), {FAILED}),
    "chunk size overflow": (_raw(_CHUNKED + b"fffffffffffffffff\r\nx", close=True), {FAILED}),
    "chunk size 2^63": (_raw(_CHUNKED + b"8000000000000000\r\nx", close=True), {FAILED, CLOSED}),
    "negative chunk size": (_raw(_CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", close=True), {FAILED}),
    "both lengths": (
        _raw(_OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        {FAILED},
    ),
    "two lengths": (_raw(_OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"), {FAILED}),
    "HTTP/0.9": (_raw(b"<html>hello</html>", close=True), {FAILED}),
    "HTTP/2 preface": (_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", close=True), {FAILED}),
    "101 upgrade": (_raw(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"), {FAILED}),
    "NUL in a header": (_raw(_OK + b"x: a\0b\r\ncontent-length: 0\r\n\r\n"), {FAILED}),
    "bare LF": (_raw(b"HTTP/1.1 200 OK\nx: y\n\n", close=True), {FAILED, CLOSED, SUCCEEDED}),
    "status of 4 digits": (_raw(b"HTTP/1.1 2000 OK\r\n\r\n", close=True), {FAILED}),
    "resets": ("/reset", {CLOSED}),
    "closes": ("/close", {CLOSED}),
    "closes in the middle": ("/close-in-the-middle", {CLOSED, FAILED}),
}
"""Path of the receiver, and what the attempt may come to; none runs until the deadline."""

UNTIL_DEADLINE = {
    "never answers": "/hang",
    "never reads": "/never-reads",
    "dribbles the status line": _dribble(b"HTTP/1.1 200 ", b"x"),
    "dribbles a header": _dribble(_OK + b"x: ", b"y"),
    "dribbles interim answers": _dribble(b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 103 X\r\n\r\n"),
    "dribbles the body": _dribble(_OK + b"content-length: 9999\r\n\r\n", b"x"),
    "dribbles chunk sizes": _dribble(_CHUNKED, b"0"),
    "dribbles trailers": _dribble(_CHUNKED + b"0\r\nx: ", b"y"),
    "length that lies": _raw(_OK + b"content-length: 1000\r\n\r\nabc"),
}


@dataclass(slots=True)
class Hurt:
    """What hostile answers came to: the worst of each bound, and every case that was not as it has to be."""

    cases: int = 0
    accepted: int = 0
    late_percent: float = 0.0
    resident_kib: float = 0.0
    cpu_ms: float = 0.0
    worst: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, found: dict[str, Any], expected: set[str]) -> None:
        self.cases += 1
        outcomes = set(found["outcomes"])
        if not outcomes <= expected or found["body_bytes"] > BODY_BYTES_MAX:
            self.wrong.append(f"{name}: {outcomes} {found['errors']}, {found['body_bytes']} B kept")
        for bound in ("late_percent", "resident_kib", "cpu_ms"):
            if found[bound] > getattr(self, bound):
                setattr(self, bound, found[bound])
                self.worst[bound] = name


def hostile(net: Network, attempts: int, timeout_s: int = 3, *, together: bool = False) -> Hurt:
    """Every hostile answer, `attempts` of each at one time; nobody else may be visited for it.

    `together`: those that go on until the deadline are not measured one after the other but all at once.
    """
    hurt = Hurt()
    net.world("prepare")
    net.accepted()
    base = f"https://{RECEIVER}"

    def measured(*paths: str) -> dict[str, Any]:
        uris = [base + path for path in paths]
        count = min(attempts, 64 // len(uris))  # more connections to one host there are never
        found: dict[str, Any] = net.inside("hostile", uris=uris, attempts=count, timeout_s=timeout_s)
        return found

    for name, (path, expected) in ENDED.items():
        hurt.add(name, measured(path), expected)
    if together:
        hurt.add("all that go on until the deadline", measured(*UNTIL_DEADLINE.values()), {TIMED_OUT})
        hurt.cases += len(UNTIL_DEADLINE) - 1
    else:
        for name, path in UNTIL_DEADLINE.items():
            hurt.add(name, measured(path), {TIMED_OUT})
    found = net.inside("send", cases=[{"uri": base + path} for path in REDIRECTS.values()])
    for name, attempt in zip(REDIRECTS, found, strict=True):
        hurt.cases += 1
        if attempt["outcome"] != "UNEXPECTED_STATUS":
            hurt.wrong.append(f"{name}: {attempt['outcome']}")
    accepted = net.accepted()
    visits = accepted.pop(f"{RECEIVER} 443")
    hurt.accepted = sum(accepted.values())
    hurt.wrong += [f"{where} was visited" for where in accepted]
    # Each attempt that was measured is one visit, beside as many to warm up; a redirect that is followed is one more.
    if visits > hurt.cases * 2 * attempts:
        hurt.wrong.append(f"{visits} visits for {hurt.cases} cases")
    _desync(net, hurt)
    return hurt


def _desync(net: Network, hurt: Hurt) -> None:
    """A second answer behind the first: the connection is not used again, and nobody gets the other's answer."""
    uri = f"https://{RECEIVER}"
    cases = [{"uri": f"{uri}{path}", "receiver_id": 1} for path in ("/desync", "/echo", "/desync", "/echo")]
    found = net.inside("send", cases=cases, at_once=1)
    hurt.cases += 1
    bodies = [attempt["response_body"] for attempt in found]
    if any("smuggled" in body for body in bodies) or '"head"' not in bodies[1] or '"head"' not in bodies[3]:
        hurt.wrong.append(f"bytes behind an answer were read as the next: {bodies}")
    net.accepted()
