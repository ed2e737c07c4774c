"""`clarion changes`: the ledger, every committed change whether or not anybody was subscribed to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.subscriptions import ACTIONS

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = "id changeId resource action objectId occurredAt recordedAt actor { id name } correlationId"
_LIST: Final = remote.list_document("changes", "ChangesInputFilters", _FIELDS, "CHANGE_ID_DESC")
_SHOW: Final = f"""
query Show($id: ID!) {{
  change(id: $id) {{
    {_FIELDS} link changed data previous dataOmitted events(first: 100) {{ id status receiver {{ id name }} }}
  }}
}}"""


@click.group
def changes() -> None:
    """List and show the changes in the ledger."""


@changes.command("list")
@click.option("--resource", help="Only those of this resource.")
@click.option("--action", type=click.Choice(ACTIONS, case_sensitive=False), help="Only those of this action.")
@click.option("--object", "object_id", metavar="ID", help="Only those of the object with this key in the application.")
@click.option("--correlation", "correlation_id", metavar="ID", help="Only those of this request or transaction.")
@remote.time_options
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, since: Any, until: Any, *, as_json: bool, **about: Any) -> None:
    """List changes, newest first."""
    if about["resource"]:
        about["resource"] = about["resource"].upper()
    filters = remote.conditions(**about) | remote.period("recordedAt", since, until)
    found = remote.first_nodes(api, _LIST, "changes", limit, filters=filters)
    columns = {
        "ID": lambda node: node["id"],
        "CHANGE": lambda node: node["changeId"],
        "RECORDED": lambda node: node["recordedAt"],
        "WHAT": lambda node: f"{node['resource']} {node['action']} {node['objectId']}",
        "ACTOR": lambda node: node["actor"] and (node["actor"]["name"] or node["actor"]["id"]),
        "CORRELATION": lambda node: node["correlationId"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no such changes")


@changes.command
@click.argument("change_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, change_id: str, *, as_json: bool) -> None:
    """Show the change at the ledger's position ID: the object before and after, and the events that it made."""
    found = api.run(_SHOW, id=change_id)["change"]
    if not as_json:
        made = [
            f"{one['id']} {one['status']} to {one['receiver']['id']} {one['receiver']['name']}"
            for one in found["events"]
        ]
        found = found | {"events": made}
    remote.print_details(found, as_json=as_json)
