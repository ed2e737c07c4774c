"""The attacks, each tried in `harness.network` on the product's own code: at registration, and as if they stood in the
database already. What decides is not what the product says but which listeners accepted a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attack.special_purpose import Address, forbidden, outside
from attack.uris import BY_ADDRESS, BY_SYNTAX, GOOD, REGISTRABLE
from clarion.sender.address import AddressNotAllowed
from harness.connect_proxy import ProxyProcess
from harness.dns_server import spelt_name
from harness.network import INSIDE_V4, INSIDE_V6, SEARCH_DOMAIN, WORLD_V4, Network

PUBLIC_V4, PUBLIC_V6 = "8.8.8.8", "2606:4700::1111"
FIREWALLED = "93.184.215.99"
DATABASE = "93.184.216.10"
BLOCKED_TEXT = "the destination is not allowed"
ZONE: dict[str, dict[str, Any]] = {
    GOOD: {"A": [[PUBLIC_V4]], "AAAA": [[PUBLIC_V6]]},
    "xn--bcher-kva.good.example": {"A": [[PUBLIC_V4]]},
    "other.good.example": {"A": [[PUBLIC_V4]]},
    "app.clarion.example": {"A": [[PUBLIC_V4]]},
}


@dataclass(slots=True)
class Tried:
    """What an attack came to. `cases` were tried, `accepted` connections came of them where none may; of `controls_of`
    requests that must arrive, `controls` did. `wrong` names every case that was not answered as it has to be.
    """

    name: str
    cases: int = 0
    accepted: int = 0
    controls: int = 0
    controls_of: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def expect(self, held: bool, what: str) -> None:
        """One more case, and whether it ended as it has to."""
        self.cases += 1
        if not held:
            self.wrong.append(what)

    def silence(self, accepted: dict[str, int]) -> None:
        """No listener may have accepted anything since it was asked last."""
        self.accepted += sum(accepted.values())
        self.wrong += [f"{where} accepted {count} connections" for where, count in accepted.items()]

    def control(self, attempts: Iterable[dict[str, Any]], accepted: dict[str, int]) -> None:
        """Every one of these attempts must have succeeded, at the listener of its peer address."""
        for attempt in attempts:
            self.controls_of += 1
            peer = str(attempt["peer_address"])
            arrived = any(where.startswith(peer + " ") for where in accepted)
            if attempt["outcome"] == "SUCCEEDED" and arrived:
                self.controls += 1
            else:
                self.wrong.append(f"control to {peer}: {attempt['outcome']} {attempt['error']}")

    @property
    def held(self) -> bool:
        return not self.wrong and not self.accepted and self.controls == self.controls_of


Attack = Callable[[Network], Tried]


def certified() -> list[str]:
    """The addresses that the receivers' certificate has to hold, for controls by literal."""
    return [PUBLIC_V4, PUBLIC_V6, *map(str, outside()), FIREWALLED]


def texts(net: Network) -> Tried:
    """Every text that is no URI of a receiver: refused at registration, and nothing is sent when it is planted."""
    tried = Tried("texts")
    net.world("names", entries=ZONE)
    net.accepted()
    for kind, uris in (BY_SYNTAX | BY_ADDRESS).items():
        for uri, answer in zip(uris, net.inside("register", uris=uris), strict=True):
            code = answer["code"]
            refused = code == "ADDRESS_NOT_ALLOWED" if kind in BY_ADDRESS else code is not None
            uniform = code != "ADDRESS_NOT_ALLOWED" or answer["text"] == AddressNotAllowed.TEXT
            tried.expect(refused and uniform, f"{kind}, registering {uri!r}: {code} {answer['text']}")
        _planted(net, tried, uris, kind)
    tried.silence(net.accepted())
    for uri, answer in zip(REGISTRABLE, net.inside("register", uris=REGISTRABLE), strict=True):
        tried.expect(answer["code"] is None, f"a control was refused, {uri!r}: {answer['text']}")
    tried.control(net.inside("send", cases=[{"uri": uri} for uri in REGISTRABLE]), net.accepted())
    return tried


