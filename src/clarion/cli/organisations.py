"""`clarion organisations`: the tenants of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = "id name created"
_LIST: Final = remote.list_document("organisations", "OrganisationsInputFilters", _FIELDS, "ID_ASC")
_SHOW: Final = f"query Show($id: ID!) {{ organisation(id: $id) {{ {_FIELDS} }} }}"
_CREATE: Final = f"""
mutation Create($input: CreateOrganisationInput!) {{
  createOrganisation(input: $input) {{
    organisation {{ {_FIELDS} }} client {{ id name role }} apiKey {{ id prefix }} key
  }}
}}"""


@click.group
def organisations() -> None:
    """List and make organisations: the tenants of this deployment, between which nothing crosses."""


@organisations.command("list")
@click.option("--name", help="Only the one of this name.")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool, **filters: Any) -> None:
    """List organisations by id: your own, for administrators of `default` all."""
    found = remote.first_nodes(api, _LIST, "organisations", limit, filters=remote.conditions(**filters))
    columns = {
        "ID": lambda node: node["id"],
        "NAME": lambda node: node["name"],
        "CREATED": lambda node: node["created"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no such organisation that you may see")


@organisations.command
@click.argument("organisation_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, organisation_id: str, *, as_json: bool) -> None:
    """Show the organisation ID."""
    remote.print_details(api.run(_SHOW, id=organisation_id)["organisation"], as_json=as_json)


@organisations.command
@click.argument("name")
@click.option("--administrator", "administrator_name", metavar="NAME", help="What its first client is called.")
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, *, as_json: bool, **options: Any) -> None:
    """Make an organisation called NAME with its first administrator, and print the administrator's key, this once."""
    made = api.run(_CREATE, input=remote.given(**options))["createOrganisation"]
    if as_json:
        remote.print_answer(made)
        return
    organisation, client = made["organisation"], made["client"]
    click.echo(
        f"organisation {organisation['id']} made: {inert(organisation['name'])}, "
        f"with client {client['id']}, {inert(client['name'])}, {client['role']}"
    )
    click.echo(f"key: {inert(made['key'])}")
