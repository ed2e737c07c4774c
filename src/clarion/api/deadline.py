"""How long a request may work. What it waits for that others do is not its work, and is allowed for apart."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

REQUEST_S_MAX = 5.0
WAITED_S_MAX = 60.0
"""What all mutations of a request together may wait for outcomes."""


class DeadlinePassed(Exception):
    """The request took longer than it may."""


class Deadline:
    """Ends the block that it is the context of. Raises DeadlinePassed from it."""

    def __init__(self, seconds: float = REQUEST_S_MAX) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._allowed_s = WAITED_S_MAX

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise DeadlinePassed from None

    def allow(self, seconds: float) -> None:
        """Add what will be waited for, as far as this is not more than a request may wait in all."""
        when = self._timeout.when()
        added = min(seconds, self._allowed_s)
        if when is not None and not self._timeout.expired():
            self._allowed_s -= added
            self._timeout.reschedule(when + added)
