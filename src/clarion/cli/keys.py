"""`clarion keys`: API keys of clients, the key that encrypts secrets at rest, and the keys that sign."""

from __future__ import annotations

from pathlib import Path

import click

from clarion.cli.output import print_json

ROLES = ("ADMINISTRATOR", "INTEGRATOR", "OPERATOR", "AUDITOR")
"""The values of clarion.access.principal.Role, here so that `--help` imports no database library."""


@click.group
def keys() -> None:
    """Make and rotate API keys, encryption keys and signing keys."""


@keys.command
@click.option("--organisation", default="default", show_default=True, help="Its name; made when absent.")
@click.option("--name", required=True, help="The client that the key is for; made when absent.")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), required=True, help="What the client may do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(organisation: str, name: str, role: str, *, as_json: bool) -> None:
    """Make an API key and print it, this once: only its hash is stored.

    Works directly on the database, so it needs no key and no running `serve`.
    """
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
