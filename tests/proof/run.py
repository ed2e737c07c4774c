"""What the proofs of a whole run share: a stage with receivers, its end, and how it is judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from clarion.capture.attach import Attachment
from harness.deployment import Deployment
from harness.oracle import judge, percentile
from harness.process import ClarionProcess
from harness.receiver import Received, ReceiverProcess
from harness.stage import stage
from proof.figures import Figure
from proof.load import SCHEMA, committed_by_receiver, latencies_ms, receiver_of


@contextmanager
def attached() -> Iterator[Deployment]:
    """A stage whose table `items` is attached, rows belonging to the organisation that they name."""
    with stage(schema=SCHEMA) as deployment:
        deployment.attach(
            Attachment(resource="ITEMS", table="items", organisation=None, organisation_column="organisation")
        )
        yield deployment


@contextmanager
def another_receiver(deployment: Deployment) -> Iterator[ReceiverProcess]:
    certificate = deployment.authority.issue(addresses=["127.0.0.1"])
    with ReceiverProcess(deployment.directory / "another receiver", certificate) as receiver:
        yield receiver


def add_receivers(
    deployment: Deployment, count: int, *, uri: str | None = None, organisation: str = "default", **columns: object
) -> set[int]:
    receivers = {deployment.register(uri, organisation=organisation, **columns) for _ in range(count)}
    for receiver in receivers:
        deployment.subscribe(receiver)
    return receivers


def serve(deployment: Deployment) -> ClarionProcess:
    return deployment.serve("--role", "router", "--role", "delivery")


def wait_for_flow(deployment: Deployment, receiver: ReceiverProcess | None = None) -> None:
    """Until requests arrive and nothing older than a moment waits."""
    receiver = receiver or deployment.receiver
    count = receiver.count()
    receiver.wait_until(lambda now: now >= count + 50, timeout_s=60)
    deployment.wait_for_row(
        "SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox WHERE captured_at < clock_timestamp() - interval '1 s') "
        "AND (SELECT count(*) FROM clarion.queue q JOIN clarion.receivers r ON r.id = q.receiver_id WHERE r.active) < 100"
    )


def finished(deployment: Deployment, *serving: ClarionProcess) -> list[Received]:
    deployment.wait_until_settled(timeout_s=120)
    for process in serving:
        process.stop()
    return deployment.receiver.received()


def judged(
    name: str,
    deployment: Deployment,
    log: Sequence[Received],
    *,
    duplicates_max: int,
    committed: dict[int, dict[str, int]] | None = None,
) -> list[Figure]:
    verdict = judge(committed or committed_by_receiver(deployment), receiver_of(deployment), deployment.secrets, log)
    ((gaps,),) = deployment.rows(
        """SELECT count(*) FROM (SELECT change_id - lag(change_id, 1, 0::bigint) OVER (PARTITION BY organisation_id ORDER BY change_id)
                                 AS step FROM clarion.ledger) AS steps WHERE step <> 1"""
    )
    return [
        Figure(f"{name}: changes times receivers", verdict.expected, ""),
        Figure(f"{name}: lost", verdict.lost, "", 0, "exactly"),
        Figure(f"{name}: sent though never committed", verdict.unexpected, "", 0, "exactly"),
        Figure(f"{name}: out of order per object", verdict.inversions, "", 0, "exactly"),
        Figure(f"{name}: gaps in the ledger's numbers", gaps, "", 0, "exactly"),
        Figure(f"{name}: duplicates", verdict.duplicates, "", duplicates_max),
        Figure(f"{name}: duplicates with other bytes", verdict.altered, "", 0, "exactly"),
        Figure(f"{name}: requests whose signature fails", verdict.unverified, "", 0, "exactly"),
    ]


def compare(
    name: str,
    deployment: Deployment,
    log: Sequence[Received],
    receivers: Collection[int],
    calm: tuple[float, float],
    disturbed: tuple[float, float],
) -> list[Figure]:
    """p99 at these receivers during a disturbance against the one before it, at most twice as long; spans in Unix seconds."""
    before = latencies_ms(deployment, log, receivers=receivers, since=calm[0], until=calm[1])
    during = latencies_ms(deployment, log, receivers=receivers, since=disturbed[0], until=disturbed[1])
    return [
        Figure(f"{name}: p99 before ({len(before):,})", percentile(before, 0.99), "ms"),
        Figure(f"{name}: p99 during ({len(during):,})", percentile(during, 0.99), "ms"),
        Figure(f"{name}: largest during", max(during, default=float("nan")), "ms"),
        Figure(f"{name}: p99 during / before", percentile(during, 0.99) / percentile(before, 0.99), "times", 2),
    ]
