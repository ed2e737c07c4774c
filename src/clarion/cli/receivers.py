"""`clarion receivers`: where webhooks go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.headers import HEADER_HELP, header_of, headers
from clarion.cli.output import inert, status_styled
from clarion.core.errors import CheckFailed, UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_LISTED: Final = "id name webhookUri active disabledReason _etag created updated"
_SHOWN: Final = """
  id name description webhookUri active disabledReason contentType expectedResponseCode retrySchedule timeoutSeconds
  concurrency rateLimitPerSecond ordering laneBlockMaxSeconds signatures readableResources caCertificates previousSecretUntil
  clientCertificate { subject issuer notAfter fingerprintSha256 } headers(first: 100) { id key value _etag }
  subscriptions(first: 100) { id resource action active inactiveReason } createdBy { id name } updatedBy { id name } created updated _etag
"""
_LIST: Final = remote.list_document("webhookReceivers", "WebhookReceiversInputFilters", _LISTED, "ID_ASC")
_SHOW: Final = f"query Show($id: ID!) {{ webhookReceiver(id: $id) {{ {_SHOWN} }} }}"
_SHOW_SECRET: Final = f"query Show($id: ID!) {{ webhookReceiver(id: $id) {{ {_SHOWN} sharedSecret }} }}"
_ETAG: Final = "query Etag($id: ID!) { webhookReceiver(id: $id) { id name _etag } }"
_CREATE: Final = f"""
mutation Create($input: CreateWebhookReceiverInput!) {{
  createWebhookReceiver(input: $input) {{
    webhookReceiver {{ {_SHOWN} sharedSecret }} warnings {{ code field message }}
  }}
}}"""
_UPDATE: Final = f"""
mutation Update($input: UpdateWebhookReceiverInput!) {{
  updateWebhookReceiver(input: $input) {{ webhookReceiver {{ {_SHOWN} }} warnings {{ code field message }} }}
}}"""
_ROTATE: Final = """
mutation Rotate($input: RotateWebhookReceiverSecretInput!) {
  rotateWebhookReceiverSecret(input: $input) {
    webhookReceiver { id name previousSecretUntil sharedSecret _etag } warnings { code field message }
  }
}"""
_TEST: Final = """
mutation Test($id: ID!) {
  testWebhookReceiver(id: $id) {
    webhookEvent { id status reason }
    attempt { outcome statusCode durationMs error sourceAddress peerAddress responseHeaders responseBody }
  }
}"""
_DELETE: Final = "mutation Delete($id: ID!, $etag: String!) { deleteWebhookReceiver(id: $id, etag: $etag) { id } }"


def _headers(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[dict[str, str], ...]:
    return tuple(map(header_of, values))


def _schedule(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError as error:
        raise UsageInvalid("--retry-schedule takes seconds with commas between", "as 0,5,300,1800") from error


def _contents(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return remote.file_text(value) if value else value


def _settable(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that creation and update share."""
    number = remote.IntegerOrNone()
    file: Any = {"metavar": "FILE", "callback": _contents}
    for option in reversed(
        [
            click.option("--description", help="For people; an empty text takes it back."),
            click.option("--content-type", help="Of the request's body."),
            click.option("--expected-response-code", type=number, help="The only good answer; none: any 2xx."),
            click.option("--retry-schedule", callback=_schedule, help="Seconds before each attempt: 0,5,300."),
            click.option("--timeout-seconds", type=int, help="For one attempt, 1 to 30."),
            click.option("--concurrency", type=int, help="Requests at the same time."),
            click.option("--rate-limit-per-second", type=number, help="Requests in a second; none: no limit."),
            click.option(
                "--ordering",
                type=click.Choice(("PER_OBJECT", "NONE"), case_sensitive=False),
                help="Whether an object's changes wait for one another.",
            ),
            click.option("--lane-block-max-seconds", type=number, help="A failing one blocks no longer; none: no end."),
            click.option(
                "--signature",
                "signatures",
                type=click.Choice(("V1", "V1A", "ION"), case_sensitive=False),
                multiple=True,
                help="How requests are signed; repeat for several.",
            ),
            click.option(
                "--readable",
                "readable_resources",
                metavar="RESOURCE",
                multiple=True,
                callback=remote.names_of_resources,
                help="Send it events of only this resource; repeat for several. Default for a new one: what you may read.",
            ),
            click.option("--ca-certificates", help="PEM file: the only authorities that are trusted.", **file),
            click.option("--client-certificate", help="PEM file: shown to the receiver.", **file),
            click.option("--client-private-key", help="PEM file: its key.", **file),
        ]
    ):
        command = option(command)
    return command


