"""`clarion events`: what was sent, is to be sent, and what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert, print_fitting_table, status_styled
from clarion.cli.subscriptions import ACTIONS
from clarion.core.errors import ApiRefused

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

STATUSES: Final = ("PENDING", "HELD", "DELIVERED", "FAILED", "EXPIRED", "CANCELLED")
_LISTED: Final = """
  id status reason resource action objectId changeId sequence created settled dueAt
  subscription { id } receiver { id name }
"""
_LIST: Final = remote.list_document("webhookEvents", "WebhookEventsInputFilters", _LISTED, "ID_DESC")
_SHOW: Final = f"""
query Show($id: ID!) {{
  webhookEvent(id: $id) {{
    {_LISTED} attempts(first: 100) {{
      number round startedAt durationMs outcome statusCode error sourceAddress peerAddress responseHeaders responseBody
    }}
  }}
}}"""
_RETRY: Final = f"mutation Retry($id: ID!) {{ retryWebhookEvent(id: $id) {{ webhookEvent {{ {_LISTED} }} }} }}"
_CANCEL: Final = f"mutation Cancel($id: ID!) {{ cancelWebhookEvent(id: $id) {{ webhookEvent {{ {_LISTED} }} }} }}"
_LOOK: Final = f"query Look($id: ID!) {{ webhookEvent(id: $id) {{ {_LISTED} }} }}"
_LOOKS_MAX: Final = 40
_LOOK_EVERY_SECONDS: Final = 0.05
_ATTEMPT_COLUMNS: Final = ("number", "startedAt", "outcome", "statusCode", "durationMs", "error")


@click.group
def events() -> None:
    """List, watch, retry and cancel events: what is sent to receivers, with each attempt."""


@events.command("list")
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES, case_sensitive=False), multiple=True, help="Repeat for several."
)
@click.option("--receiver", "receiver_id", metavar="ID", help="Only those to this receiver.")
@click.option("--subscription", "subscription_id", metavar="ID", help="Only those of this subscription.")
@click.option("--resource", help="Only those of this resource.")
@click.option("--action", type=click.Choice(ACTIONS, case_sensitive=False), help="Only those of this action.")
@click.option("--object", "object_id", metavar="ID", help="Only those of the object with this key in the application.")
@remote.limit_option
@click.option("--watch", is_flag=True, help="Go on with each that appears or changes its status, until Ctrl-C.")
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, statuses: tuple[str, ...], limit: int, *, watch: bool, as_json: bool, **about: Any) -> None:
    """List events, newest first. With --watch oldest first, and --json prints an object on each line."""
    if about["resource"]:
        about["resource"] = about["resource"].upper()
    filters = remote.conditions(**about)
    if watch:
        from clarion.cli.watch import Watch

        show = remote.print_answer_line if as_json else _print_line
        Watch(api, filters, frozenset(statuses), show).run(limit)
    found = remote.first_nodes(api, _LIST, "webhookEvents", limit, filters=filters | remote.conditions(status=statuses))
    columns = {
        "ID": lambda node: node["id"],
        "CREATED": lambda node: node["created"],
        "STATUS": lambda node: node["status"],
        "CHANGE": lambda node: f"{node['resource']} {node['action']} {node['objectId']}",
        "RECEIVER": lambda node: f"{node['receiver']['id']} {node['receiver']['name']}",
        "REASON": lambda node: node["reason"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no such events")


@events.command
@click.argument("event_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, event_id: str, *, as_json: bool) -> None:
    """Show the event ID with its attempts and what the receiver answered."""
    found = api.run(_SHOW, id=event_id)["webhookEvent"]
    remote.print_details(found, as_json=as_json, left_out=("attempts",))
    attempts = found["attempts"]
    if as_json or not attempts:
        return
    click.echo()
    headings = ("ATTEMPT", "STARTED", "OUTCOME", "ANSWER", "MS", "")
    print_fitting_table(headings, [[attempt[name] for name in _ATTEMPT_COLUMNS] for attempt in attempts])
    if attempts[-1]["responseBody"]:
        click.echo(f"\nthe last answer: {inert(attempts[-1]['responseBody'])}")


@events.command
@click.argument("event_ids", metavar="ID...", nargs=-1, required=True)
@remote.json_option
@remote.over_the_api
def retry(api: GraphQL, event_ids: tuple[str, ...], *, as_json: bool) -> None:
    """Send the events ID... again: those that failed, expired or were cancelled. Goes on after one that is refused."""

    def is_open_again(before: remote.Node, now: remote.Node) -> bool:
        """One that was open when it was asked for is tried at once, and settled ones are settled at another time."""
        return before["settled"] is None or now["settled"] != before["settled"]

    _each(api, _RETRY, "retryWebhookEvent", event_ids, "is sent again", is_open_again, as_json=as_json)


@events.command
@click.argument("event_ids", metavar="ID...", nargs=-1, required=True)
@remote.json_option
@remote.over_the_api
def cancel(api: GraphQL, event_ids: tuple[str, ...], *, as_json: bool) -> None:
    """Cancel the events ID... that are pending or held. Goes on after one that is refused."""

    def is_settled(_before: remote.Node, now: remote.Node) -> bool:
        return now["settled"] is not None

    _each(api, _CANCEL, "cancelWebhookEvent", event_ids, "is cancelled", is_settled, as_json=as_json)


def _each(
    api: GraphQL,
    document: str,
    field: str,
    event_ids: tuple[str, ...],
    done: str,
    carried_out: Callable[[remote.Node, remote.Node], bool],
    *,
    as_json: bool,
) -> None:
    """Does it to each event. Raises ApiRefused at the end if one was refused, at once if the API is not there.

    `carried_out` tells by the event as it was when it was asked for, and as it is now.
    """
    from clarion.cli.graphql import ApiUnavailable

    changed, refused = [], 0
    for event_id in event_ids:
        try:
            event = api.run(document, id=event_id)[field]["webhookEvent"]
        except ApiUnavailable:
            raise
        except ApiRefused as refusal:
            if len(event_ids) == 1:
                raise
            click.echo(f"clarion: event {inert(event_id)}: {refusal.message}", err=True)
            refused += 1
            continue
        event = _when_done(api, event, carried_out)
        changed.append(event)
        if not as_json:
            click.echo(f"event {event['id']} {done}: {status_styled(event['status'])}")
    if as_json:
        remote.print_answer(changed)
    if refused:
        raise ApiRefused(f"{refused} of {len(event_ids)} events were refused", "the lines above say why")


def _when_done(
    api: GraphQL, before: remote.Node, carried_out: Callable[[remote.Node, remote.Node], bool]
) -> remote.Node:
    """The event when this is so, or as it is after two seconds: the API does not wait when it is asked with a key."""
    now = before
    for _ in range(_LOOKS_MAX):
        if carried_out(before, now):
            break
        time.sleep(_LOOK_EVERY_SECONDS)
        try:
            now = api.run(_LOOK, id=before["id"])["webhookEvent"]
        except ApiRefused:
            # What was asked for will be done all the same.
            break
    return now


def _print_line(event: remote.Node) -> None:
    change = f"{event['resource']} {event['action']} {event['objectId']}"
    receiver = f"{event['receiver']['id']} {event['receiver']['name']}"
    reason = f"  {event['reason']}" if event["reason"] else ""
    status = status_styled(event["status"]) + " " * (len("CANCELLED") - len(event["status"]))
    click.echo(
        f"{inert(event['id']).rjust(7)}  {inert(event['created'])}  {status}  {inert(f'{change}  to {receiver}{reason}')}"
    )
    sys.stdout.flush()
