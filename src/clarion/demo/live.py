"""`clarion demo`: life in the factory, and each delivery as it arrives."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from threading import Event, Thread
from typing import Any, Final

from clarion.core.errors import ApiRefused, CheckFailed
from clarion.demo.audit import completed
from clarion.demo.delivery import Delivery
from clarion.demo.integration import INTEGRATIONS
from clarion.demo.stage import Stage
from clarion.demo.terminal import Terminal, json_text
from clarion.demo.words import Tally, change_words, delivery_lines
from clarion.factory.act import ActRefused, open_engine
from clarion.factory.resources import RESOURCES
from clarion.factory.simulate import Simulator
from clarion.factory.uses import Use, play_six_uses

_LOOK_SECONDS: Final = 0.2
_HEAD_WIDTH: Final = 12
_STOP_SECONDS_MAX: Final = 5.0
_LAST_SECONDS_MAX: Final = 0.5
_TRY: Final = (
    "{ webhookEvents(first: 3) { edges { node { id status resource action objectId"
    " attempts { outcome statusCode durationMs } } } } }"
)


def run_live(stage: Stage, rate_per_second: float, *, as_json: bool, tally: Tally) -> None:
    """Shows deliveries until it is interrupted; counts them in `tally`. Raises CheckFailed when a part of it ends."""
    terminal = Terminal.of(sys.stdout)
    show = _show_json if as_json else lambda delivery: _show(delivery, terminal)
    _banner(stage, rate_per_second, Terminal.of(sys.stderr) if as_json else terminal)

    def take(timeout_seconds: float) -> bool:
        report = stage.receiver.next_report(timeout_seconds)
        if report is not None:
            with suppress(ApiRefused):  # on the way out; it is shown without its change
                report = completed(stage, report)
            tally.add(report)
            show(report)
        return report is not None

    try:
        with _living(stage, rate_per_second) as assert_alive:
            while True:
                take(_LOOK_SECONDS)
                stage.serve.assert_alive()
                assert_alive()
    finally:
        # What was committed last is still under way.
        while take(_LAST_SECONDS_MAX):
            pass


def curl_call(stage: Stage) -> str:
    """A call to the API that works as it stands, in the shell that started the demo or any other on this machine."""
    key = shlex.quote(f"Authorization: Bearer {stage.key}") if stage.key_is_ours else _KEY_OF_THE_USER
    return (
        f"curl -s {stage.api_url}/graphql -H 'Content-Type: application/json' \\\n"
        f"    -H {key} \\\n"
        f"    -d {shlex.quote(json.dumps({'query': _TRY}))}"
    )


_KEY_OF_THE_USER: Final = '"Authorization: Bearer $CLARION_BOOTSTRAP_API_KEY"'


class _Stopped(Exception):
    """The demo ends while the uses are played."""


@contextmanager
def _living(stage: Stage, rate_per_second: float) -> Iterator[Callable[[], None]]:
    """The six uses, then the simulator, in a thread; what comes back raises what ended it."""
    engine = open_engine(stage.address)
    stop = Event()
    ended: list[BaseException] = []

    def pace(_use: Use) -> None:
        if stop.wait(1 / rate_per_second):
            raise _Stopped

    def live() -> None:
        try:
            with suppress(ActRefused, _Stopped):  # somebody else may act on the same objects
                play_six_uses(engine, pace)
            Simulator(engine, Random()).run(rate_per_second, None, stop)  # noqa: S311 - chooses what happens next
        except BaseException as error:
            ended.append(error)

    def assert_alive() -> None:
        if ended:
            raise CheckFailed(f"the factory stands still: {ended[0]}", f"see {stage.directory / 'serve.log'}")

    thread = Thread(target=live, name="factory", daemon=True)
    thread.start()
    try:
        yield assert_alive
    finally:
        stop.set()
        thread.join(_STOP_SECONDS_MAX)
        engine.dispose()


def _banner(stage: Stage, rate_per_second: float, terminal: Terminal) -> None:
    key = stage.key if stage.key_is_ours else "the one in CLARION_BOOTSTRAP_API_KEY"
    terminal.line()
    terminal.line(terminal.style("Clarion turns committed changes into signed webhooks. This runs now:", bold=True))
    terminal.line()
    for name, what in (
        (
            "factory",
            f"an application on PostgreSQL, {len(RESOURCES)} tables; {rate_per_second:g} acts a second, six uses first",
        ),
        ("clarion", "captures, routes, signs, delivers, records (clarion serve)"),
        ("receiver", f"{stage.receiver.base_uri}, six integrations; each verifies each request"),
        *(("", line) for line in _integration_lines(terminal.width - _HEAD_WIDTH)),
        ("API", f"{stage.api_url}/graphql"),
        ("key", key),
        ("logs", str(stage.directory / "serve.log")),
    ):
        terminal.line(f"  {terminal.style(f'{name:<9}', 'cyan')} {what}")
    terminal.line()
    terminal.line("Ask the audit record, in another terminal:")
    terminal.line()
    terminal.line(f"  {curl_call(stage)}")
    terminal.line()
    terminal.line("Ctrl-C ends it, with all that it started. Each delivery as it arrives, ms from commit:")
    terminal.line()


def _integration_lines(width: int) -> list[str]:
    """Where each integration listens, to what, and only when."""
    path_width = 1 + max(len(one.path) for one in INTEGRATIONS)
    subscription_width = max(len(one.subscription) for one in INTEGRATIONS)
    lines = []
    for one in INTEGRATIONS:
        only_when = f"if {one.condition}" if one.condition else "as an adaptive card" if one.template else ""
        line = f"{'/' + one.path:<{path_width}}  {one.subscription:<{subscription_width}}  {only_when}".rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def _show(delivery: Delivery, terminal: Terminal) -> None:
    for line in delivery_lines(delivery, terminal):
        terminal.line(line)


def _show_json(delivery: Delivery) -> None:
    print(json_text(delivery_json(delivery), sys.stdout), flush=True)


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """The delivery for programs. `ms` is from the trigger's clock to the receiver's."""
    return {
        "received_at": delivery.received_at,
        "receiver": delivery.path,
        "verified": delivery.is_verified,
        "ms": delivery.ms,
        "webhook_id": delivery.webhook_id,
        "event_id": delivery.event_id,
        "subscription_id": delivery.subscription_id,
        "resource": delivery.resource,
        "action": delivery.action,
        "object_id": delivery.object_id,
        "change_id": delivery.change_id,
        "sequence": delivery.sequence,
        "occurred_at": delivery.occurred_at,
        "what": change_words(delivery) if delivery.is_verified else None,
        "did": delivery.did,
        "failed": delivery.is_failed,
        "repeated": delivery.is_repeated,
    }
