"""Conditions of one change asked together, as one list: a good part of what a short condition takes is the call.

Nobody can tell from an answer whether it was asked for alone or in a list. An answer counts only if its list had a result, and
within the time that a single condition may take without paying; otherwise each is asked alone, with its own error and its
own time. What goes through lists or maps stays alone: the library's limit on steps is for an evaluation as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clarion.expressions.program import EvaluationFailed, ExpressionRefused, Program, load_list
from clarion.expressions.row import Values
from clarion.routing.budget import CHEAP_NS
from clarion.routing.match import Subscription

_log = logging.getLogger(__name__)

TOGETHER_MIN = 5
TOGETHER_MAX = 16
TOGETHER_AFTER = 32
"""Changes for which conditions are asked alone before a list of them is made, which takes as long as some twenty answers."""

_LISTS_MAX = 500
"""Lists at one time; one takes some 100 KB."""
_PLANS_MAX = 10_000
_FAILING_MAX = 10_000
_RESTS_MAX = 1_000


@lru_cache(maxsize=_LISTS_MAX)
def _list_of(conditions: tuple[str, ...]) -> Program | None:
    """None for few, and if they cannot be compiled together: a list nests each of them a little deeper."""
    if len(conditions) < TOGETHER_MIN:
        return None
    try:
        return load_list(conditions)
    except ExpressionRefused:
        return None


@dataclass(slots=True)
class _List:
    """Conditions that are asked together, but not for the next `rests` changes."""

    conditions: tuple[str, ...]
    program: Program | None = None
    rests: int = 0
    rests_next: int = 1

    def is_worth_it(self, wanted: Collection[str | None]) -> bool:
        """Whether enough of them are wanted: the list as a whole takes as long as a few do alone."""
        return sum(condition in wanted for condition in self.conditions) >= TOGETHER_MIN

    def rest(self) -> None:
        """It was of no use on this change: ever longer, as long as it stays so."""
        self.rests, self.rests_next = self.rests_next, min(self.rests_next * 2, _RESTS_MAX)

    def end_rest(self, failing: set[str]) -> None:
        """Without those that took the others' result it may do better."""
        if not failing.isdisjoint(self.conditions):
            self.conditions = tuple(condition for condition in self.conditions if condition not in failing)
            self.program = None


@dataclass(slots=True)
class _Plan:
    """The lists for these subscriptions; none for the first `waits` changes."""

    subscriptions: Sequence[Subscription]
    waits: int = TOGETHER_AFTER
    lists: list[_List] = field(default_factory=list)


class Together:
    """Remembers what may be asked together, for each kind of change. `program_of` gives a condition alone."""

    def __init__(self, clock_ns: Callable[[], int], program_of: Callable[[str], Program | EvaluationFailed]) -> None:
        self._clock_ns = clock_ns
        self._program_of = program_of
        self._plans: dict[tuple[int, str, str], _Plan] = {}
        self._lists_count = 0
        self._failing: set[str] = set()

    def forget_plans(self) -> None:
        """The subscriptions are others now. Lists that are the same as before need not be compiled again."""
        self._plans.clear()
        self._lists_count = 0

    def failed(self, condition: str) -> None:
        """It had no result on a change, and would take it from those that stand in a list with it."""
        if len(self._failing) >= _FAILING_MAX:
            self._failing.clear()
        self._failing.add(condition)

    def answers(
        self, subscriptions: Sequence[Subscription], asking: Sequence[Subscription], values: Values
    ) -> Mapping[str, bool | None]:
        """Answers to conditions of those of the subscriptions that are `asking`: few or none. Raises nothing.

        The subscriptions are all that listen for one kind of change. None where a condition is neither true nor false,
        which is said when it is asked alone.
        """
        if len(asking) < TOGETHER_MIN:
            return {}
        wanted = {one.condition for one in asking}
        first = subscriptions[0]
        kind = (first.organisation_id, first.resource, first.action)
        plan = self._plans.get(kind)
        if plan is None or plan.subscriptions is not subscriptions:
            if len(self._plans) >= _PLANS_MAX:
                self.forget_plans()
            plan = self._plans[kind] = _Plan(subscriptions)
        if plan.waits:
            plan.waits -= 1
            if not plan.waits:
                plan.lists = self._lists(subscriptions)
            return {}
        answers: dict[str, bool | None] = {}
        compiled = False
        for one in plan.lists:
            if one.rests:
                one.rests -= 1
                if not one.rests:
                    one.end_rest(self._failing)
            elif one.program is None:
                # One for each change, so that none waits long.
                if not compiled and self._lists_count < _LISTS_MAX:
                    compiled = True
                    self._lists_count += 1
                    one.program = _list_of(one.conditions)
                    one.rests = _RESTS_MAX if one.program is None else 0
            elif values.row_bytes <= one.program.safe_row_bytes and one.is_worth_it(wanted):
                begun_ns = self._clock_ns()
                found = _evaluated(one.program, values)
                if found is None or self._clock_ns() - begun_ns > CHEAP_NS:
                    one.rest()
                else:
                    one.rests_next = 1
                    answers.update(zip(one.conditions, found, strict=True))
        return answers

    def _lists(self, subscriptions: Sequence[Subscription]) -> list[_List]:
        distinct = dict.fromkeys(s.condition for s in subscriptions if s.condition is not None)
        suited = [
            condition for condition in distinct if condition not in self._failing and self._is_straight(condition)
        ]
        lists = [tuple(suited[start : start + TOGETHER_MAX]) for start in range(0, len(suited), TOGETHER_MAX)]
        return [_List(conditions) for conditions in lists]

    def _is_straight(self, condition: str) -> bool:
        program = self._program_of(condition)
        return isinstance(program, Program) and not program.has_loops


def _evaluated(program: Program, values: Values) -> list[bool | None] | None:
    """The answers; None for what is neither true nor false, and instead of a list that has no result."""
    try:
        found: list[Any] = values.evaluate(program)
    except EvaluationFailed:
        return None
    except Exception:
        _log.exception("conditions that were asked together failed; they are asked alone")
        return None
    return [answer if answer is True or answer is False else None for answer in found]
