"""`clarion doctor`: what is wrong, where, and what to do."""

from __future__ import annotations

import click

from clarion.cli.database import database_url
from clarion.cli.output import print_json, styled
from clarion.core.settings import load_settings

_COLOURS = {"FAILURE": "red", "WARNING": "yellow", "INFORMATION": "blue"}


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> int:
    """Compare what should be with what is: triggers, functions, keys, the guard, and what operators must know.

    Exits with 1 if something is a failure; warnings and information leave it at 0. It changes nothing.
    """
    from clarion.capture.doctor import CODES, Finding, Severity, in_order, inspect
    from clarion.core.errors import EnvironmentRefused
    from clarion.database.check import check_server, connect
    from clarion.database.embedded import opened
    from clarion.database.migrate import assert_migrated

    settings = load_settings()
    found: list[Finding] = []
    with opened(database_url(settings), settings.data_dir) as address:
        assert_migrated(address)
        with connect(address, autocommit=True) as connection:
            try:
                check_server(connection)
            except EnvironmentRefused as refused:
                severity = CODES["SERVER_UNSUITABLE"][0]
                found.append(Finding("SERVER_UNSUITABLE", severity, "server", refused.message, refused.hint))
            found = in_order([*found, *inspect(connection)])
    failures = sum(one.severity is Severity.FAILURE for one in found)
    if as_json:
        print_json(
            {
                "ok": not failures,
                "findings": [
                    {
                        "code": one.code,
                        "severity": one.severity.value,
                        "subject": one.subject,
                        "message": one.message,
                        "advice": one.advice,
                    }
                    for one in found
                ],
            }
        )
        return 1 if failures else 0
    for one in found:
        click.echo(f"{styled(one.severity.value, _COLOURS[one.severity.value], bold=True)} {one.code} {one.subject}")
        click.echo(f"    {one.message}")
        if one.advice:
            click.echo(f"    {one.advice}")
    click.echo(f"{failures} failures, {len(found) - failures} other findings")
    return 1 if failures else 0
