"""Acts on the database itself, past the API, as they stand in the history: `clarion.record_act` writes each entry.

Who it was is the login. The person at the machine is added as far as the system knows one: a word of the command's own,
which nobody can check.
"""

from __future__ import annotations

import getpass
from typing import Any

import psycopg

PERSON = "clarion.person"
"""The setting that clarion.record_act reads."""


def person() -> str:
    """The user that this process belongs to, by name; empty where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def tell_person(connection: psycopg.Connection[Any]) -> None:
    """Say who is at the machine, until the transaction ends."""
    connection.execute("SELECT set_config(%s, %s, true)", (PERSON, person()))
