"""`clarion events list --watch`: events as they appear and as their status changes.

Each round is at most two requests: the next page after the newest event that is known, and a look at up to 25 of those
whose status may still change, in turn. At most 2,000 of these are remembered, the oldest are forgotten first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import click

from clarion.cli.graphql import ApiUnavailable, GraphQL
from clarion.core.errors import ApiRefused

_FIELDS: Final = """
fragment Shown on WebhookEvent {
  id status reason resource action objectId changeId sequence created settled dueAt subscription { id } receiver { id name }
}"""
_LATEST: Final = (
    "query Latest($last: Int!, $filters: WebhookEventsInputFilters) "
    "{ webhookEvents(last: $last, filters: $filters, sort: [ID_ASC]) { edges { cursor node { ...Shown } } } }" + _FIELDS
)
_NEXT: Final = (
    "query Next($after: String, $filters: WebhookEventsInputFilters) "
    "{ webhookEvents(first: 100, after: $after, filters: $filters, sort: [ID_ASC]) "
    "{ edges { cursor node { ...Shown } } pageInfo { hasNextPage } } }" + _FIELDS
)
_PAGE_MAX: Final = 100
_LOOKED_AT: Final = 25
_REMEMBERED_MAX: Final = 2_000
_ROUND_SECONDS: Final = 1.0
_WAIT_SECONDS_MAX: Final = 30.0
_SETTLED_FOR_GOOD: Final = "DELIVERED"


class Watch:
    """Shows the events that match `filters` and, where `statuses` has any, have one of them."""

    def __init__(
        self,
        api: GraphQL,
        filters: dict[str, object],
        statuses: frozenset[str],
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self._api = api
        self._filters = filters
        self._statuses = statuses
        self._show = show
        self._cursor: str | None = None
        self._statuses_known: dict[str, str] = {}

    def run(self, latest: int) -> NoReturn:
        """Shows the `latest` events (100 at most) and goes on until interrupted. Raises ApiRefused."""
        found = self._api.run(_LATEST, last=min(latest, _PAGE_MAX), filters=self._filters)
        self._take(found["webhookEvents"]["edges"])
        failures = 0
        more = False
        while True:
            if not more:
                time.sleep(_ROUND_SECONDS)
            try:
                more = self._round()
            except ApiUnavailable as unavailable:
                if failures == 0:
                    click.echo(f"clarion: {unavailable.message}; trying again until it does", err=True)
                failures += 1
                more = False
                time.sleep(min(_WAIT_SECONDS_MAX, max(unavailable.wait_seconds, 2 ** min(failures - 1, 3))))
                continue
            if failures:
                click.echo("clarion: the API answers again", err=True)
                failures = 0

    def _round(self) -> bool:
        """One look; whether there are more events to be had at once."""
        found = self._api.run(_NEXT, after=self._cursor, filters=self._filters)["webhookEvents"]
        self._take(found["edges"])
        self._look_again()
        return bool(found["pageInfo"]["hasNextPage"])

    def _take(self, edges: list[dict[str, Any]]) -> None:
        for edge in edges:
            self._cursor = edge["cursor"]
            self._note(edge["node"])

    def _look_again(self) -> None:
        """Asks for the events that were not looked at for the longest time."""
        asked = list(self._statuses_known)[:_LOOKED_AT]
        if not asked:
            return
        variables = {f"e{number}": event_id for number, event_id in enumerate(asked)}
        declared = ", ".join(f"${name}: ID!" for name in variables)
        fields = " ".join(f"{name}: webhookEvent(id: ${name}) {{ ...Shown }}" for name in variables)
        # The same document each time but for the number of events, so that the server has it ready.
        try:
            found = self._api.run(f"query Again({declared}) {{ {fields} }}{_FIELDS}", **variables)
        except ApiUnavailable:
            raise
        except ApiRefused:
            # One of them is past its retention.
            for event_id in asked:
                del self._statuses_known[event_id]
            return
        for event in found.values():
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        """Shows an event that is new or has another status, and remembers it while its status may change."""
        before = self._statuses_known.pop(event["id"], None)
        if before != event["status"] and (not self._statuses or event["status"] in self._statuses):
            self._show(event)
        if event["status"] != _SETTLED_FOR_GOOD:
            # At the end: it was looked at last.
            self._statuses_known[event["id"]] = event["status"]
            if len(self._statuses_known) > _REMEMBERED_MAX:
                del self._statuses_known[next(iter(self._statuses_known))]