@click.group
def receivers() -> None:
    """List, make and change receivers: the addresses that webhooks go to."""


receivers.add_command(headers)


@receivers.command("list")
@click.option("--active/--inactive", default=None, help="Only those that are sent to, or are not.")
@click.option("--name", "names", multiple=True, help="Only the one of this name; repeat for several.")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, names: tuple[str, ...], limit: int, *, active: bool | None, as_json: bool) -> None:
    """List receivers by id."""
    filters = remote.conditions(active=active, name=names)
    found = remote.first_nodes(api, _LIST, "webhookReceivers", limit, filters=filters)
    columns = {
        "ID": lambda node: node["id"],
        "NAME": lambda node: node["name"],
        "URL": lambda node: node["webhookUri"],
        "STATE": _state,
    }
    remote.print_nodes(
        found, columns, as_json=as_json, none="no receivers: `clarion receivers create NAME URL` makes one"
    )


@receivers.command
@click.argument("receiver_id", metavar="ID")
@click.option("--secret", is_flag=True, help="The shared secret too, in clear if the key may see it; that is recorded.")
@remote.json_option
@remote.over_the_api
def show(api: GraphQL, receiver_id: str, *, secret: bool, as_json: bool) -> None:
    """Show the receiver ID with its headers and subscriptions."""
    found = api.run(_SHOW_SECRET if secret else _SHOW, id=receiver_id)["webhookReceiver"]
    _print(found, as_json=as_json)


@receivers.command
@click.argument("name")
@click.argument("webhook_uri", metavar="URL")
@_settable
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    help=f"{HEADER_HELP} Repeat for several.",
)
@click.option(
    "--secret-file", metavar="FILE", help="File with the shared secret (whsec_…); default: a new one is made."
)
@click.option("--inactive", is_flag=True, help="Events are held until `enable`.")
@remote.json_option
@remote.over_the_api
def create(api: GraphQL, secret_file: str | None, *, inactive: bool, as_json: bool, **options: Any) -> None:
    """Make a receiver called NAME at URL and print its shared secret: what it verifies requests with."""
    values = remote.given(active=False if inactive else None, **options)
    if secret_file is not None:
        values["sharedSecret"] = remote.file_text(secret_file).strip()
    payload = api.run(_CREATE, input=values)["createWebhookReceiver"]
    if as_json:
        remote.print_answer(payload)
        return
    remote.print_warnings(payload)
    made = payload["webhookReceiver"]
    click.echo(f"receiver {made['id']} made: {inert(made['name'])}, {inert(made['webhookUri'])}")
    click.echo(f"shared secret: {inert(made['sharedSecret'])}")


@receivers.command
@click.argument("receiver_id", metavar="ID")
@click.option("--name", help="Its new name.")
@click.option("--webhook-uri", metavar="URL", help="Its new address.")
@_settable
@click.option("--all-readable", is_flag=True, help="Send it events of all resources that are subscribed to.")
@remote.json_option
@remote.over_the_api
def update(api: GraphQL, receiver_id: str, *, all_readable: bool, as_json: bool, **options: Any) -> None:
    """Change the receiver ID; what is not named stays as it is.

    What waits to be sent of a resource that --readable leaves out is cancelled.
    """
    values = remote.readable(remote.given(**options), all_readable=all_readable)
    if not values:
        raise UsageInvalid("nothing is to be changed", "`clarion receivers update --help` shows what can be")
    _update(api, receiver_id, values, as_json=as_json)


