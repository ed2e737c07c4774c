"""The proofs of the API: the border between organisations, what hostile requests cost, and what it answers in a second."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from attack.border import border_of
from attack.isolation import Attack, Border, schema_of
from attack.isolation import attacks as border_attacks
from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.sender.seal import Sealer
from harness.api import UNLIMITED, Caller, new_key, served
from harness.audit_rows import add_resources
from harness.stage import stage
from proof.api_attacks import attacks
from proof.api_rates import rates
from proof.egress import P_MIN, two_samples_p
from proof.figures import Figure

Proof = Callable[[bool], list[Figure]]

MEDIANS_APART_MAX = 0.03


def isolation(brief: bool) -> list[Figure]:
    """Every place for an id in the schema, with the ids of another organisation's objects: the answers of absent ones."""
    cases, told = 0, []
    # Each in a world of its own: what was refused before stands in the attacker's history, with the ids that it asked for.
    etags = ("receiver",) if brief else ("receiver", "subscription", None)
    for of, ask in itertools.product(etags, (Attack.written, Attack.with_id)):
        with _bordered() as border:
            etag = "0" * 32 if of is None else border.etags[of]
            tried = list(border_attacks(schema_of(border.attacker), etag))
            told += [found for attack in tried for found in border.differences(attack, border.victims, ask)]
            cases += len(tried) * len(border.victims)
    for where, foreign, absent in told:
        print(f"# {where}: {foreign[:300]} not {absent[:300]}", file=sys.stderr)
    return [
        Figure("isolation: places for an id, each with each kind of object", cases, "cases"),
        Figure("isolation: answers that tell a foreign id from an absent one", len(told), "", 0, "exactly"),
    ]


def ids(brief: bool) -> list[Figure]:
    """How long the answer takes for another organisation's id and for an absent one, in pairs, as distributions."""
    pairs = 300 if brief else 1000
    figures = []
    with _bordered() as border:
        for what, document in {
            "receiver by id": "{{ webhookReceiver(id: {}) {{ id name }} }}",
            "update of a receiver": 'mutation {{ updateWebhookReceiver(input: {{id: {}, etag: "x", name: "n"}}) {{ __typename }} }}',
            "event by id": "{{ webhookEvent(id: {}) {{ id status }} }}",
        }.items():
            kind = "WebhookEvent" if "event" in what else "WebhookReceiver"
            # Once more where the first look says that they differ: of a hundred comparisons one does by chance.
            for _ in range(2):
                foreign, absent = _timed(border, document, kind, pairs)
                p = two_samples_p(foreign, absent)
                apart = abs(statistics.median(foreign) / statistics.median(absent) - 1)
                if p > P_MIN and apart < MEDIANS_APART_MAX:
                    break
            figures += [
                Figure(f"ids: {what}, medians of foreign and absent apart", apart * 100, "%", MEDIANS_APART_MAX * 100),
                Figure(f"ids: {what}, p of one distribution", p, "", P_MIN, "at least"),
            ]
    return figures


def _timed(border: Border, document: str, kind: str, pairs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the answers for the foreign and for the absent id, asked in turn, in either order."""
    foreign, absent = border.victims[kind], border.absent[kind]
    taken: dict[str, list[float]] = {foreign: [], absent: []}
    for number in range(-20, pairs):
        for key in (foreign, absent) if number % 2 else (absent, foreign):
            begun = time.perf_counter()
            border.attacker(document.format(key))
            if number >= 0:
                taken[key].append((time.perf_counter() - begun) * 1000)
    return taken[foreign], taken[absent]


@contextmanager
def _bordered() -> Iterator[Border]:
    """Two organisations on a fresh database, behind the API."""
    random = SystemRandom()
    with stage() as deployment:
        with psycopg.connect(deployment.database.url, autocommit=True) as connection:
            add_resources(connection, [("RUNS", "RUN"), ("ISSUES", "ISSUE")])
        with served(deployment.database, Sealer(random.token(32), random), settings=UNLIMITED) as port:
            key = new_key(deployment.database, "default", Role.ADMINISTRATOR, "admin")
            yield border_of(Caller(port, key, deployment.database))


PROOFS: dict[str, Proof] = {"isolation": isolation, "ids": ids, "attacks": attacks, "rates": rates}