def addresses(net: Network) -> Tried:
    """Every special-purpose block's edges, and single addresses, as literals and as answers; their neighbours arrive."""
    tried = Tried("addresses")
    targets = list(forbidden())
    literals = [literal(address) for address in targets]
    names = [f"https://{spelt_name(address)}/echo" for address in targets]
    net.accepted()
    reached = net.inside("connect", addresses=[str(address) for address in targets])
    silent = {address for address, why in reached.items() if why}
    tried.notes.append(f"{len(targets) - len(silent)} of {len(targets)} addresses accept a connection without a guard")
    counted = sum(net.accepted().values())
    tried.expect(
        counted == len(targets) - len(silent), f"{counted} connections counted, {len(silent)} addresses silent"
    )
    for uris in (literals, names):
        for uri, answer in zip(uris, net.inside("register", uris=uris), strict=True):
            uniform = (answer["code"], answer["text"]) == ("ADDRESS_NOT_ALLOWED", AddressNotAllowed.TEXT)
            tried.expect(uniform, f"registering {uri}: {answer['code']} {answer['text']}")
        _planted(net, tried, uris, "address")
    tried.silence(net.accepted())
    for uris in ([literal(address) for address in outside()], [f"https://{spelt_name(a)}/echo" for a in outside()]):
        for uri, answer in zip(uris, net.inside("register", uris=uris), strict=True):
            tried.expect(answer["code"] is None, f"a control was refused, {uri}: {answer['text']}")
        tried.control(net.inside("send", cases=[{"uri": uri} for uri in uris]), net.accepted())
    return tried


def own(net: Network) -> Tried:
    """This host's addresses, the database's and the deployment's own names: refused whatever a rule says."""
    tried = Tried("own addresses")
    net.world("names", entries=ZONE | {"db.good.example": {"A": [[DATABASE]]}})
    hosts = [INSIDE_V4, INSIDE_V6, DATABASE, "127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::1", "169.254.169.254"]
    uris = [literal(ip_address(host)) for host in hosts]
    uris += [f"https://{spelt_name(ip_address(host))}/echo" for host in hosts]
    uris += ["https://db.good.example/", "https://app.clarion.example/", "https://APP.clarion.example/"]
    ruled = [[None, wide, port] for wide in ("0.0.0.0/0", "::/0") for port in (443, 8443)]
    given = {"own_hosts": ["app.clarion.example"], "own_addresses": [DATABASE], "rules": ruled}
    net.accepted()
    for uri, answer in zip(uris, net.inside("register", uris=uris, **given), strict=True):
        tried.expect(answer["code"] == "ADDRESS_NOT_ALLOWED", f"registering {uri}: {answer['code']}")
    _planted(net, tried, uris, "own", **given)
    tried.silence(net.accepted())
    # The same rules do open what they may.
    opened = [
        {"uri": f"https://{spelt_name(ip_address(host))}/echo"} for host in ("10.1.2.3", "192.168.7.7", "fd12::5")
    ]
    tried.control(net.inside("send", cases=opened, **given), net.accepted())
    return tried


def answers(net: Network) -> Tried:
    """Names whose answers change, mix, chain, loop, never come, or come too large."""
    tried = Tried("names")
    bad, many = "10.0.0.1", [f"8.8.4.{number}" for number in range(1, 50)]
    chain = [f"link{number}.example" for number in range(20)]
    net.world(
        "names",
        entries=ZONE
        | {
            "mixed.good.example": {"A": [[PUBLIC_V4, bad]]},
            "mixed-first.good.example": {"A": [[bad, PUBLIC_V4]]},
            "families.good.example": {"A": [[PUBLIC_V4]], "AAAA": [["fd00::1"]]},
            "mapped.good.example": {"A": [[PUBLIC_V4]], "AAAA": [["::ffff:10.0.0.1"]]},
            "fifty.good.example": {"A": [[*many, bad]]},
            "fifty-six.good.example": {"A": [many], "AAAA": [["fe80::1"]]},
            "alias.good.example": {"cname": ["internal.example"], "A": [[bad]]},
            "chain.good.example": {"cname": chain, "A": [["169.254.169.254"]]},
            "deep.below.good.example": {"dname": ["below.good.example", "inside.example"], "A": [["192.168.1.1"]]},
            f"printer.line.{SEARCH_DOMAIN}": {"A": [["10.9.9.9"]]},
            f"metadata.google.{SEARCH_DOMAIN}": {"A": [["169.254.169.254"]]},
        },
    )
    net.accepted()
    hosts = [
        *("mixed.good.example", "mixed-first.good.example", "families.good.example", "mapped.good.example"),
        *("fifty.good.example", "fifty-six.good.example", "alias.good.example", "chain.good.example"),
        *(
            "deep.below.good.example",
            "127.0.0.1.nip.example",
            "a.b.169.254.169.254.nip.example",
            "10.0.0.1.nip.example",
        ),
        *("printer.line", "metadata.google", "erp-in-hosts.example", "six-in-hosts.example"),
    ]
    uris = [f"https://{host}/echo" for host in hosts]
    for uri, answer in zip(uris, net.inside("register", uris=uris), strict=True):
        uniform = (answer["code"], answer["text"]) == ("ADDRESS_NOT_ALLOWED", AddressNotAllowed.TEXT)
        tried.expect(uniform, f"registering {uri}: {answer['code']} {answer['text']}")
    _planted(net, tried, uris, "names")
    tried.silence(net.accepted())
    _failing_resolvers(net, tried)
    _rebinding(net, tried, bad)
    return tried


