"""The proofs of the guard around what leaves: attacks in network namespaces, hostile answers, secrets, timing.

Needs root, iproute2 and nftables. No packet leaves the machine.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from attack import programme
from attack.hostile import CPU_MS_MAX, LATE_PERCENT_MAX, RESIDENT_KIB_MAX, hostile
from attack.programme import Tried, literal
from attack.secrecy import secrecy
from attack.special_purpose import forbidden
from attack.uris import INSIDE_NAMES, NUMBERS
from attack.whole import environment_addresses, starting, test_sends, whole
from harness.deployment import Deployment
from harness.dns_server import spelt_name
from harness.network import Network, missing, network
from harness.stage import stage
from proof.figures import Figure

Proof = Callable[[bool], list[Figure]]

P_MIN = 0.01

Compared = tuple[list[float], list[float], int]
"""Milliseconds of the first and of the second kind, and how many different things were said."""


def attacks(_brief: bool) -> list[Figure]:
    """URI texts, special-purpose addresses, names that trick, headers, proxy, sharing: at registration and planted."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="clarion-proof.") as name:
        keylog = Path(name) / "keys.log"
        with _network(Path(name), keylog) as net:
            tries = [
                programme.texts,
                programme.addresses,
                programme.own,
                programme.answers,
                programme.proxied,
                programme.injections,
                programme.crowding,
            ]
            for attack in tries:
                figures += _figures(attack(net))
            figures += _figures(programme.sharing(net, keylog))
    return figures


def sources(_brief: bool) -> list[Figure]:
    """Each environment's addresses as real source addresses, at a receiver whose firewall admits those alone."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="clarion-proof.") as name, _network(Path(name)) as net:
        for environment, addresses in environment_addresses().items():
            tried = programme.fixed_addresses(net, addresses)
            tried.name = f"sources of {environment}"
            figures += _figures(tried)
    return figures


def serve(brief: bool) -> list[Figure]:
    """`clarion serve` in the namespace: by its API and planted in its database, with an environment's addresses."""
    with _served() as (net, deployment):
        return _figures(whole(net, deployment, "production", sample=16 if brief else 160))


def answers(brief: bool) -> list[Figure]:
    """Answers made to hurt: without end, byte by byte, bombs, lying lengths, redirects; time, memory and CPU of each."""
    with tempfile.TemporaryDirectory(prefix="clarion-proof.") as name, _network(Path(name)) as net:
        hurt = hostile(net, attempts=16, timeout_s=2 if brief else 5, together=brief)
    _explain("answers", hurt.wrong)
    return [
        Figure("answers: hostile answers tried", hurt.cases, ""),
        Figure("answers: not as they have to be", len(hurt.wrong), "", 0, "exactly"),
        Figure("answers: others visited because of them", hurt.accepted, "connections", 0, "exactly"),
        Figure(
            f"answers: beyond the deadline, worst {_where(hurt.worst, 'late_percent')}",
            hurt.late_percent,
            "%",
            LATE_PERCENT_MAX,
        ),
        Figure(
            f"answers: memory, worst {_where(hurt.worst, 'resident_kib')}", hurt.resident_kib, "KiB", RESIDENT_KIB_MAX
        ),
        Figure(f"answers: CPU, worst {_where(hurt.worst, 'cpu_ms')}", hurt.cpu_ms, "ms", CPU_MS_MAX),
    ]


def secrets(brief: bool) -> list[Figure]:
    """A whole run with canary secrets; logs, answers, tables, files, arguments and sent bytes searched for every form."""
    with stage() as deployment:
        searched = secrecy(deployment, all_files=not brief)
    _explain("secrets", [f"{hit.place}: {hit.secret}, {hit.form}" for hit in searched.hits])
    return [
        Figure("secrets: places searched", searched.places, ""),
        Figure("secrets: searched", searched.bytes / 1e6, "MB"),
        Figure("secrets: events of the run", searched.events, "", 20, "at least"),
        Figure("secrets: found", len(searched.hits), "", 0, "exactly"),
    ]


def timing(brief: bool) -> list[Figure]:
    """Neither how long a refusal takes nor what it says tells its reason: kinds of destinations in pairs, as distributions."""
    pairs = 120 if brief else 500
    literals = [literal(address) for address in forbidden()]
    registered = {
        "names that resolve to them": [f"https://{spelt_name(address)}/" for address in forbidden()],
        "disguised numbers": NUMBERS,
        "inside names": [uri for uri in INSIDE_NAMES if not uri.endswith("./")],
        "metadata": [literal(ip_address("169.254.169.254"))],
    }
    blocked = [f"https://{spelt_name(ip_address('10.0.0.1'))}/"]
    tested = {
        "refused": [literal(ip_address("203.0.114.1"))],
        "filtered": [literal(ip_address("203.0.114.2"))],
        "unknown names": ["https://nobody.good.example/"],
        "literals": literals,
    }
    figures = []
    with tempfile.TemporaryDirectory(prefix="clarion-proof.") as name, _network(Path(name)) as net:
        net.close("203.0.114.1", "203.0.114.2")
        for other, uris in registered.items():
            figures += _twice(
                f"registering literals, {other}",
                partial(_compared, net, "register", literals, uris, pairs, ("code", "text")),
            )
        says = ("outcome", "error", "status_code", "peer_address", "source_address", "duration_ms")
        for other, uris in tested.items():
            figures += _twice(
                f"testing blocked names, {other}", partial(_compared, net, "test_sends", blocked, uris, pairs, says)
            )
    return figures


