"""`clarion keys`: API keys of clients, the key that encrypts secrets at rest, and the keys that sign."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.cli.output import inert, print_json
from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

ROLES = ("ADMINISTRATOR", "INTEGRATOR", "OPERATOR", "AUDITOR")
"""The values of clarion.access.principal.Role, here so that `--help` imports no database library."""

_FIELDS: Final = "id prefix status created expires lastUsed revoked client { id name } createdBy { id name } _etag"
_LIST: Final = remote.list_document("apiKeys", "ApiKeysInputFilters", _FIELDS, "ID_ASC")
_SHOW: Final = f"query Show($id: ID!) {{ apiKey(id: $id) {{ {_FIELDS} }} }}"
CREATE_KEY: Final = f"""
mutation Create($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ apiKey {{ {_FIELDS} }} key }} }}"""
_REVOKE: Final = f"""
mutation Revoke($id: ID!, $etag: String!) {{ revokeApiKey(id: $id, etag: $etag) {{ apiKey {{ {_FIELDS} }} }} }}"""


@click.group
def keys() -> None:
    """Make, list and revoke API keys; make and rotate encryption keys and signing keys."""


@keys.command
@click.option("--organisation", default="default", show_default=True, help="Its name; made when absent.")
@click.option(
    "--name", default="administrator", show_default=True, help="The client that the key is for; made when absent."
)
@click.option(
    "--role",
    type=click.Choice(ROLES, case_sensitive=False),
    default="ADMINISTRATOR",
    show_default=True,
    help="What the client may do.",
)
@click.option("--client", "client_id", metavar="ID", help="Over the API: make a further key for this client.")
@click.option(
    "--expires", type=click.DateTime(remote.TIMES), help="With --client: it opens nothing from then on (UTC)."
)
@remote.json_option
@remote.api_options
@click.pass_context
def create(
    context: click.Context,
    organisation: str,
    name: str,
    role: str,
    client_id: str | None,
    expires: datetime | None,
    url: str | None,
    key_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make an API key and print it, this once: only its hash is stored.

    Without --client it works directly on the database, so that it needs no key and no running `serve`: that is how the
    first key is made. With --client ID it goes over the API, as the client of CLARION_API_KEY, and is in the history.
    """
    asked = {
        one for one in context.params if context.get_parameter_source(one) is click.core.ParameterSource.COMMANDLINE
    }
    wrong = asked & ({"organisation", "name", "role"} if client_id else {"expires", "url", "key_file"})
    if wrong:
        option = min(wrong).replace("_", "-")
        raise UsageInvalid(
            f"--{option} has no meaning {'with' if client_id else 'without'} --client",
            "--client makes a key over the API; without it one is made on the database",
        )
    if client_id is not None:
        given = {"clientId": client_id, **remote.given(expires=remote.time_text(expires))}
        with remote.connected(url, key_file) as api:
            made = api.run(CREATE_KEY, input=given)["createApiKey"]
        if as_json:
            remote.print_answer(made)
        else:
            click.echo(inert(made["key"]))
        return
    key = _create_on_database(organisation, name, role.upper())
    if as_json:
        print_json({"organisation": organisation, "name": name, "role": role.upper(), "key": key})
    else:
        click.echo(f"a key of client {inert(name)}, {role.upper()}, organisation {inert(organisation)}:", err=True)
        click.echo(key)


def _create_on_database(organisation: str, name: str, role: str) -> str:
    from clarion.access.bootstrap import create_key
    from clarion.access.principal import Role
    from clarion.cli.database import database_url
    from clarion.core.settings import load_settings
    from clarion.core.system import SystemRandom
    from clarion.database.embedded import opened
    from clarion.database.migrate import assert_migrated
    from clarion.database.session import transaction

    settings = load_settings()
    with opened(database_url(settings), settings.data_dir) as address:
        assert_migrated(address)
        with transaction(address) as connection:
            return create_key(connection, organisation, name, Role(role), SystemRandom())


