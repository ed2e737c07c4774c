"""What subscriptions ask of a change beyond resource and action, and what they show of it. Pure but for the time it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from clarion.core.ids import STANDARD_BODY, TEMPLATE_BODY
from clarion.expressions.guards import is_ruled_out
from clarion.expressions.program import EvaluationFailed, ExpressionRefused, Program, load_program
from clarion.expressions.render import render_template
from clarion.expressions.row import Values
from clarion.ledger.change import Captured
from clarion.routing.budget import CHEAP_NS, Budget
from clarion.routing.match import Subscription
from clarion.routing.together import Together

_log = logging.getLogger(__name__)

KILLED = "not evaluated: whenever it was, the router died or the database refused what came of it"
OVER_BUDGET = "not evaluated: this subscription's expressions have taken more time than they may"

_T = TypeVar("_T")


class _Passed(EvaluationFailed):
    """Not evaluated for a reason that is this subscription's own."""


class Firing(NamedTuple):
    """A subscription that the change fires, and how its event's body is made."""

    subscription: Subscription
    render_version: int
    body: bytes | None


class Failure(NamedTuple):
    """A subscription whose condition (or template) had no result; `message` says why and holds no value of the row."""

    subscription: Subscription
    of_template: bool
    message: str


class Evaluator:
    """Evaluates the conditions and templates of subscriptions.

    `clock_ns` is read around each evaluation; what was not cheap by it is timed with the dearer `cpu_ns` from then on, which
    counts this thread's work alone: that the host gave its cores to others is nobody's to pay.
    """

    def __init__(self, clock_ns: Callable[[], int], cpu_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._watched: set[str] = set()
        self._budget = Budget()
        self._together = Together(clock_ns, self._program)
        self._decimals: Mapping[str, Collection[str]] = {}
        self._programs: dict[str, Program | EvaluationFailed] = {}
        self._uncompiled: list[str] = []

    def configure(self, subscriptions: Iterable[Subscription], decimals: Mapping[str, Collection[str]]) -> None:
        """What will be asked from now on. `decimals` has, by resource, the columns that are decimal numbers."""
        self._decimals = decimals
        sources = {source for one in subscriptions for source in (one.condition, one.template) if source is not None}
        self._programs = {source: program for source, program in self._programs.items() if source in sources}
        self._uncompiled = [source for source in sources if source not in self._programs]
        self._together.forget_plans()
        self._watched &= sources

    def prepare(self, for_ns: int) -> None:
        """Compile some of what was not asked yet, for about so long: half a millisecond each, which no change should wait for."""
        ends_ns = self._clock_ns() + for_ns if self._uncompiled else 0
        while self._uncompiled and self._clock_ns() < ends_ns:
            self._program(self._uncompiled.pop())

    def _program(self, source: str) -> Program | EvaluationFailed:
        program = self._programs.get(source)
        if program is None:
            try:
                program = load_program(source)
            except ExpressionRefused as refused:
                program = EvaluationFailed(f"it cannot be compiled any more: {refused}")
            self._programs[source] = program
        return program

    def evaluate(
        self, row: Captured, subscriptions: Sequence[Subscription], *, alive: bool = True
    ) -> tuple[list[Firing], list[Failure]]:
        """Which of the subscriptions the change fires, in their order; those that ask nothing always.

        Not `alive`: the row killed the router, or what came of it was refused, so that whoever asks something counts as failed.
        Raises nothing.
        """
        firings: list[Firing] = []
        failures: list[Failure] = []
        values = Values(row, self._decimals.get(row.resource, ()))
        answers: dict[str, bool | EvaluationFailed] = {}
        # Who only chooses fields has nothing to ask of them.
        rows = _rows(values) if alive and any(one.condition is not None for one in subscriptions) else None
        # What a glance at the rows rules out is not asked, and pays nothing.
        left = [one for one in subscriptions if rows is None or not self._is_ruled_out(one.condition, rows)]
        together = self._together.answers(subscriptions, left, values) if rows is not None else {}
        for subscription in left:
            condition = subscription.condition
            if condition is not None:
                answer = answers.get(condition)
                if answer is None and self._budget.is_free(subscription.subscription_id):
                    answer = together.get(condition)
                if answer is None:
                    answer = self._asked(subscription, condition, values.decide, alive=alive)
                # What failed for a reason of this subscription's own says nothing about another's.
                if answer.__class__ is not _Passed:
                    answers[condition] = answer
                if answer is False:
                    continue
                if answer is not True:
                    if answer.__class__ is not _Passed:
                        self._together.failed(condition)
                    failures.append(Failure(subscription, False, str(answer)))
                    continue
            if subscription.template is None:
                firings.append(Firing(subscription, STANDARD_BODY, None))
                continue
            made = self._asked(subscription, subscription.template, partial(render_template, values), alive=alive)
            if isinstance(made, EvaluationFailed):
                failures.append(Failure(subscription, True, str(made)))
            firings.append(Firing(subscription, TEMPLATE_BODY, made if isinstance(made, bytes) else None))
        return firings, failures

    def _is_ruled_out(self, condition: str | None, rows: tuple[dict[str, Any], dict[str, Any]]) -> bool:
        program = self._programs.get(condition) if condition is not None else None
        return program.__class__ is Program and is_ruled_out(program.guards, *rows)

    def _asked(
        self, subscription: Subscription, source: str, ask: Callable[[Program], _T], *, alive: bool
    ) -> _T | EvaluationFailed:
        """The answer, or why there is none: within the budget, and charged to it."""
        if not alive:
            return _Passed(KILLED)
        program = self._program(source)
        if isinstance(program, EvaluationFailed):
            return program
        organisation_id, subscription_id = subscription.organisation_id, subscription.subscription_id
        if not self._budget.is_free(subscription_id) and not self._budget.allows(
            organisation_id, subscription_id, self._clock_ns()
        ):
            return _Passed(OVER_BUDGET)
        watched = source in self._watched
        timer_ns = self._cpu_ns if watched else self._clock_ns
        begun_ns = timer_ns()
        answer: _T | EvaluationFailed
        try:
            answer = ask(program)
        except EvaluationFailed as failed:
            answer = failed
        except Exception:
            # A fault of ours or of the library's on this row must not stop everybody's changes.
            _log.exception("an expression of subscription %s failed", subscription.subscription_id)
            answer = EvaluationFailed("the evaluation failed; the router's log says why")
        took_ns = timer_ns() - begun_ns
        if took_ns > CHEAP_NS and watched:
            self._budget.took(organisation_id, subscription_id, took_ns, self._clock_ns())
        elif took_ns > CHEAP_NS:
            self._watched.add(source)
        return answer


def _rows(values: Values) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """New and old row; None if they cannot be looked into, which is said to whoever asks for more."""
    try:
        return values.rows()
    except EvaluationFailed:
        return None
