"""Names to addresses, within a time budget, and the check of a URI at registration."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from weakref import WeakKeyDictionary, WeakValueDictionary

from clarion.sender.address import (
    Address,
    AddressNotAllowed,
    Target,
    UriRefused,
    refusal_of_answers,
)
from clarion.sender.policy import Policy, Rule

RESOLVE_BUDGET_S = 2.0
LOOKUPS_AT_ONCE_MAX = 256
LOOKUPS_OF_ONE_HOST_MAX = 4
"""Fewer, so that a name whose servers never answer does not take the room of all others."""
ANSWERS_MAX = 64
_REFUSED_EVERY_S = 0.25

# getaddrinfo's ways to say that an authority answered: no such name, or a name without addresses.
_NOT_RESOLVED = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class _Room:
    """Room for the lookups of one event loop. Who finds none waits: a thousand receivers may be connected to at once."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)
        self._of_host: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, host: str) -> Callable[[], None]:
        """Wait for room; what is returned gives it back."""
        own = self._of_host.get(host)
        if own is None:
            own = self._of_host[host] = asyncio.Semaphore(LOOKUPS_OF_ONE_HOST_MAX)
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise

        def give_back() -> None:
            own.release()
            self._all.release()

        return give_back


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = WeakKeyDictionary()


class NameNotResolved(Exception):
    """An authority says that the name does not exist or has no address."""


class ResolverFailed(Exception):
    """The lookup gave no answer: our resolver failed, refused, or took longer than the budget."""


@dataclass(frozen=True, slots=True)
class UriWarning:
    """Something about an accepted URI that its owner should know. `code` is stable, as NAME_NOT_RESOLVED."""

    code: str
    message: str


async def resolve(host: str, port: int, budget_s: float = RESOLVE_BUDGET_S) -> list[Address]:
    """All addresses of a name, in the resolver's order of preference, without repetitions.

    Raises NameNotResolved or ResolverFailed; the latter also for more than 64 answers. At most 256 lookups are made at
    once, 4 of one name; others wait within their budget. A lookup that outlives its budget goes on in a thread of its own, which holds up
    neither other lookups nor the end of the process.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Address]] = loop.create_future()
    name = host.encode("ascii")  # as bytes, since Python would map text by the older IDNA 2003

    def settle(addresses: list[Address], error: OSError | UnicodeError | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(_translate(error))

    def look_up() -> None:
        addresses: list[Address] = []
        failed: OSError | UnicodeError | None = None
        try:
            addresses = _addresses(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
        except (OSError, UnicodeError) as error:
            failed = error
        finally:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(give_back)
                loop.call_soon_threadsafe(settle, addresses, failed)

    room = _rooms.setdefault(loop, _Room())
    waits = True
    try:
        async with asyncio.timeout(budget_s):
            give_back = await room.take(host)
            waits = False
            try:
                threading.Thread(target=look_up, name="clarion-lookup", daemon=True).start()
            except RuntimeError as error:
                give_back()
                raise ResolverFailed("no thread for the lookup") from error
            addresses = await found
    except TimeoutError:
        what = "other lookups were under way for" if waits else "no answer within"
        raise ResolverFailed(f"{what} {budget_s:g} s") from None
    if len(addresses) > ANSWERS_MAX:
        raise ResolverFailed(f"more than {ANSWERS_MAX} addresses")
    if not addresses:
        raise NameNotResolved("the name has no address")
    return addresses


def _addresses(answers: Sequence[tuple[object, ...]]) -> list[Address]:
    found: dict[Address, None] = {}
    for family, *_, address in answers:
        if not isinstance(address, tuple):
            continue
        if family == socket.AF_INET:
            found[IPv4Address(address[0])] = None
        elif family == socket.AF_INET6:
            found[IPv6Address(str(address[0]).partition("%")[0])] = None
    return list(found)


def _translate(error: OSError | UnicodeError) -> NameNotResolved | ResolverFailed:
    if isinstance(error, socket.gaierror) and error.errno in _NOT_RESOLVED:
        return NameNotResolved("the name does not exist or has no address")
    if isinstance(error, UnicodeError):
        return NameNotResolved("the name cannot be looked up")
    return ResolverFailed(error.strerror or "the lookup failed")


async def addresses_of(target: Target, policy: Policy) -> list[Address]:
    """The checked addresses of a target: its literal, or every answer of one lookup.

    Raises NameNotResolved, ResolverFailed, or AddressNotAllowed if any one answer is forbidden.
    """
    addresses = [target.literal] if target.literal is not None else await resolve(target.host, target.port)
    policy.check(target, addresses)
    return addresses


async def check_uri(
    text: str, policy: Policy, rules: Callable[[], Awaitable[tuple[Rule, ...]]] | None = None
) -> list[UriWarning]:
    """Warnings about a webhook URI that may be registered; empty when there is nothing to say.

    `rules` reads the exceptions that operators made; it is asked only about what `policy` alone refuses. Takes at most the
    resolver's budget of 2 s, and as long again where there are such exceptions.
    A name that does not resolve today is accepted with the warning
    NAME_NOT_RESOLVED, unless it is acceptable only by its addresses (inside names, other ports).
    Raises UriRefused or AddressNotAllowed; the latter at full quarters of a second, so that its time does not tell an
    address that is in the table from a name that had to be looked up.
    """
    started = asyncio.get_running_loop().time()
    try:
        return await _checked_with(text, policy, rules)
    except AddressNotAllowed:
        passed = asyncio.get_running_loop().time() - started
        await asyncio.sleep(_REFUSED_EVERY_S - passed % _REFUSED_EVERY_S)
        raise


async def _checked_with(
    text: str, policy: Policy, rules: Callable[[], Awaitable[tuple[Rule, ...]]] | None
) -> list[UriWarning]:
    try:
        return await _checked(text, policy)
    except (UriRefused, AddressNotAllowed):
        # A rule only ever opens: what may be sent to without any may be sent to with all of them.
        excepted = () if rules is None else await rules()
        if not excepted:
            raise
    return await _checked(text, replace(policy, rules=policy.rules + excepted))


async def _checked(text: str, policy: Policy) -> list[UriWarning]:
    target = policy.parse(text)
    try:
        await addresses_of(target, policy)
    except AddressNotAllowed:
        raise refusal_of_answers(target) from None
    except (NameNotResolved, ResolverFailed):
        if target.only_allowed:
            raise refusal_of_answers(target) from None
        return [
            UriWarning(
                "NAME_NOT_RESOLVED",
                f"{target.host} does not resolve today: events will be tried and will fail until it does",
            )
        ]
    return []
