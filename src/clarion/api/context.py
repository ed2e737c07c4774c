"""What a resolver is handed: who asks, the database, and the things that the process was started with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import strawberry
from graphql import DocumentNode
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.api.deadline import Deadline
from clarion.api.loaders import Loaders
from clarion.api.session import Session
from clarion.core.clock import Clock, Random
from clarion.core.environments import Environments
from clarion.registry.egress_rules import rules_of
from clarion.registry.encryption_key import HOLD_KEY, use_held_key
from clarion.registry.resources import Resource
from clarion.sender.policy import Policy, Rule
from clarion.sender.seal import Sealer


@dataclass(frozen=True, slots=True)
class Services:
    """What all operations share."""

    sealer: Sealer
    random: Random
    clock: Clock
    policy: Policy
    """Without the rules that operators make, which are read for each registration."""
    environments: Environments
    environment_name: str


@dataclass(slots=True)
class Context:
    """One operation's context."""

    services: Services
    principal: Principal
    session: Session
    resources: Sequence[Resource]
    operation_name: str | None
    deadline: Deadline
    document: DocumentNode | None = None
    _loaders: Loaders | None = field(init=False, default=None)

    @property
    def loaders(self) -> Loaders:
        """Made when first asked for: most operations need none."""
        if self._loaders is None:
            self._loaders = Loaders(self.session, self.principal, self.services.sealer)
        return self._loaders

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[AsyncConnection]:
        """The transaction of one mutation; what is read after it is read anew."""
        async with self.session.writing(HOLD_KEY) as connection:
            await use_held_key(connection, self.services.sealer)
            yield connection
        self._forget()

    def waiting(self, seconds: float) -> bool:
        """Whether the outcome of what was just committed can be waited for; it then may take so long.

        Not with an idempotency key: nothing is committed before the whole request is answered.
        """
        if self.session.is_whole:
            return False
        self.deadline.allow(seconds)
        return True

    async def rules(self) -> tuple[Rule, ...]:
        """The exceptions to where requests may go. Names are looked up next, without a connection where one can be given back."""
        async with self.session.reading() as connection:
            rules = await rules_of(connection, self.services.environment_name)
        await self.session.finish()
        return rules

    async def read_anew(self) -> None:
        """Give the connection back; what is read after it is read anew."""
        await self.session.finish()
        self._forget()

    def _forget(self) -> None:
        self._loaders = None


Info = strawberry.Info[Context, None]
