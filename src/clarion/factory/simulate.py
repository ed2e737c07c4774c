"""Life in the factory: one business act after the other, each in a transaction of its own, at an even pace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from clarion.core.errors import EnvironmentRefused, StoreUnavailable
from clarion.factory.act import Act, ActRefused, Person, perform
from clarion.factory.moves import MOVES, begin_run_anyway
from clarion.factory.tables import User

_BEHIND_MAX_SECONDS: Final = 1.0
"""A simulator that fell further behind than this does not catch up the rest in a burst."""
_OUTAGE_MAX_SECONDS: Final = 30.0
_OUTAGE_PAUSE_SECONDS: Final = 0.2


@dataclass(slots=True)
class Played:
    """What a simulator has done: `acts` by their name, `failures` that the database's outages cost."""

    acts: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    seconds: float = 0.0

    @property
    def acts_count(self) -> int:
        """All acts."""
        return self.acts.total()

    @property
    def rate_per_second(self) -> float:
        """Acts per second over the whole time, 0 before any time has passed."""
        return self.acts_count / self.seconds if self.seconds > 0 else 0.0


class Simulator:
    """Plays plausible life. All state is in the database: several may run, and one go on where another ended.

    With one simulator on a fresh factory, the same seed of `chance` gives the same acts.
    """

    def __init__(self, engine: Engine, chance: Random) -> None:
        self._engine = engine
        self._chance = chance
        self._begun = False
        self._people: tuple[Person, ...] = ()

    def step(self) -> Act:
        """One next business act, the first of all a new run. Raises EnvironmentRefused without master data."""
        by = self._chance.choice(self._staff())
        while True:
            try:
                done = perform(self._engine, by, lambda session: self._move(session, by))
            except ActRefused:
                # Someone else acted on the object between our look and our lock.
                continue
            if done is None:
                raise EnvironmentRefused(
                    "factory: there is no released procedure to make a run from",
                    "`clarion factory install` on an empty schema",
                )
            self._begun = True
            return done

    def run(
        self,
        rate_per_second: float,
        seconds: float | None,
        stop: Event,
        watch: Callable[[Act, Played], None] | None = None,
    ) -> Played:
        """What was done until `seconds` have passed (None: no end) or `stop` is set.

        Act number n is due n / rate seconds after the start. An outage of the database of up to 30 s is waited out;
        after that StoreUnavailable is raised. `watch` is called after each act.
        """
        played = Played()
        start = schedule = due = reached = monotonic()
        end = None if seconds is None else start + seconds
        while not stop.wait(max(0.0, due - monotonic())):
            if end is not None and due >= end:
                break
            try:
                act = self.step()
            except OperationalError as error:
                played.failures += 1
                if monotonic() - reached > _OUTAGE_MAX_SECONDS:
                    raise _unavailable(error) from error
                stop.wait(_OUTAGE_PAUSE_SECONDS)
                continue
            now = reached = monotonic()
            played.acts[act.name] += 1
            played.seconds = now - start
            if watch is not None:
                watch(act, played)
            due = schedule + played.acts_count / rate_per_second
            if due < now - _BEHIND_MAX_SECONDS:
                schedule += now - _BEHIND_MAX_SECONDS - due
                due = now - _BEHIND_MAX_SECONDS
            if end is not None:
                due = min(due, end)
        played.seconds = monotonic() - start
        return played

    def _move(self, session: Session, by: Person) -> Act | None:
        """The first possible move in an order that chance draws by weight."""
        if not self._begun:
            return begin_run_anyway(session, self._chance, by)
        # Efraimidis and Spirakis, 2006: sorting by u^(1/w) draws without replacement in proportion to the weights.
        order = sorted(MOVES, key=lambda move: self._chance.random() ** (1 / move.weight), reverse=True)
        for move in order:
            act = move.make(session, self._chance, by)
            if act is not None:
                return act
        return begin_run_anyway(session, self._chance, by)

    def _staff(self) -> tuple[Person, ...]:
        """Who may act: all active users, read once."""
        if not self._people:
            self._people = staff(self._engine)
        return self._people


def staff(engine: Engine) -> tuple[Person, ...]:
    """The factory's active users, in the order of their keys, at least one. Raises EnvironmentRefused without any."""
    with Session(engine) as session:
        people = tuple(
            Person(key, name)
            for key, name in session.execute(select(User.id, User.name).where(User.active).order_by(User.id))
        )
    if not people:
        raise EnvironmentRefused("factory: it has no users", "`clarion factory install` makes them in an empty schema")
    return people


def _unavailable(error: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"factory: the database did not come back within {_OUTAGE_MAX_SECONDS:g} s: {str(error.orig).splitlines()[0]}",
        "check that the server runs and start again",
    )
