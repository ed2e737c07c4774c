"""`clarion receivers headers`: what each request to a receiver says of itself, often a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert
from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

HEADER_HELP: Final = "'key: value', sent with each request; a value as @FILE or - is read from there."
_FIELDS: Final = "id receiverId key value created createdBy { id name } updated updatedBy { id name } _etag"
_LIST: Final = f"query List($id: ID!) {{ webhookReceiver(id: $id) {{ headers(first: 100) {{ {_FIELDS} }} }} }}"
_ETAG: Final = "query Etag($id: ID!) { webhookHeader(id: $id) { id key receiverId _etag } }"
_CREATE: Final = f"""
mutation Create($input: CreateWebhookHeaderInput!) {{ createWebhookHeader(input: $input) {{ webhookHeader {{ {_FIELDS} }} }} }}"""
_UPDATE: Final = f"""
mutation Update($input: UpdateWebhookHeaderInput!) {{ updateWebhookHeader(input: $input) {{ webhookHeader {{ {_FIELDS} }} }} }}"""
_DELETE: Final = "mutation Delete($id: ID!, $etag: String!) { deleteWebhookHeader(id: $id, etag: $etag) { id } }"


def header_of(text: str) -> dict[str, str]:
    """The header that `key: value` names, its value perhaps read from a file. Raises UsageInvalid."""
    key, colon, value = text.partition(":")
    if not colon or not key.strip():
        raise UsageInvalid("a header is given as 'key: value'", "as 'authorization: @token.txt'")
    return {"key": key.strip(), "value": remote.text_or_file(value.strip())}


def _header(_context: click.Context, _parameter: click.Parameter, value: str) -> dict[str, str]:
    return header_of(value)


def _text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return remote.text_or_file(value) if value else value


@click.group
def headers() -> None:
    """List, add and change the headers that each request to a receiver carries."""


@headers.command("list")
@click.argument("receiver_id", metavar="RECEIVER")
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, receiver_id: str, *, as_json: bool) -> None:
    """List the headers of the receiver with the id RECEIVER; values are never shown."""
    columns = {
        "ID": lambda node: node["id"],
        "KEY": lambda node: node["key"],
        "VALUE": lambda node: node["value"],
        "UPDATED": lambda node: node["updated"],
        "BY": lambda node: node["updatedBy"] and node["updatedBy"]["name"],
    }
    found = api.run(_LIST, id=receiver_id)["webhookReceiver"]["headers"]
    none = "no headers: `clarion receivers headers create RECEIVER 'key: value'` adds one"
    remote.print_nodes(found, columns, as_json=as_json, none=none)


@headers.command
@click.argument("receiver_id", metavar="RECEIVER")
@click.argument("header", callback=_header)
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, receiver_id: str, header: dict[str, str], *, as_json: bool) -> None:
    """Give the receiver with the id RECEIVER one more HEADER, as 'key: value'; a value as @FILE or - is read from there."""
    payload = api.run(_CREATE, input={"receiverId": receiver_id, **header})["createWebhookHeader"]
    if as_json:
        remote.print_answer(payload)
    else:
        _print(payload["webhookHeader"], "made")


@headers.command
@click.argument("header_id", metavar="ID")
@click.option("--key", help="Its new name.")
@click.option("--value", callback=_text, help="Its new value; @FILE or - reads it from there.")
@remote.json_option
@remote.over_the_api
def update(api: GraphQL, header_id: str, key: str | None, value: str | None, *, as_json: bool) -> None:
    """Change the header ID: its name, its value, or both."""
    # An empty value is one that a header may have.
    values: dict[str, object] = {name: text for name, text in (("key", key), ("value", value)) if text is not None}
    if not values:
        raise UsageInvalid("nothing is to be changed", "--value gives the header a new value, --key a new name")
    after = remote.changed(api, _ETAG, _UPDATE, header_id, values, as_json=as_json)
    if after is not None:
        _print(after, "changed")


@headers.command
@click.argument("header_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def delete(api: GraphQL, header_id: str, *, yes: bool, as_json: bool) -> None:
    """Take the header ID away from its receiver."""
    found = api.run(_ETAG, id=header_id)["webhookHeader"]
    question = f"Delete header {found['key']} of receiver {found['receiverId']}?"
    remote.delete(api, _DELETE, found, question, "header", yes=yes, as_json=as_json)


def _print(header: remote.Node, done: str) -> None:
    click.echo(f"header {header['id']} {done}: {inert(header['key'])}, of receiver {header['receiverId']}")
