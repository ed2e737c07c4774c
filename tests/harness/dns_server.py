"""A name server that plays tricks: its names are data, and what it is asked is counted.

`<hex>.a.example` is the address that the 8 or 32 digits spell, `10.0.0.1.nip.example` the one that its labels do. Other
names are what `Zone.set` said: `{"A": [[…], …], "AAAA": …}` with one list of addresses for each query, the last again and
again; `"cname": [names]` a chain in front of them; `"dname": [owner, target]`; `"trick"` one of `TRICKS`. Everything else
does not exist.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TRICKS = ("never", "servfail", "truncated", "huge", "loop")
HUGE_ANSWERS = 4_000
"""A records: 64 kB, the most that a message may have."""

_TYPES = {dns.rdatatype.A: "A", dns.rdatatype.AAAA: "AAAA"}


class Zone:
    """The names, and how often each was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, dict[str, Any]] = {}
        self._asked: Counter[str] = Counter()
        self._served: Counter[str] = Counter()

    def set(self, names: dict[str, dict[str, Any]]) -> None:
        with self._lock:
            for name, entry in names.items():
                self._names[name] = entry
                for kind in ("A", "AAAA"):
                    self._served[f"{name} {kind}"] = 0

    def asked(self) -> dict[str, int]:
        """Queries by `name type`, since the last call."""
        with self._lock:
            asked = dict(self._asked)
            self._asked.clear()
        return asked

    def answer(self, wire: bytes, *, by_tcp: bool) -> bytes | None:
        """What is sent back; None: nothing."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = _TYPES.get(question.rdtype, "")
        with self._lock:
            self._asked[f"{name} {kind}"] += 1
            entry = self._names.get(name) or _spelt(name)
            addresses: list[str] = []
            if entry is not None and entry.get(kind):
                turns = entry[kind]
                addresses = turns[min(self._served[f"{name} {kind}"], len(turns) - 1)]
                self._served[f"{name} {kind}"] += 1
        answer = dns.message.make_response(query, recursion_available=True)
        if entry is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer.to_wire()
        trick = entry.get("trick")
        if trick == "never":
            return None
        if trick == "servfail":
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer.to_wire()
        if trick in {"truncated", "huge"} and not by_tcp:
            answer.flags |= dns.flags.TC
            return answer.to_wire()
        if trick == "truncated":
            return None
        if trick == "loop":
            other = f"other.{name}"
            _add(answer, name, "CNAME", [other + "."])
            _add(answer, other, "CNAME", [name + "."])
            return answer.to_wire()
        if trick == "huge" and kind == "A":
            addresses = [str(IPv4Address("8.8.0.0") + number) for number in range(HUGE_ANSWERS)]
        owner = name
        if "dname" in entry:
            above, target = entry["dname"]
            _add(answer, above, "DNAME", [target + "."])
            onward = name.removesuffix(above) + target
            _add(answer, name, "CNAME", [onward + "."])
            owner = onward
        for onward in entry.get("cname", ()):
            _add(answer, owner, "CNAME", [onward + "."])
            owner = onward
        if addresses:
            _add(answer, owner, kind, addresses)
        return answer.to_wire(max_size=65535)


def spelt_name(address: IPv4Address | IPv6Address) -> str:
    """The name that resolves to just this address."""
    return f"{address.packed.hex()}.a.example"


def _spelt(name: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        if name.endswith(".a.example"):
            address = ip_address(bytes.fromhex(name.removesuffix(".a.example")))
            return {"A" if address.version == 4 else "AAAA": [[str(address)]]}
        if name.endswith(".nip.example"):
            return {"A": [[str(IPv4Address(".".join(name.removesuffix(".nip.example").split(".")[-4:])))]]}
    return None


def _add(answer: dns.message.Message, owner: str, kind: str, values: list[str]) -> None:
    answer.answer.append(dns.rrset.from_text(dns.name.from_text(owner), 0, "IN", kind, *values))


def serve_names(zone: Zone, address: str) -> None:
    """Serves the zone by UDP and TCP on port 53 of `address`, in threads that end with the process."""

    class ByUdp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire, sending = self.request
            if (answer := zone.answer(wire, by_tcp=False)) is not None:
                sending.sendto(answer, self.client_address)

    class ByTcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, struct.error):
                while True:
                    (length,) = struct.unpack("!H", self.rfile.read(2))
                    answer = zone.answer(self.rfile.read(length), by_tcp=True)
                    if answer is None:
                        return
                    self.wfile.write(struct.pack("!H", len(answer)) + answer)

    class Udp(socketserver.ThreadingUDPServer):
        max_packet_size = 4096
        request_queue_size = 1024

    class Tcp(socketserver.ThreadingTCPServer):
        request_queue_size = 128

    for server in (Udp((address, 53), ByUdp), Tcp((address, 53), ByTcp)):
        server.daemon_threads = True
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        threading.Thread(target=server.serve_forever, daemon=True).start()