def _failing_resolvers(net: Network, tried: Tried) -> None:
    """No answer is our failure, and is not remembered as a good one."""
    tricks = {"never": "within 2 s", "servfail": "", "truncated": "", "huge": "", "loop": ""}
    net.world("names", entries={f"{trick}.good.example": {"trick": trick, "A": [[PUBLIC_V4]]} for trick in tricks})
    found = net.inside("send", cases=[{"uri": f"https://{trick}.good.example/echo"} for trick in tricks])
    for (trick, text), attempt in zip(tricks.items(), found, strict=True):
        ours = attempt["ours"] or trick == "loop"  # a loop is an answer: the name has no address
        failed = attempt["outcome"] == "DNS_FAILED" and ours and text in attempt["error"]
        within = attempt["duration_ms"] <= 2_100
        tried.expect(failed and within, f"{trick}: {attempt['outcome']} {attempt['error']} {attempt['duration_ms']} ms")
    # Also where the receiver's own deadline comes before the end of the lookup.
    [hurried] = net.inside("send", cases=[{"uri": "https://never.good.example/echo", "timeout_s": 1}])
    failed = hurried["outcome"] == "DNS_FAILED" and hurried["ours"]
    tried.expect(failed, f"never, within 1 s: {hurried['outcome']} {hurried['error']}")
    net.world("names", entries={f"{trick}.good.example": {"A": [["10.0.0.2"]]} for trick in tricks})
    _planted(net, tried, [f"https://{trick}.good.example/echo" for trick in tricks], "after a failure")
    tried.silence(net.accepted())


def _rebinding(net: Network, tried: Tried, bad: str) -> None:
    """Public when registered, private when sent; one lookup for a connection, whose peer is one of its answers."""
    flips = {
        "registered.good.example": [[PUBLIC_V4], [bad]],
        "twice.good.example": [[PUBLIC_V4], [PUBLIC_V4], [bad]],
        "retry.good.example": [[PUBLIC_V4], [bad], [PUBLIC_V4], [bad]],
    }
    net.world("names", entries={name: {"A": turns} for name, turns in flips.items()})
    registered = net.inside("register", uris=["https://registered.good.example/", "https://twice.good.example/"])
    tried.expect([answer["code"] for answer in registered] == [None, None], f"registering what flips: {registered}")
    # `/last` closes: each attempt opens a connection of its own.
    cases = [
        {"uri": "https://registered.good.example/last", "receiver_id": 1},
        {"uri": "https://twice.good.example/last", "receiver_id": 2},
        {"uri": "https://twice.good.example/last", "receiver_id": 2},
        *({"uri": "https://retry.good.example/last", "receiver_id": 3} for _ in range(4)),
    ]
    net.world("asked")
    net.accepted()
    found = net.inside("send", cases=cases, at_once=1)
    asked, accepted = net.world("asked"), net.accepted()
    outcomes = [attempt["outcome"] for attempt in found]
    expected = ["BLOCKED", "SUCCEEDED", "BLOCKED", "SUCCEEDED", "BLOCKED", "SUCCEEDED", "BLOCKED"]
    for case, outcome, wanted in zip(cases, outcomes, expected, strict=True):
        tried.expect(outcome == wanted, f"{case['uri']}: {outcome} instead of {wanted}")
    tried.silence({where: count for where, count in accepted.items() if where != f"{PUBLIC_V4} 443"})
    tried.control((attempt for attempt in found if attempt["outcome"] == "SUCCEEDED"), accepted)
    lookups = {name: asked.get(f"{name} A") for name in flips}
    opened = {"registered.good.example": 1, "twice.good.example": 2, "retry.good.example": 4}
    tried.expect(lookups == opened, f"lookups {lookups}, connections {opened}")
    kept = net.inside("send", cases=[{"uri": f"https://{GOOD}/echo", "receiver_id": 1}] * 5, at_once=1)
    tried.control(kept, net.accepted())
    asked = net.world("asked")
    tried.expect(asked.get(f"{GOOD} A") == 1, f"five requests on one connection looked up {asked}")
    peers = {attempt["peer_address"] for attempt in kept}
    tried.expect(peers <= {PUBLIC_V4, PUBLIC_V6}, f"the peer {peers} was not among the answers")


ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"), "http://192.0.2.80:8080"),
    "SSL_CERT_FILE": "/dev/null",
    "SSL_CERT_DIR": "/nonexistent",
    "HOSTALIASES": "/etc/hosts",
    "RES_OPTIONS": "ndots:0",
}
"""What an operator's shell may hold and must have no say (a key log's file is added to it)."""


