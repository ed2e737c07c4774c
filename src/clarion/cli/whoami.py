"""`clarion whoami`: whose key it is, and what it lets one do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from clarion.cli import remote

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_SHOW: Final = """
{
  viewer {
    client { id name kind role readableResources publishableResources }
    organisation { id name }
    permissions
  }
}"""


@click.command
@remote.json_option
@remote.over_the_api
def whoami(api: GraphQL, *, as_json: bool) -> None:
    """Show whose key it is, and what it lets one do."""
    viewer = api.run(_SHOW)["viewer"]
    if as_json:
        remote.print_answer(viewer)
        return
    client = viewer["client"]
    shown = {
        "client": client,
        "kind": client["kind"],
        "role": client["role"],
        "organisation": viewer["organisation"],
        "permissions": viewer["permissions"],
        "readableResources": remote.reads(client),
        "publishableResources": client["publishableResources"],
    }
    remote.print_details(shown, as_json=False)
