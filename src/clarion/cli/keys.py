"""`clarion keys`: API keys of clients, and the key that encrypts secrets at rest."""

from __future__ import annotations

from pathlib import Path

import click

from clarion.cli.output import print_json

ROLES = ("ADMINISTRATOR", "INTEGRATOR", "OPERATOR", "AUDITOR")
"""The values of clarion.access.principal.Role, here so that `--help` imports no database library."""


@click.group
def keys() -> None:
    """Make API keys and encryption keys."""


@keys.command
@click.option("--organisation", default="default", show_default=True, help="Its name; made when absent.")
@click.option("--name", required=True, help="The client that the key is for; made when absent.")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), required=True, help="What the client may do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(organisation: str, name: str, role: str, *, as_json: bool) -> None:
    """Make an API key and print it, this once: only its hash is stored.

    Works directly on the database, so it needs no key and no running `serve`.
    """
    from clarion.access.clients import create_key
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
            key = create_key(connection, organisation, name, Role(role.upper()), SystemRandom())
    if as_json:
        print_json({"organisation": organisation, "name": name, "role": role.upper(), "key": key})
    else:
        click.echo(key)


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
