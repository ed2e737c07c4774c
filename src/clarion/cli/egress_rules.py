"""`clarion egress rules` and `addresses`: over the API, where requests may go, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = "id environment host network port note createdBy { id name } created _etag"
_LIST: Final = f"""
query List($first: Int, $after: String) {{
  webhookEgressRules(first: $first, after: $after) {{
    edges {{ node {{ {_FIELDS} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}"""
_ETAG: Final = "query Etag($id: ID!) { webhookEgressRule(id: $id) { id host network port _etag } }"
_CREATE: Final = f"""
mutation Create($input: CreateWebhookEgressRuleInput!) {{
  createWebhookEgressRule(input: $input) {{ webhookEgressRule {{ {_FIELDS} }} }}
}}"""
_DELETE: Final = "mutation Delete($id: ID!, $etag: String!) { deleteWebhookEgressRule(id: $id, etag: $etag) { id } }"
_ADDRESSES: Final = """
{ webhookEgress { environment fixed addresses { address cidr from until } } }"""


@click.group
def rules() -> None:
    """List, make and delete egress rules: exceptions to the forbidden addresses, over the API."""


@rules.command("list")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool) -> None:
    """List the egress rules by id."""
    found = remote.first_nodes(api, _LIST, "webhookEgressRules", limit)
    columns = {
        "ID": lambda node: node["id"],
        "ENVIRONMENT": lambda node: node["environment"],
        "TO": _destination,
        "NOTE": lambda node: node["note"],
        "BY": lambda node: node["createdBy"] and node["createdBy"]["name"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no egress rules: requests go to public addresses only")


@rules.command
@click.argument("network")
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="The only TCP port there.")
@click.option("--note", required=True, help="What it is for.")
@click.option("--host", help="Only for this name; default: any, and literal addresses.")
@click.option("--environment", help="Where it holds; default: in this deployment's environment.")
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, *, as_json: bool, **options: Any) -> None:
    """Let requests go to a port of NETWORK, as 10.1.0.0/16, although its addresses are forbidden otherwise."""
    payload = api.run(_CREATE, input=remote.given(**options))["createWebhookEgressRule"]
    if as_json:
        remote.print_answer(payload)
        return
    made = payload["webhookEgressRule"]
    click.echo(
        f"egress rule {made['id']} made: {inert(_destination(made))}, in environment {inert(made['environment'])}"
    )


@rules.command
@click.argument("rule_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def delete(api: GraphQL, rule_id: str, *, yes: bool, as_json: bool) -> None:
    """Take the egress rule ID back: connections made under it end, and no request follows."""
    found = api.run(_ETAG, id=rule_id)["webhookEgressRule"]
    question = f"Delete egress rule {rule_id}, {_destination(found)}?"
    remote.delete(api, _DELETE, found, question, "egress rule", yes=yes, as_json=as_json)


@click.command
@remote.json_option
@remote.over_the_api
def addresses(api: GraphQL, *, as_json: bool) -> None:
    """List the addresses that requests come from, as the API publishes them: what a receiver's firewall has to let in."""
    found = api.run(_ADDRESSES)["webhookEgress"]
    columns = {
        "ADDRESS": lambda node: node["cidr"],
        "FROM": lambda node: node["from"],
        "UNTIL": lambda node: node["until"],
    }
    if as_json:
        remote.print_answer(found)
    elif not found["fixed"]:
        click.echo("no addresses are promised: requests may come from anywhere", err=True)
    else:
        remote.print_nodes(found["addresses"], columns, as_json=False, none="")


def _destination(rule: remote.Node) -> str:
    host = f"{rule['host']} in " if rule["host"] else ""
    return f"{host}{rule['network']} port {rule['port']}"