@receivers.command
@click.argument("receiver_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def enable(api: GraphQL, receiver_id: str, *, as_json: bool) -> None:
    """Send to the receiver ID (again): what was held for it goes out in order."""
    _update(api, receiver_id, {"active": True}, as_json=as_json)


@receivers.command
@click.argument("receiver_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def disable(api: GraphQL, receiver_id: str, *, as_json: bool) -> None:
    """Hold the events of the receiver ID until it is enabled."""
    _update(api, receiver_id, {"active": False}, as_json=as_json)


@receivers.command("rotate-secret")
@click.argument("receiver_id", metavar="ID")
@click.option("--secret-file", metavar="FILE", help="File with the new secret; default: one is made.")
@click.option("--overlap-seconds", type=int, help="For how long the former secret signs too; a day if not given.")
@remote.json_option
@remote.over_the_api
def rotate_secret(
    api: GraphQL, receiver_id: str, secret_file: str | None, overlap_seconds: int | None, *, as_json: bool
) -> None:
    """Give the receiver ID a new shared secret and print it. Both sign until the overlap is over."""
    values = remote.given(overlap_seconds=overlap_seconds)
    if secret_file is not None:
        values["sharedSecret"] = remote.file_text(secret_file).strip()
    after = remote.changed(api, _ETAG, _ROTATE, receiver_id, values, as_json=as_json)
    if after is None:
        return
    click.echo(f"shared secret: {inert(after['sharedSecret'])}")
    if after["previousSecretUntil"]:
        click.echo(f"the former one signs beside it until {after['previousSecretUntil']}", err=True)


@receivers.command
@click.argument("receiver_id", metavar="ID")
@remote.json_option
@remote.over_the_api
def test(api: GraphQL, receiver_id: str, *, as_json: bool) -> None:
    """Send the receiver ID one signed request and show its answer; exit code 1 if it was not a good one."""
    from clarion.cli.graphql import ApiUnavailable

    try:
        # The answer is waited for, so there is no key, and a second request would be a second test.
        tested = api.run_once(_TEST, id=receiver_id)["testWebhookReceiver"]
    except ApiUnavailable as unavailable:
        if unavailable.nothing_done:
            raise
        raise ApiUnavailable(
            f"{unavailable.message}; it is not known whether the test was sent",
            f"`clarion events list --receiver {inert(receiver_id)}` shows it if it was",
        ) from unavailable
    attempt, event = tested["attempt"], tested["webhookEvent"]
    if as_json:
        remote.print_answer(tested)
    elif attempt is not None:
        answer = " ".join(str(part) for part in (attempt["statusCode"], f"after {attempt['durationMs']} ms") if part)
        click.echo(f"{status_styled(attempt['outcome'])} {answer}")
        for said in (attempt["error"], attempt["responseBody"]):
            if said:
                click.echo(f"  {inert(said)}")
    if attempt is None:
        reason = event["reason"] if event else None
        raise CheckFailed(
            f"the test was not sent in time{f': {inert(reason)}' if reason else ''}",
            "does `clarion serve` run with the roles router and delivery? `clarion events list` shows what waits",
        )
    if attempt["outcome"] != "SUCCEEDED":
        raise CheckFailed("the receiver did not answer as it should", "its answer stands above; then test it again")


@receivers.command
@click.argument("receiver_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def delete(api: GraphQL, receiver_id: str, *, yes: bool, as_json: bool) -> None:
    """Delete the receiver ID and its subscriptions. Events that are open are cancelled; what was sent stays on record."""
    found = api.run(_ETAG, id=receiver_id)["webhookReceiver"]
    question = f"Delete receiver {receiver_id}, {found['name']!r}, with its subscriptions?"
    remote.delete(api, _DELETE, found, question, "receiver", yes=yes, as_json=as_json)


def _update(api: GraphQL, receiver_id: str, values: dict[str, object], *, as_json: bool) -> None:
    after = remote.changed(api, _ETAG, _UPDATE, receiver_id, values, as_json=as_json)
    if after is not None:
        _print(after, as_json=False)


def _state(receiver: remote.Node) -> str:
    return "active" if receiver["active"] else f"inactive ({receiver['disabledReason']})"


def _print(receiver: remote.Node, *, as_json: bool) -> None:
    shown = receiver
    if not as_json:
        shown = dict(receiver) | {
            "readableResources": remote.reads(receiver),
            "headers": [f"{header['key']}: {header['value']}" for header in receiver["headers"]],
            "subscriptions": [
                " ".join((one["id"], one["resource"], one["action"], remote.inactive(one))).rstrip()
                for one in receiver["subscriptions"]
            ],
        }
    remote.print_details(shown, as_json=as_json)
