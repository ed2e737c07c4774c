"""`clarion subscriptions`: which changes a receiver is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

ACTIONS: Final = ("CREATE", "UPDATE", "DELETE")
_FIELDS: Final = """
  id receiver { id name } resource action active inactiveReason condition fields template expiresAfterSeconds
  evaluationErrors { conditionsCount templatesCount since lastAt lastChangeId lastMessage }
  createdBy { id name } updatedBy { id name } created updated _etag
"""
_LIST: Final = remote.list_document(
    "webhookSubscriptions",
    "WebhookSubscriptionsInputFilters",
    "id receiver { id name } resource action active inactiveReason condition fields expiresAfterSeconds _etag created updated",
    "ID_ASC",
)
_SHOW: Final = f"query Show($id: ID!) {{ webhookSubscription(id: $id) {{ {_FIELDS} }} }}"
_ETAG: Final = "query Etag($id: ID!) { webhookSubscription(id: $id) { id resource action receiver { name } _etag } }"
_CREATE: Final = f"""
mutation Create($input: CreateWebhookSubscriptionInput!) {{
  createWebhookSubscription(input: $input) {{
    webhookSubscription {{ {_FIELDS} }} warnings {{ code field message }}
  }}
}}"""
_UPDATE: Final = f"""
mutation Update($input: UpdateWebhookSubscriptionInput!) {{
  updateWebhookSubscription(input: $input) {{
    webhookSubscription {{ {_FIELDS} }} warnings {{ code field message }}
  }}
}}"""
_DELETE: Final = "mutation Delete($id: ID!, $etag: String!) { deleteWebhookSubscription(id: $id, etag: $etag) { id } }"
_PREVIEW: Final = """
query Preview($input: CreateWebhookSubscriptionInput!, $since: DateTime, $first: Int!) {
  previewWebhookSubscription(input: $input, since: $since, first: $first) {
    matchedCount failedCount isComplete changes { changeId objectId created outcome error body }
  }
}"""


def _text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return remote.text_or_file(value) if value else value


def _upper(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return value.upper() if value is not None else None


def _filter(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which changes a subscription is about, and what is sent of them."""
    for option in reversed(
        [
            click.option(
                "--condition",
                callback=_text,
                help="Only changes for which this is true; @FILE or - reads it from there.",
            ),
            click.option("--field", "fields", multiple=True, help="Send these columns only; repeat for several."),
            click.option("--template", callback=_text, help="Makes the body; @FILE or - reads it from there."),
            click.option(
                "--expires-after-seconds",
                type=remote.IntegerOrNone(),
                help="What could not be delivered for so long is not sent any more; none: it always is.",
            ),
        ]
    ):
        command = option(command)
    return command


