"""What the proofs of a whole run share: a stage with receivers, its end, and how it is judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from clarion.capture.attach import Attachment
from harness.deployment import Deployment
from harness.oracle import Verdict, percentile
from harness.process import ClarionProcess
from harness.receiver import Received, ReceiverProcess
from harness.stage import stage
from proof.figures import Figure
from proof.load import SCHEMA, committed_by_receiver, latencies_ms


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
    """Ids of new receivers, some of them with several subscriptions to updates (`Deployment.register_several`)."""
    return set(deployment.register_several(count, uri, organisation=organisation, **columns))


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
    duplicates_max: int = 0,
    committed: Mapping[int, Mapping[str, int]] | None = None,
) -> list[Figure]:
    """The oracle's figures over the three logs; `committed` as there, by default all receivers and items."""
    verdict = deployment.judge(committed_by_receiver(deployment) if committed is None else committed, log)
    return figures_of(name, verdict, duplicates_max=duplicates_max)


def figures_of(name: str, verdict: Verdict, *, duplicates_max: int = 0, open_events: int = 0) -> list[Figure]:
    """A figure for each of the verdict's counts; `open_events` is what was left to be done on purpose."""
    nothing = {
        "lost": verdict.lost,
        "sent though never committed or asked for": verdict.unexpected,
        "out of order per object": verdict.inversions,
        "sent before the object's event before was settled": verdict.overtaking,
        "sent when its outcome was stored": verdict.late,
        "other bytes under the same id": verdict.altered,
        "requests whose signature fails": verdict.unverified,
        "objects whose ledger is not what was committed": verdict.misledgered,
        "events too many or too few": verdict.miscounted,
        "settled as delivered that no receiver accepted": verdict.undelivered,
        "requests of no event": verdict.unknown,
        "events whose attempts disagree with what came": verdict.disagreeing,
        "requests whose outcome was lost, not sent again": verdict.unrecorded - verdict.duplicates,
    }
    return [
        Figure(f"{name}: changes times subscriptions", verdict.expected, ""),
        *(Figure(f"{name}: {what}", count, "", 0, "exactly") for what, count in nothing.items()),
        Figure(f"{name}: events without an outcome", verdict.open, "", open_events, "exactly"),
        Figure(f"{name}: duplicates", verdict.duplicates, "", duplicates_max),
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
