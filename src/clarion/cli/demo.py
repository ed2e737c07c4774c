"""`clarion demo`: the first thing that a newcomer runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import click

from clarion.core.errors import ClarionError
from clarion.core.settings import load_settings

if TYPE_CHECKING:
    from clarion.demo.stage import Stage
    from clarion.demo.terminal import Terminal

_INTERRUPTED = 130
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command
@click.option("--once", "is_once", is_flag=True, help="Play the six uses, check what arrived, print a table and end.")
@click.option(
    "--rate",
    "rate_per_second",
    type=click.FloatRange(min=0, min_open=True, max=1000),
    default=2.0,
    show_default=True,
    help="Business acts per second of the simulated factory; not with --once.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="JSON on stdout: an object per delivery, with --once a single one."
)
def demo(*, is_once: bool, rate_per_second: float, as_json: bool) -> int:
    """Show the whole path live: a factory, its changes, a receiver that verifies.

    Starts a PostgreSQL of its own, `clarion serve`, a factory whose life is simulated, and an HTTPS receiver with six
    integrations; shows each delivery as it arrives. Ctrl-C ends it all. Data stays in CLARION_DATA_DIR.

    With --once the exit code is 0 when all that should arrive did, and nothing else, and the audit record agrees; 1
    with the reason otherwise.
    """
    from clarion.demo.terminal import Steps, Terminal, json_text

    errors = Terminal.of(sys.stderr)
    steps = Steps(errors)
    settings = load_settings()
    errors.line(f"setting up in {settings.data_dir.absolute()}")
    try:
        with _interruptible():
            from clarion.demo.stage import stage

            with stage(settings, steps.step) as running:
                if is_once:
                    return _once(running, steps.finish, as_json=as_json)
                steps.finish()
                return _live(running, rate_per_second, errors if as_json else Terminal.of(sys.stdout), as_json=as_json)
    except ClarionError as error:
        steps.abandon()
        if as_json and is_once:
            click.echo(json_text({"ok": False, "reason": error.message, "hint": error.hint}, sys.stdout, indent=2))
        raise
    except KeyboardInterrupt:
        steps.abandon()
        errors.line("ended; nothing that was started is left")
        return _INTERRUPTED


def _once(running: Stage, finish: Callable[[], float], *, as_json: bool) -> int:
    from clarion.demo.once import run_once
    from clarion.demo.proof import outcome_json, outcome_lines
    from clarion.demo.terminal import Terminal, json_text

    setup_seconds = finish()
    outcome = run_once(running)
    if as_json:
        click.echo(json_text(outcome_json(outcome, setup_seconds), sys.stdout, indent=2))
        return 0
    terminal = Terminal.of(sys.stdout)
    terminal.line()
    for line in outcome_lines(outcome, terminal):
        terminal.line(line)
    terminal.line()
    terminal.line(
        f"{terminal.style('6 of 6 uses arrived', 'green', bold=True)}, and nothing else. {outcome.tally.words()}."
    )
    terminal.line(
        "The API's audit record has the same events, each DELIVERED at its first attempt."
        f" {outcome.seconds:.1f} s, after {setup_seconds:.1f} s of set-up."
    )
    return 0


def _live(running: Stage, rate_per_second: float, summary: Terminal, *, as_json: bool) -> int:
    from clarion.demo.live import run_live
    from clarion.demo.words import Tally

    tally = Tally()
    try:
        run_live(running, rate_per_second, as_json=as_json, tally=tally)
    finally:
        with suppress(BrokenPipeError):
            summary.line()
            summary.line(f"{tally.words()}. Ending …")
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first Ctrl-C (or termination, or hang-up) interrupts; while all that was started ends, more are ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    for number, handler in before.items():
        # `nohup clarion demo` outlives its terminal.
        if number != signal.SIGHUP or handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