def sharing(net: Network, keylog: Path) -> Tried:
    """Two names on one address, two receivers of one name, and an environment that points elsewhere."""
    tried = Tried("sharing")
    net.world("names", entries=ZONE)
    net.accepted()
    one, other = f"https://{GOOD}/echo", "https://other.good.example/echo"
    cases = [
        {"uri": uri, "receiver_id": number} for number, uri in ((1, one), (2, other), (1, one), (2, other), (3, one))
    ]
    found = net.inside("send", cases=cases, at_once=1)
    accepted = net.accepted()
    tried.control(found, accepted)
    connections = [attempt["response_body"].rpartition('"connection": ')[2] for attempt in found]
    tried.expect(connections[0] == connections[2], "a kept connection was not used again")
    tried.expect(len({connections[0], connections[1], connections[4]}) == 3, f"connections were shared: {connections}")
    tried.silence({where: count for where, count in accepted.items() if not where.startswith((PUBLIC_V4, PUBLIC_V6))})
    tried.expect(not keylog.exists(), f"TLS keys were written to {keylog}")
    return tried


def proxied(net: Network) -> Tried:
    """Through a CONNECT proxy: what is forbidden never reaches it, and it is told addresses, never names."""
    tried = Tried("proxy")
    net.world("names", entries=ZONE | {"flip.good.example": {"A": [[PUBLIC_V4], ["10.0.0.1"]]}})
    net.accepted()
    with ProxyProcess(WORLD_V4, net.prefix(net.world_name)) as proxy:
        refused = [literal(address) for address in list(forbidden())[:40]]
        refused += [f"https://{spelt_name(address)}/" for address in list(forbidden())[:40]]
        _planted(net, tried, refused, "proxy", proxy=proxy.url)
        tried.silence(net.accepted())
        cases = [{"uri": f"https://{GOOD}/echo"}, {"uri": literal(ip_address(PUBLIC_V6))}]
        found = net.inside("send", cases=cases, proxy=proxy.url)
        tried.control(found, net.accepted())
        # The name's certificate is checked through the tunnel, too.
        [wrong] = net.inside("send", cases=[{"uri": f"https://a.b.{GOOD}/"}], proxy=proxy.url)
        tried.expect(
            wrong["outcome"] in {"TLS_FAILED", "DNS_FAILED"}, f"another name's certificate: {wrong['outcome']}"
        )
        net.accepted()
        asked = proxy.stop()
    tried.expect(
        all(authority.rpartition(":")[0].strip("[]") in {PUBLIC_V4, PUBLIC_V6} for authority in asked), f"{asked}"
    )
    [gone] = net.inside("send", cases=[{"uri": f"https://{GOOD}/echo"}], proxy=proxy.url)
    tried.expect((gone["outcome"], gone["ours"]) == ("PROXY_FAILED", True), f"without a proxy: {gone['outcome']}")
    tried.silence(net.accepted())
    return tried