@keys.command("list")
@click.option("--client", "client_id", metavar="ID", help="Only those of this client.")
@click.option("--status", type=click.Choice(("ACTIVE", "EXPIRED", "REVOKED"), case_sensitive=False), help="Only such.")
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool, **filters: Any) -> None:
    """List API keys by id, over the API. The keys themselves are never shown again."""
    found = remote.first_nodes(api, _LIST, "apiKeys", limit, filters=remote.conditions(**filters))
    columns = {
        "ID": lambda node: node["id"],
        "PREFIX": lambda node: node["prefix"],
        "CLIENT": lambda node: f"{node['client']['id']} {node['client']['name']}",
        "STATUS": lambda node: node["status"],
        "EXPIRES": lambda node: node["expires"],
        "LAST USED": lambda node: node["lastUsed"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="no such keys")


@keys.command
@click.argument("key_id", metavar="ID")
@remote.yes_option
@remote.json_option
@remote.over_the_api
def revoke(api: GraphQL, key_id: str, *, yes: bool, as_json: bool) -> None:
    """Take the API key ID back, over the API: within a second it opens nothing any more, for good."""
    found = api.run(_SHOW, id=key_id)["apiKey"]
    remote.confirm(f"Revoke key {found['prefix']} of client {found['client']['name']!r} for good?", yes=yes)
    payload = api.run(_REVOKE, id=key_id, etag=found["_etag"])["revokeApiKey"]
    if as_json:
        remote.print_answer(payload)
    else:
        click.echo(f"key {payload['apiKey']['id']} revoked")


@keys.command(name="new-encryption-key")
@click.argument("file", type=click.Path(path_type=Path))
def new_encryption_key(file: Path) -> None:
    """Write a new key-encryption key to FILE (mode 0600), for CLARION_SECRET_KEY_FILE. Never overwrites.

    Keep a copy where the database's backups are not: without it the receivers' secrets cannot be read.
    """
    from clarion.core.system import SystemRandom
    from clarion.sender.seal import create_key, fingerprint

    key = create_key(file, SystemRandom())
    click.echo(f"{file}: new encryption key, fingerprint {fingerprint(key)}")


@keys.command(name="rotate-encryption-key")
@click.argument("file", metavar="NEW_FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate_encryption_key(file: Path, *, as_json: bool) -> None:
    """Seal everything with the key in NEW_FILE and put it in place of CLARION_SECRET_KEY_FILE.

    Works beside a running `serve`, which goes on signing. The former key stays beside the new one, as `<name>.previous`.
    Where `serve` runs on further hosts, put the new key beside theirs first, as `<name>.next`. Cut short at any point, it
    is completed or undone by the next start.
    """
    from clarion.app import load_secret_key
    from clarion.cli.database import database_url
    from clarion.core.settings import load_settings
    from clarion.core.system import SystemRandom
    from clarion.database.check import connect
    from clarion.database.embedded import opened
    from clarion.database.migrate import assert_migrated
    from clarion.registry import encryption_key
    from clarion.sender.seal import load_key

    settings = load_settings()
    with opened(database_url(settings), settings.data_dir) as address:
        assert_migrated(address)
        with connect(address) as connection:
            new = load_key(file)
            current = load_secret_key(settings, connection)
            done = encryption_key.rotate(
                connection,
                settings.secret_key_path,
                current,
                new,
                SystemRandom(),
                progress=lambda line: click.echo(line, err=True),
            )
    if as_json:
        print_json(
            {
                "file": str(settings.secret_key_path),
                "fingerprint": done.fingerprint,
                "rewrapped": done.rewrapped,
                "unreadable": done.unreadable,
            }
        )
    else:
        click.echo(f"{settings.secret_key_path}: in use now, fingerprint {done.fingerprint}, {done.rewrapped} values")


@keys.command(name="rotate-signing-key")
@click.option(
    "--overlap-hours",
    type=click.FloatRange(0, 720),
    default=24,
    show_default=True,
    help="For how long the former key signs beside the new one.",
)
@click.option(
    "--announce-hours",
    type=click.FloatRange(0, 720),
    default=0,
    show_default=True,
    help="For how long the new key is published before it signs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate_signing_key(overlap_hours: float, announce_hours: float, *, as_json: bool) -> None:
    """Make a new Ed25519 key for v1a signatures and publish it at /.well-known/jwks.json at once.

    Works beside a running `serve`, which follows by itself.
    """
    from clarion.app import load_secret_key, make_sealer
    from clarion.cli.database import database_url
    from clarion.core.settings import load_settings
    from clarion.core.system import SystemRandom
    from clarion.database.check import connect
    from clarion.database.embedded import opened
    from clarion.database.migrate import assert_migrated
    from clarion.registry import signing_keys

    settings = load_settings()
    with opened(database_url(settings), settings.data_dir) as address:
        assert_migrated(address)
        with connect(address) as connection:
            sealer = make_sealer(settings, load_secret_key(settings, connection))
            made = signing_keys.rotate(
                connection, sealer, SystemRandom(), overlap_s=overlap_hours * 3600, announce_s=announce_hours * 3600
            )
    if as_json:
        print_json(
            {
                "publicKey": made.public_key,
                "kid": made.kid,
                "signsFrom": made.signs_from.isoformat(),
                "formerSignsUntil": made.former_until.isoformat(),
            }
        )
    else:
        click.echo(
            f"{made.public_key}: signs from {made.signs_from.isoformat()}; "
            f"former keys sign until {made.former_until.isoformat()}"
        )
