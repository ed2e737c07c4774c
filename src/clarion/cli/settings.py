"""`clarion settings`: every setting, its value and its meaning. Secrets are named, never printed."""

from __future__ import annotations

from typing import get_args

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from clarion.cli.output import print_json, print_table
from clarion.core.errors import UsageInvalid
from clarion.core.settings import Settings, load_settings


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(*, as_json: bool) -> None:
    """List the settings, their values and their meaning.

    Each is an environment variable. Lists are comma-separated, empty means none.
    """
    refused: UsageInvalid | None = None
    try:
        current = load_settings()
    except UsageInvalid as error:
        # The list is what helps to correct the setting: shown with the defaults, then the refusal.
        current, refused = Settings.model_construct(), error
    rows = [_row(current, name, field) for name, field in Settings.model_fields.items()]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["setting", "value", "from", "meaning"],
            [(row["name"], _shown(row["value"]), row["from"], row["meaning"]) for row in rows],
        )
    if refused is not None:
        raise UsageInvalid(refused.message, "the values above are the defaults")


def _row(current: Settings, name: str, field: FieldInfo) -> dict[str, object]:
    value = getattr(current, name)
    secret = field.annotation is SecretStr or SecretStr in get_args(field.annotation)
    if secret:
        shown: object = None if value is None else "(set, not shown)"
    elif isinstance(value, tuple | list):
        shown = [str(entry) for entry in value]
    else:
        shown = value if value is None or isinstance(value, bool | int | float) else str(value)
    return {
        "name": f"{Settings.model_config['env_prefix']}{name.upper()}",
        "value": shown,
        "from": "environment" if name in current.model_fields_set else "default",
        "secret": secret,
        "meaning": field.description,
    }


def _shown(value: object) -> str:
    if value is None or value == []:
        return "-"
    return ",".join(str(entry) for entry in value) if isinstance(value, list) else str(value)