RESERVED = (
    *(
        "Host",
        "HOST",
        "content-length",
        "Content-Type",
        "transfer-encoding",
        "Connection",
        "keep-alive",
        "TE",
        "trailer",
    ),
    *("upgrade", "expect", "content-encoding", "cookie", "proxy-authorization", "Proxy-Connection", "forwarded"),
    *(
        "x-forwarded-for",
        "X-Forwarded-Host",
        "webhook-id",
        "Webhook-Signature",
        "webhook-x",
        "signature",
        "Signature-Input",
    ),
    *(
        "traceparent",
        "tracestate",
        ":authority",
        ":path",
        "user-agent",
        "x-ion-signature",
        "clarion-retry",
        "accept-encoding",
    ),
)
INJECTIONS = [
    *(
        [["x-a", f"b{text}"]]
        for text in ("\r\nx: y", "\n", "\r", "\0", "\r\n folded", "\n\tfolded", "\x7f", "\x01", "é", "\u2028")
    ),
    *([["x-a", text]] for text in (" b", "b ", "\tb", "b\x80", "b\x85", "b\xa0", "嘊嘍x")),
    *(
        [[name, "b"]]
        for name in ("", " ", "x y", "x:", ":x", "x\r\ny", "x\n", "x\0", "é", "x\x7f", "(x)", "x/y", "x\ty", "x" * 300)
    ),
    *([[name, "b"]] for name in RESERVED),
    [["x-a", "1"], ["X-A", "2"]],
    [[f"x-{number}", "b"] for number in range(33)],
    [[f"x-{number}", "b" * 1000] for number in range(9)],
    [["x-a", "b" * 9000]],
]


def injections(net: Network) -> Tried:
    """Headers that would split, reframe or impersonate a request, planted: nothing is sent."""
    tried = Tried("headers")
    net.world("names", entries=ZONE)
    net.accepted()
    cases = [{"uri": f"https://{GOOD}/echo", "headers": headers} for headers in INJECTIONS]
    cases += [
        {"uri": f"https://{GOOD}/echo", "content_type": text} for text in ("a/b\r\nx: y", "a", "", "a/b\0", "a/é")
    ]
    for case, attempt in zip(cases, net.inside("send", cases=cases), strict=True):
        tried.expect(attempt["outcome"] == "BLOCKED", f"{str(case)[:120]}: {attempt['outcome']}")
    tried.silence(net.accepted())
    good = [["X-Token", "a b;c"], ["x-b", ""], ["Authorization", "Bearer x"]]
    tried.control(net.inside("send", cases=[{"uri": f"https://{GOOD}/echo", "headers": good}]), net.accepted())
    return tried


def crowding(net: Network, receivers: int = 100) -> Tried:
    """Very many receivers of one host: 64 connections at most."""
    tried = Tried("crowding")
    net.world("names", entries=ZONE)
    net.accepted()
    net.world("most_open")
    cases = [
        {"uri": f"https://{GOOD}/slow?seconds=0.02", "receiver_id": number % receivers + 1, "timeout_s": 30}
        for number in range(receivers * 3)
    ]
    found = net.inside("send", cases=cases, at_once=len(cases))
    accepted = net.accepted()
    tried.control(found, accepted)
    most = net.world("most_open")
    tried.notes.append(f"{most} connections at one time")
    tried.expect(most <= 64, f"{most} connections at one time to one host")
    return tried


def fixed_addresses(net: Network, sources: Sequence[str]) -> Tried:
    """A receiver whose firewall admits only these addresses: reached with them, refused without."""
    tried = Tried("source addresses")
    for source in sources:
        net.add_source(source)
    net.admit_only(FIREWALLED, sources)
    net.accepted()
    cases = [{"uri": f"https://{FIREWALLED}/last", "receiver_id": 1} for _ in range(2 * len(sources))]
    [without] = net.inside("send", cases=cases[:1])
    tried.expect(without["outcome"] == "CONNECT_FAILED", f"without the addresses: {without['outcome']}")
    tried.silence(net.accepted())
    found = net.inside("send", cases=cases, sources=list(sources), at_once=1)
    tried.control(found, net.accepted())
    used = {attempt["source_address"] for attempt in found}
    tried.expect(used == set(sources), f"addresses used: {used}")
    # The addresses are this host's now, and no receiver may be there.
    _planted(net, tried, [literal(ip_address(source)) for source in sources], "source", sources=list(sources))
    tried.silence(net.accepted())
    return tried


def _planted(net: Network, tried: Tried, uris: Sequence[str], kind: str, **given: Any) -> None:
    """The URIs as endpoints from the database: all BLOCKED, with one text."""
    found = net.inside("send", cases=[{"uri": uri} for uri in uris], **given)
    for uri, attempt in zip(uris, found, strict=True):
        what = (attempt["outcome"], attempt["error"], attempt["peer_address"])
        tried.expect(what == ("BLOCKED", BLOCKED_TEXT, None), f"{kind}, planted {uri!r}: {what}")


def literal(address: Address) -> str:
    return f"https://[{address}]/echo" if address.version == 6 else f"https://{address}/echo"
