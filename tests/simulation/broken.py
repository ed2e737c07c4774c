"""Engines with one fault each. The oracle must find every one, or its silence about the real engine means nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from msgspec import structs

from clarion.core.clock import Now
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event, Reason, Status
from clarion.delivery.memory import Memory
from clarion.delivery.receiver import Receiver
from clarion.delivery.step import (
    Command,
    CommandKind,
    Configured,
    Effect,
    Ending,
    Finished,
    Input,
    SendingAllowed,
    Settle,
    Ticked,
)
from clarion.sender.outcome import Attempt


class ForgetsLanes(Engine):
    """Every event may go at once."""

    def _keep(self, receiver: Receiver, event: Event, now: Now) -> None:
        event.lane = event.queue_id
        super()._keep(receiver, event, now)


class SendsWhileSettling(Engine):
    """The next of a lane goes when the one before is answered, not when its end is stored."""

    def _settle(self, receiver: Receiver, event: Event, attempt: Attempt | None, ending: Ending | None) -> None:
        super()._settle(receiver, event, attempt, ending)
        if ending is not None and attempt is not None:
            self._leave_lane(receiver, event, Now(0, event.change.recorded_at))


class DropsAFollower(Engine):
    """The new head of a lane is not looked at."""

    def _leave_lane(self, receiver: Receiver, event: Event, now: Now) -> None:
        receiver.lanes.remove(event.lane, event)


class ForgetsTheRest(Engine):
    """What a lane left in the table stays there."""

    def _load_rest(self, receiver: Receiver, lane: int) -> None:
        pass


class ForgetsTheBacklog(Engine):
    """A receiver whose window was full is never read again."""

    def _refill(self, receiver: Receiver) -> None:
        pass


class _Roomy(Receiver):
    __slots__ = ()

    def has_room(self) -> bool:
        return self.settings is not None and self.settings.active and not self.leaving


class IgnoresConcurrency(Engine):
    def _receiver(self, receiver_id: int) -> Receiver:
        if receiver_id not in self._receivers:
            self._receivers[receiver_id] = _Roomy(receiver_id, None, self._random)
            self._receivers[receiver_id].configure(self._settings.get(receiver_id))
        return self._receivers[receiver_id]


class _Active(Receiver):
    __slots__ = ()

    def has_room(self) -> bool:
        return self.settings is not None and not self.leaving and self.in_flight < self.settings.concurrency


class SendsToInactiveReceivers(Engine):
    def _receiver(self, receiver_id: int) -> Receiver:
        if receiver_id not in self._receivers:
            self._receivers[receiver_id] = _Active(receiver_id, None, self._random)
            self._receivers[receiver_id].configure(self._settings.get(receiver_id))
        return self._receivers[receiver_id]


class IgnoresTheRateLimit(Engine):
    def _pick(self, now: Now) -> None:
        for receiver in self._receivers.values():
            receiver.limit = None
        super()._pick(now)


class IgnoresTheTotal(Engine):
    def _pick(self, now: Now) -> None:
        self._room._in_flight_max = self._room._half = 10_000
        super()._pick(now)


class IgnoresTheWindow(Engine):
    def _loaded(self, events: Collection[Event], now: Now) -> None:
        self._memory = Memory(10_000, 50_000)
        super()._loaded(events, now)


class SendsWhenForbidden(Engine):
    def handle(self, happened: Input, now: Now) -> list[Effect]:
        return super().handle(Ticked() if happened == SendingAllowed(allowed=False) else happened, now)


class ForgetsOwnership(Engine):
    """Goes on sending for shards that it is giving up."""

    def _shards_draining(self, shards: object, now: Now) -> None:
        pass


class ForgetsRetryAfter(Engine):
    def _finished(self, event: Event, attempt: Attempt, now: Now) -> None:
        super()._finished(event, structs.replace(attempt, retry_after_s=None), now)


class RetriesTooEarly(Engine):
    def _finished(self, event: Event, attempt: Attempt, now: Now) -> None:
        super()._finished(event, attempt, Now(now.monotonic_ns, now.wall - timedelta(hours=1)))


class ForgetsTimers(Engine):
    def _set_timer(self, event: Event, moment: datetime, now: Now) -> None:
        pass


class GivesUpAtTheFirstFailure(Engine):
    def _settle(self, receiver: Receiver, event: Event, attempt: Attempt | None, ending: Ending | None) -> None:
        super()._settle(receiver, event, attempt, ending or Ending(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED))


class SpendsOnOwnFaults(Engine):
    def _finished(self, event: Event, attempt: Attempt, now: Now) -> None:
        super()._finished(event, structs.replace(attempt, ours=False), now)


class LosesAnOutcome(Engine):
    """Every seventh answer is not settled."""

    answers_count = 0

    def handle(self, happened: Input, now: Now) -> list[Effect]:
        effects = super().handle(happened, now)
        if isinstance(happened, Finished):
            self.answers_count += 1
            if self.answers_count % 7 == 0:
                return [effect for effect in effects if not isinstance(effect, Settle)]
        return effects


class OneReceiverStopsAll(Engine):
    """Nothing is sent to anybody while one receiver's breaker is open."""

    def _pick(self, now: Now) -> None:
        if not any(receiver.breaker.is_open for receiver in self._receivers.values()):
            super()._pick(now)


class KeepsSendingToAFailingReceiver(Engine):
    def _pick(self, now: Now) -> None:
        for receiver in self._receivers.values():
            if receiver.breaker.is_open:
                receiver.breaker.is_open = False
        super()._pick(now)


class SendsExpiredEvents(Engine):
    def _configured(self, configured: Configured, now: Now) -> None:
        super()._configured(replace(configured, subscriptions=dict.fromkeys(configured.subscriptions)), now)


class SendsAfterDeletion(Engine):
    def _cancel_if_unwanted(self, receiver: Receiver, event: Event) -> bool:
        return False


class IgnoresRights(Engine):
    """A receiver is sent what it has no right to any more."""

    def _configured(self, configured: Configured, now: Now) -> None:
        receivers = {key: replace(one, readable_resources=None) for key, one in configured.receivers.items()}
        super()._configured(replace(configured, receivers=receivers), now)


class ForgetsOrders(Engine):
    """An order to try at once is taken and nothing comes of it."""

    def _commanded(self, command: Command, now: Now) -> None:
        if command.kind is not CommandKind.RETRY_NOW:
            super()._commanded(command, now)


BROKEN: tuple[type[Engine], ...] = (
    ForgetsLanes,
    SendsWhileSettling,
    DropsAFollower,
    ForgetsTheRest,
    ForgetsTheBacklog,
    IgnoresConcurrency,
    SendsToInactiveReceivers,
    IgnoresTheRateLimit,
    IgnoresTheTotal,
    IgnoresTheWindow,
    SendsWhenForbidden,
    ForgetsOwnership,
    ForgetsRetryAfter,
    RetriesTooEarly,
    ForgetsTimers,
    GivesUpAtTheFirstFailure,
    SpendsOnOwnFaults,
    LosesAnOutcome,
    OneReceiverStopsAll,
    KeepsSendingToAFailingReceiver,
    SendsExpiredEvents,
    SendsAfterDeletion,
    IgnoresRights,
    ForgetsOrders,
)