def tests(brief: bool) -> list[Figure]:
    """testWebhookReceiver as somebody would use it to look around: refused, filtered, unknown and blocked destinations."""
    pairs = 100 if brief else 500
    kinds = {
        "blocked": f"https://{spelt_name(ip_address('10.0.0.1'))}/",
        "refused": literal(ip_address("203.0.114.1")),
        "filtered": literal(ip_address("203.0.114.2")),
        "unknown names": "https://nobody.good.example/",
    }
    figures = []
    for kind in list(kinds)[1:]:
        pair = {name: kinds[name] for name in ("blocked", kind)}
        figures += _twice(f"tests: blocked, {kind}", partial(_tested, pair, pairs))
    return figures


def _tested(kinds: dict[str, str], pairs: int) -> Compared:
    with _served() as (net, deployment):
        net.close("203.0.114.1", "203.0.114.2")
        net.accepted()
        found = test_sends(net, deployment, kinds, pairs)
        accepted = net.accepted()
    first, second = ([answer.pop("_ms") for answer in answers] for answers in found.values())
    said = {json.dumps(answer, sort_keys=True) for answers in found.values() for answer in answers}
    _explain("tests", [*(sorted(said) if len(said) > 1 else []), *accepted])
    return first, second, len(said) + len(accepted)


def _compared(
    net: Network, operation: str, first: Sequence[str], second: Sequence[str], pairs: int, says: Sequence[str]
) -> Compared:
    """Two kinds of destinations, mixed."""
    # Shuffled in one list: what else the machine does meanwhile falls on both.
    numbers = [(kind, number) for kind in (0, 1) for number in range(pairs)]
    random.shuffle(numbers)
    kinds = (first, second)
    found = net.inside(operation, uris=[kinds[kind][number % len(kinds[kind])] for kind, number in numbers])
    took: tuple[list[float], list[float]] = ([], [])
    for (kind, _), answer in zip(numbers, found, strict=True):
        took[kind].append(answer["_ms"])
    return *took, len({tuple(answer[key] for key in says) for answer in found})


def _twice(what: str, compare: Callable[[], Compared]) -> list[Figure]:
    """The figures of a comparison. One of a hundred falls below 0.01 although there is nothing: then it is made once more,
    and what is there shows again.
    """
    first, second, said = compare()
    p = two_samples_p(first, second)
    if p < P_MIN:
        print(f"# {what}: p was {p:.3g}, compared once more", file=sys.stderr, flush=True)
        first, second, more = compare()
        p, said = two_samples_p(first, second), max(said, more)
    apart = abs(statistics.median(first) - statistics.median(second))
    return [
        Figure(f"{what}: p", p, "", P_MIN, "at least"),
        Figure(f"{what}: different things said", said, "", 1, "exactly"),
        Figure(f"{what}: medians apart", apart, "ms"),
    ]


PROOFS: dict[str, Proof] = {
    "attacks": attacks,
    "sources": sources,
    "serve": serve,
    "answers": answers,
    "secrets": secrets,
    "timing": timing,
    "tests": tests,
}


def two_samples_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The probability that samples of one distribution differ as much as these (Kolmogorov and Smirnov, two-sided, by the
    asymptotic series with Stephens' correction for size).
    """
    a, b = sorted(first), sorted(second)
    i = j = 0
    distance = 0.0
    while i < len(a) and j < len(b):
        least = min(a[i], b[j])
        while i < len(a) and a[i] == least:
            i += 1
        while j < len(b) and b[j] == least:
            j += 1
        distance = max(distance, abs(i / len(a) - j / len(b)))
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series does not converge there, and the probability is 1 to many digits
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


@contextmanager
def _network(directory: Path, keylog: Path | None = None) -> Iterator[Network]:
    if why := missing():
        raise RuntimeError(f"this proof {why}")
    environment = programme.ENVIRONMENT | ({} if keylog is None else {"SSLKEYLOGFILE": str(keylog)})
    # The API's children run as root here; whoever else has to look in may.
    directory.chmod(0o755)
    inner = directory / "network"
    inner.mkdir()
    with network(inner, programme.certified(), environment) as net:
        yield net


@contextmanager
def _served() -> Iterator[tuple[Network, Deployment]]:
    """A network, and a deployment whose processes run inside of it; its database is outside, behind a file."""
    with (
        stage(schema="SELECT") as outside,
        tempfile.TemporaryDirectory(prefix="clarion-proof.") as name,
        _network(Path(name)) as net,
        starting(net, Path(name)) as start,
        Deployment(outside.database, Path(name), start) as deployment,
    ):
        yield net, deployment


def _figures(tried: Tried) -> list[Figure]:
    _explain(tried.name, tried.wrong)
    for note in tried.notes:
        print(f"# {tried.name}: {note}", file=sys.stderr)
    return [
        Figure(f"{tried.name}: cases tried", tried.cases, ""),
        Figure(f"{tried.name}: not as they have to be", len(tried.wrong), "", 0, "exactly"),
        Figure(f"{tried.name}: connections that a canary accepted", tried.accepted, "", 0, "exactly"),
        Figure(
            f"{tried.name}: positive controls that arrived, of {tried.controls_of}",
            tried.controls,
            "",
            tried.controls_of,
            "exactly",
        ),
    ]


def _explain(name: str, wrong: Sequence[str]) -> None:
    for line in wrong[:20]:
        print(f"# {name}: {line}", file=sys.stderr)


def _where(worst: dict[str, str], bound: str) -> str:
    return f"({worst[bound]})" if bound in worst else ""