def _about(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that a subscription cannot be without."""
    for argument in reversed(
        [
            click.argument("receiver_id", metavar="RECEIVER"),
            click.argument("resource", callback=_upper),
            click.argument("action", type=click.Choice(ACTIONS, case_sensitive=False)),
        ]
    ):
        command = argument(command)
    return command


@click.group
def subscriptions() -> None:
    """List, try, make and change subscriptions: which changes a receiver is sent."""


@subscriptions.command("list")
@click.option("--receiver", "receiver_id", metavar="ID", help="Only those of this receiver.")
@click.option("--resource", callback=_upper, help="Only those to this resource.")
@click.option("--action", type=click.Choice(ACTIONS, case_sensitive=False), help="Only those to this action.")
@click.option("--active/--inactive", default=None, help="Only those that make events, or do not.")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool, **filters: Any) -> None:
    """List subscriptions by id."""
    found = remote.first_nodes(api, _LIST, "webhookSubscriptions", limit, filters=remote.conditions(**filters))
    columns = {
        "ID": lambda node: node["id"],
        "RECEIVER": lambda node: f"{node['receiver']['id']} {node['receiver']['name']}",
        "RESOURCE": lambda node: node["resource"],
        "ACTION": lambda node: node["action"],
        "STATE": lambda node: remote.inactive(node) or "active",
        "CONDITION": lambda node: node["condition"],
    }
    none = "no subscriptions: `clarion subscriptions create RECEIVER RESOURCE ACTION` makes one"
    remote.print_nodes(found, columns, as_json=as_json, none=none)


@subscriptions.command
@click.argument("subscription_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, subscription_id: str, *, as_json: bool) -> None:
    """Show the subscription ID, and what went wrong in its condition and template."""
    remote.print_details(api.run(_SHOW, id=subscription_id)["webhookSubscription"], as_json=as_json)


@subscriptions.command
@_about
@_filter
@click.option("--inactive", is_flag=True, help="It makes no events until `enable`.")
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, *, inactive: bool, as_json: bool, **options: Any) -> None:
    """Send the receiver with the id RECEIVER each ACTION (create, update, delete) on RESOURCE from now on."""
    values = remote.given(active=False if inactive else None, **options)
    payload = api.run(_CREATE, input=values)["createWebhookSubscription"]
    if as_json:
        remote.print_answer(payload)
        return
    remote.print_warnings(payload)
    made = payload["webhookSubscription"]
    click.echo(
        f"subscription {made['id']} made: {made['resource']} {made['action']} to receiver {made['receiver']['id']}"
    )


@subscriptions.command
@_about
@_filter
@click.option("--since", type=click.DateTime(remote.TIMES), help="Look at changes from this time on (UTC).")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many changes at most.")
@click.option("--bodies", is_flag=True, help="Show what would be sent.")
@remote.json_option
@remote.over_the_api
def preview(api: GraphQL, since: Any, limit: int, *, bodies: bool, as_json: bool, **options: Any) -> None:
    """Show what a subscription would have made of the latest changes. Nothing is made and nothing is sent."""
    found = api.run(_PREVIEW, input=remote.given(**options), since=remote.time_text(since), first=limit)[
        "previewWebhookSubscription"
    ]
    if as_json:
        remote.print_answer(found)
        return
    columns: dict[str, Callable[[remote.Node], object]] = {
        "CHANGE": lambda node: node["changeId"],
        "OBJECT": lambda node: node["objectId"],
        "RECORDED": lambda node: node["created"],
        "OUTCOME": lambda node: node["outcome"],
        "": lambda node: node["error"] or (node["body"] if bodies else None),
    }
    remote.print_nodes(found["changes"], columns, as_json=False, none="no such change has been recorded")
    click.echo(f"{found['matchedCount']} of {len(found['changes'])} match, {found['failedCount']} fail", err=True)
    if not found["isComplete"]:
        click.echo("not all were looked at: the expressions take too long", err=True)


@subscriptions.command
@click.argument("subscription_id", metavar="ID")
@click.option("--resource", callback=_upper, help="Another resource.")
@click.option("--action", type=click.Choice(ACTIONS, case_sensitive=False), help="Another action.")
@_filter
@click.option("--all-fields", is_flag=True, help="Send all columns again.")
@remote.json_option
@remote.over_the_api
def update(api: GraphQL, subscription_id: str, *, all_fields: bool, as_json: bool, **options: Any) -> None:
    """Change the subscription ID; what is not named stays as it is. An empty condition or template takes it back."""
    values = remote.given(**options)
    if all_fields:
        values["fields"] = None
    if not values:
        raise UsageInvalid("nothing is to be changed", "`clarion subscriptions update --help` shows what can be")
    _update(api, subscription_id, values, as_json=as_json)


@subscriptions.command
@click.argument("subscription_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def enable(api: GraphQL, subscription_id: str, *, as_json: bool) -> None:
    """Make events of the subscription ID (again), of changes from now on."""
    _update(api, subscription_id, {"active": True}, as_json=as_json)


@subscriptions.command
@click.argument("subscription_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def disable(api: GraphQL, subscription_id: str, *, as_json: bool) -> None:
    """Make no events of the subscription ID until it is enabled; those that are open are still sent."""
    _update(api, subscription_id, {"active": False}, as_json=as_json)


@subscriptions.command
@click.argument("subscription_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def delete(api: GraphQL, subscription_id: str, *, yes: bool, as_json: bool) -> None:
    """Delete the subscription ID. Its events that are open are cancelled; what was sent stays on record."""
    found = api.run(_ETAG, id=subscription_id)["webhookSubscription"]
    about = f"{found['resource']} {found['action']} to {found['receiver']['name']!r}"
    question = f"Delete subscription {subscription_id}, {about}?"
    remote.delete(api, _DELETE, found, question, "subscription", yes=yes, as_json=as_json)


def _update(api: GraphQL, subscription_id: str, values: dict[str, object], *, as_json: bool) -> None:
    after = remote.changed(api, _ETAG, _UPDATE, subscription_id, values, as_json=as_json)
    if after is not None:
        remote.print_details(after, as_json=False)
