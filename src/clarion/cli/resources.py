"""`clarion resources`: the kinds of objects that can be subscribed to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert
from clarion.core.errors import ApiRefused, UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = "id name singular description published jsonSchema _etag created updated"
_LIST: Final = f"{{ resources {{ {_FIELDS} }} }}"
_REGISTER: Final = f"""
mutation Register($input: RegisterResourceInput!) {{ registerResource(input: $input) {{ resource {{ {_FIELDS} }} }} }}"""
_UPDATE: Final = f"""
mutation Update($input: UpdateResourceInput!) {{ updateResource(input: $input) {{ resource {{ {_FIELDS} }} }} }}"""
_UNREGISTER: Final = "mutation Unregister($id: ID!, $etag: String!) { unregisterResource(id: $id, etag: $etag) { id } }"


def _schema(_context: click.Context, _parameter: click.Parameter, name: str | None) -> object:
    """The schema in the file; `none` takes it back."""
    if name is None or name == "none":
        return name and remote.NONE
    try:
        return json.loads(remote.file_text(name))
    except ValueError as error:
        raise UsageInvalid(f"{name} is not JSON: {error}") from error


def _settable(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--description", help="What its objects are."),
        click.option("--singular", help="Another spelling of its name that is accepted; an empty text takes it back."),
        click.option(
            "--json-schema",
            metavar="FILE",
            callback=_schema,
            help="JSON Schema that the data of published changes must satisfy; none: any object.",
        ),
    ):
        command = option(command)
    return command


@click.group
def resources() -> None:
    """List, register and change resources: the kinds of objects that can be subscribed to."""


@resources.command("list")
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, *, as_json: bool) -> None:
    """List resources by name."""
    columns = {
        "ID": lambda node: node["id"],
        "NAME": lambda node: node["name"],
        "SOURCE": lambda node: "published" if node["published"] else "table",
        "DESCRIPTION": lambda node: node["description"],
    }
    none = "no resources: `clarion attach` and `clarion resources register` make some"
    remote.print_nodes(api.run(_LIST)["resources"], columns, as_json=as_json, none=none)


@resources.command
@click.argument("resource_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, resource_id: str, *, as_json: bool) -> None:
    """Show the resource with this ID or name, and its JSON Schema."""
    remote.print_details(_found(api, resource_id), as_json=as_json)


@resources.command
@click.argument("name")
@_settable
@remote.json_option
@remote.over_the_api
def register(api: GraphQL, name: str, *, as_json: bool, **options: Any) -> None:
    """Register the resource NAME, whose changes are published with POST /v1/changes."""
    made = api.run(_REGISTER, input=remote.given(name=name.upper(), **options))["registerResource"]["resource"]
    _print(made, "registered", as_json=as_json)


@resources.command
@click.argument("resource_id", metavar="ID")
@_settable
@remote.json_option
@remote.over_the_api
def update(api: GraphQL, resource_id: str, *, as_json: bool, **options: Any) -> None:
    """Change the resource with this ID or name, which has no table; what is not named stays as it is."""
    values = remote.given(**options)
    if not values:
        raise UsageInvalid("nothing is to be changed", "`clarion resources update --help` shows what can be")
    found = _found(api, resource_id)
    given = {"id": found["id"], "etag": found["_etag"], **values}
    _print(api.run(_UPDATE, input=given)["updateResource"]["resource"], "changed", as_json=as_json)


@resources.command
@click.argument("resource_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def unregister(api: GraphQL, resource_id: str, *, yes: bool, as_json: bool) -> None:
    """Remove the resource with this ID or name, which has no table and no subscriptions. Its changes and events stay."""
    found = _found(api, resource_id)
    question = f"Unregister resource {found['id']}, {found['name']}?"
    remote.delete(api, _UNREGISTER, found, question, "resource", yes=yes, as_json=as_json, done="unregistered")


def _found(api: GraphQL, resource_id: str) -> dict[str, Any]:
    """The resource with this id or name. Raises ApiRefused."""
    for found in api.run(_LIST)["resources"]:
        if resource_id in {found["id"], found["name"]} or resource_id.upper() == found["name"]:
            resource: dict[str, Any] = found
            return resource
    raise ApiRefused(
        f"no resource has the id or name {inert(resource_id)}", "`clarion resources list` shows what there is"
    )


def _print(resource: remote.Node, done: str, *, as_json: bool) -> None:
    if as_json:
        remote.print_answer(resource)
    else:
        click.echo(f"resource {resource['id']} {done}: {inert(resource['name'])}")
