"""Keeps the schema in step with the database: what is attached appears in `ResourceEnum` within a second."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from clarion.api.schema import Published, build_schema
from clarion.api.session import acting
from clarion.core.clock import Clock
from clarion.core.errors import StoreUnavailable
from clarion.registry.resources import configuration_version, list_resources

POLL_S = 0.5
_FRESH_NS = 2_000_000_000

_log = logging.getLogger(__name__)


class SchemaSource:
    """The schema as last published; operations keep the one that they began with."""

    def __init__(self, engine: AsyncEngine, role: str, clock: Clock) -> None:
        self._engine = engine
        self._role = role
        self._clock = clock
        self._checked_ns: int | None = None
        self.published: Published | None = None

    @property
    def database_answers(self) -> bool:
        """Whether the database answered within the last two seconds."""
        return self._checked_ns is not None and self._clock.monotonic_ns() - self._checked_ns < _FRESH_NS

    async def refresh(self) -> None:
        """Publish a new schema if resources changed. Raises StoreUnavailable."""
        try:
            async with acting(self._engine, self._role) as connection:
                version = await configuration_version(connection)
                before = self.published
                if before is None or version != before.version:
                    resources = await list_resources(connection)
                    if not resources:
                        raise StoreUnavailable("no resource is registered", "run `clarion migrate`")
                    same = before is not None and resources == before.resources
                    schema = before.schema if before is not None and same else build_schema(resources)
                    self.published = Published(schema, resources, version)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the schema cannot be read: {type(error).__name__}") from error
        self._checked_ns = self._clock.monotonic_ns()

    async def follow(self) -> None:
        """Refresh until cancelled, through any outage of the database."""
        failing = False
        while True:
            try:
                await self.refresh()
                failing = False
            except StoreUnavailable as error:
                if not failing:
                    _log.warning("%s; trying again", error)
                failing = True
            except Exception:
                _log.exception("the schema could not be built; the one before stays")
            await asyncio.sleep(POLL_S)
