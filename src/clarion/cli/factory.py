"""`clarion factory`: the reference application, put into a database and brought to life."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from threading import Event, Thread
from time import monotonic
from types import FrameType

import click

from clarion.core.settings import load_settings
from clarion.factory.act import Act, open_engine
from clarion.factory.install import install, installed
from clarion.factory.resources import RESOURCES
from clarion.factory.simulate import Played, Simulator

_INTERRUPTED = 130


@click.group()
def factory() -> None:
    """The reference factory: an application to try Clarion with."""


@factory.command("install")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def install_command(as_json: bool) -> None:
    """Make the factory's tables and attach them; again without harm."""
    from clarion.app import open_database

    with open_database(load_settings()) as address:
        made = install(address)
    if as_json:
        click.echo(json.dumps({"installed": made, "resources": [resource.name for resource in RESOURCES]}))
    elif made:
        click.echo(f"factory installed: {len(RESOURCES)} resources attached")
    else:
        click.echo(f"factory is installed already: {len(RESOURCES)} resources")


@factory.command("run")
@click.option(
    "--rate",
    "rate_per_second",
    type=click.FloatRange(min=0, min_open=True, max=10_000),
    required=True,
    help="Business acts per second.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long; default: run until Ctrl-C."
)
@click.option("--seed", type=int, help="Make the same choices as another run with this seed did.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a line per second.")
def run_command(rate_per_second: float, seconds: float | None, seed: int | None, as_json: bool) -> None:
    """Play life in the factory: runs, issues, orders, receipts. The first act creates a run."""
    from clarion.app import open_database

    with open_database(load_settings()) as address:
        if not installed(address):
            install(address)
        engine = open_engine(address)
        try:
            simulator = Simulator(engine, Random(seed))  # noqa: S311 - chooses what happens next, guards nothing
            with _stopped_by_signals() as stop:
                played = _play(simulator, rate_per_second, seconds, stop, None if as_json else _Progress().show)
        finally:
            engine.dispose()
    interrupted = seconds is not None and played.seconds < seconds
    _print_summary(played, rate_per_second, as_json=as_json, interrupted=interrupted)
    if interrupted:
        sys.exit(_INTERRUPTED)


def _play(
    simulator: Simulator,
    rate_per_second: float,
    seconds: float | None,
    stop: Event,
    watch: Callable[[Act, Played], None] | None,
) -> Played:
    """What the simulator did, in a thread of its own.

    The handler that sets `stop` runs in the main thread; were it that thread which waits for `stop`, the two could meet
    inside the event's lock and never come out.
    """
    outcome: Future[Played] = Future()

    def work() -> None:
        try:
            outcome.set_result(simulator.run(rate_per_second, seconds, stop, watch))
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=work, name="simulator", daemon=True).start()
    return outcome.result()


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """An event that Ctrl-C or a termination sets, so that the act under way ends; a second one cuts it off."""
    stop = Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Progress:
    """A line per second: how much was done, and what was done last."""

    shown_at: float = float("-inf")

    def show(self, act: Act, played: Played) -> None:
        now = monotonic()
        if now - self.shown_at < 1.0:
            return
        self.shown_at = now
        click.echo(
            f"{played.seconds:6.0f} s  {played.acts_count:7} acts  {played.rate_per_second:7.1f}/s  {act.summary}"
        )


def _print_summary(played: Played, rate_per_second: float, *, as_json: bool, interrupted: bool) -> None:
    if as_json:
        result = {
            "acts": played.acts_count,
            "seconds": round(played.seconds, 3),
            "rate_per_second": round(played.rate_per_second, 2),
            "rate_per_second_wanted": rate_per_second,
            "failures": played.failures,
            "interrupted": interrupted,
            "acts_by_name": dict(sorted(played.acts.items())),
        }
        click.echo(json.dumps(result))
        return
    click.echo(f"{played.acts_count} acts in {played.seconds:.1f} s, {played.rate_per_second:.1f} per second")
    for name, count in played.acts.most_common():
        click.echo(f"  {count:7}  {name.replace('_', ' ')}")
    if played.failures:
        click.echo(f"  {played.failures:7}  failed while the database was away")
