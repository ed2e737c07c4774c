"""`clarion clients`: who may use the API, and for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.keys import CREATE_KEY, ROLES
from clarion.cli.output import inert
from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = "id name kind role active readableResources publishableResources _etag created updated"
_LIST: Final = remote.list_document("clients", "ClientsInputFilters", _FIELDS, "ID_ASC")
_SHOW: Final = f"""
query Show($id: ID!) {{
  client(id: $id) {{ {_FIELDS} createdBy {{ id name }} keys(first: 100) {{ id prefix status }} }}
}}"""
_ETAG: Final = "query Etag($id: ID!) { client(id: $id) { _etag } }"
_CREATE: Final = f"""
mutation Create($input: CreateClientInput!) {{
  createClient(input: $input) {{ client {{ {_FIELDS} }} warnings {{ code field message }} }}
}}"""
_UPDATE: Final = f"""
mutation Update($input: UpdateClientInput!) {{
  updateClient(input: $input) {{ client {{ {_FIELDS} }} warnings {{ code field message }} }}
}}"""


def _rights(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that creation and update share."""
    for name, told in (
        ("readable", "See and subscribe to only this resource"),
        ("publishable", "May publish this one"),
    ):
        option = click.option(
            f"--{name}",
            f"{name}_resources",
            multiple=True,
            callback=remote.names_of_resources,
            help=f"{told}; repeat for several.",
        )
        command = option(command)
    return command


@click.group
def clients() -> None:
    """List, make and change clients: the people and machines that use the API."""


@clients.command("list")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), help="Only those with this role.")
@click.option("--active/--inactive", default=None, help="Only those whose keys open the API, or do not.")
@click.option("--name", help="Only the one of this name.")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool, **filters: Any) -> None:
    """List clients by id."""
    found = remote.first_nodes(api, _LIST, "clients", limit, filters=remote.conditions(**filters))
    columns = {
        "ID": lambda node: node["id"],
        "NAME": lambda node: node["name"],
        "KIND": lambda node: node["kind"],
        "ROLE": lambda node: node["role"],
        "STATE": lambda node: "active" if node["active"] else "inactive",
        "READS": lambda node: "all" if node["readableResources"] is None else ", ".join(node["readableResources"]),
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no such clients")


@clients.command
@click.argument("client_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, client_id: str, *, as_json: bool) -> None:
    """Show the client ID with its keys."""
    found = api.run(_SHOW, id=client_id)["client"]
    if not as_json:
        found = found | {"keys": [f"{key['id']} {key['prefix']} {key['status']}" for key in found["keys"] or ()]}
    remote.print_details(found, as_json=as_json)


@clients.command
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), required=True, help="What it may do.")
@click.option("--person", is_flag=True, help="It is a person; otherwise a machine.")
@_rights
@click.option("--with-key", is_flag=True, help="Make a key for it, too, and print it.")
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, *, person: bool, with_key: bool, as_json: bool, **options: Any) -> None:
    """Make a client called NAME. It has no key yet unless --with-key: `clarion keys create --client ID` makes one."""
    payload = api.run(_CREATE, input=remote.given(kind="PERSON" if person else None, **options))["createClient"]
    made = payload["client"]
    if with_key:
        payload |= {"key": api.run(CREATE_KEY, input={"clientId": made["id"]})["createApiKey"]["key"]}
    if as_json:
        remote.print_answer(payload)
        return
    remote.print_warnings(payload)
    click.echo(f"client {made['id']} made: {inert(made['name'])}, {made['role']}")
    if with_key:
        click.echo(f"key: {inert(payload['key'])}")


@clients.command
@click.argument("client_id", metavar="ID")
@click.option("--name", help="Its new name.")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), help="What it may do from now on.")
@click.option("--active/--inactive", default=None, help="Whether its keys open the API.")
@_rights
@click.option("--all-readable", is_flag=True, help="It may see all resources again.")
@click.option("--none-publishable", is_flag=True, help="It may publish no more than its role lets it.")
@remote.json_option
@remote.over_the_api
def update(
    api: GraphQL, client_id: str, *, all_readable: bool, none_publishable: bool, as_json: bool, **options: Any
) -> None:
    """Change the client ID; what is not named stays as it is. --inactive shuts all its keys out within a second."""
    values = remote.readable(remote.given(**options), all_readable=all_readable)
    values |= {"publishableResources": []} if none_publishable else {}
    if not values:
        raise UsageInvalid("nothing is to be changed", "`clarion clients update --help` shows what can be")
    after = remote.changed(api, _ETAG, _UPDATE, client_id, values, as_json=as_json)
    if after is not None:
        remote.print_details(after, as_json=False)
