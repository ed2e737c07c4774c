"""What three logs together say: the application's rows, the ledger, and what receivers wrote down.

The application's table has a column `version` that every commit raises by one, from 1 on: its last value is the log of
commits. Nothing here asks Clarion what it believes to have done.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from clarion_receive import VerificationError, Webhook
from harness.receiver import Received


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts over one run.

    `expected` committed changes times their subscribed receivers; `lost` of them never arrived; `unexpected` arrived and
    were not committed; `inversions` arrived for the first time after a later one of the same object; `duplicates` came
    again, `altered` of them with other bytes; `unverified` failed verification.
    """

    expected: int
    lost: int
    unexpected: int
    inversions: int
    duplicates: int
    altered: int
    unverified: int


def judge(
    committed: Mapping[int, Mapping[str, int]],
    receiver_of: Mapping[int, int],
    secrets: Mapping[int, str],
    log: Iterable[Received],
) -> Verdict:
    """Compare what each receiver should have got with its log.

    `committed` maps each receiver to its objects and their last version, `receiver_of` a subscription to its receiver,
    `secrets` a receiver to the one secret that may have signed for it.
    """
    verifiers = {receiver: Webhook(secret, tolerance_s=24 * 3600) for receiver, secret in secrets.items()}
    first: dict[str, Received] = {}
    seen: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    duplicates = altered = unverified = 0
    for request in log:
        body = orjson.loads(request.body)
        receiver = receiver_of[body["subscription_id"]]
        try:
            verifiers[receiver].verify(request.body, request.headers)
        except VerificationError:
            unverified += 1
            continue
        before = first.setdefault(request.message_id, request)
        if before is not request:
            duplicates += 1
            altered += before.body != request.body
            continue
        seen[(receiver, body["object_id"])].append(body["data"]["version"])
    lost = unexpected = inversions = expected = 0
    wanted = {(receiver, item): last for receiver, items in committed.items() for item, last in items.items()}
    for place in wanted.keys() | seen.keys():
        last, versions = wanted.get(place, 0), seen.get(place, [])
        expected += last
        arrived = set(versions)
        lost += len(set(range(1, last + 1)) - arrived)
        unexpected += len(versions) - len(arrived & set(range(1, last + 1)))
        inversions += sum(later < earlier for earlier, later in itertools.pairwise(versions))
    return Verdict(expected, lost, unexpected, inversions, duplicates, altered, unverified)


def percentile(values: Iterable[float], share: float) -> float:
    """The value above which at most 1 - `share` (0 to 1) of the values lie; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
