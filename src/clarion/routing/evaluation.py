"""What subscriptions ask of a change beyond resource and action, and what they show of it. Pure but for the time it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from clarion.core.ids import STANDARD_BODY, TEMPLATE_BODY
from clarion.expressions.program import EvaluationFailed, Program
from clarion.expressions.render import render_template
from clarion.expressions.row import Values
from clarion.ledger.change import Captured
from clarion.routing.budget import CHEAP_NS, Budget
from clarion.routing.match import Subscription
from clarion.routing.together import TOGETHER_MIN, Together, program_of

_log = logging.getLogger(__name__)

KILLED = "not evaluated: whenever it was, the router died"
OVER_BUDGET = "not evaluated: this subscription's expressions have taken more time than they may"

_WATCHED_MAX = 10_000
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

    `clock_ns` is read around each evaluation; what was not
    cheap by it is timed with the dearer `cpu_ns` from then on, which counts this thread's work alone: that the host gave its
    cores to others is nobody's to pay.
    """

    def __init__(self, clock_ns: Callable[[], int], cpu_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._watched: set[str] = set()
        self._budget = Budget()
        self._together = Together(clock_ns)
        self._decimals: Mapping[str, Collection[str]] = {}

    def configure(self, decimals: Mapping[str, Collection[str]]) -> None:
        """The configuration is another one; `decimals` has, by resource, the columns that are decimal numbers."""
        self._decimals = decimals
        self._together.forget_plans()

    def evaluate(
        self, row: Captured, subscriptions: Sequence[Subscription], *, alive: bool = True
    ) -> tuple[list[Firing], list[Failure]]:
        """Which of the subscriptions the change fires, in their order; those that ask nothing always.

        Not `alive`: the row killed the router, so that whoever asks something counts as failed. Raises nothing.
        """
        firings: list[Firing] = []
        failures: list[Failure] = []
        values = Values(row, self._decimals.get(row.resource, ()))
        answers: dict[str, bool | EvaluationFailed] = {}
        together: Mapping[str, bool | None] | None = None if len(subscriptions) >= TOGETHER_MIN else {}
        for subscription in subscriptions:
            condition = subscription.condition
            if condition is not None:
                answer = answers.get(condition)
                # Only after one was asked alone: reading the row is on the account of whoever comes first.
                if answer is None and together is None and values.are_made:
                    together = self._together.answers(subscriptions, values)
                if answer is None and together and self._budget.is_free(subscription.subscription_id):
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

    def _asked(
        self, subscription: Subscription, source: str, ask: Callable[[Program], _T], *, alive: bool
    ) -> _T | EvaluationFailed:
        """The answer, or why there is none: within the budget, and charged to it."""
        if not alive:
            return _Passed(KILLED)
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
            answer = ask(program_of(source))
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
            if len(self._watched) >= _WATCHED_MAX:
                self._watched.clear()
            self._watched.add(source)
        return answer
