"""Acts on the database itself, past the API, as they stand in the history: `clarion.record_act` writes each entry.

Who it was is the login. The user at the machine is added as the command's own word, which the database cannot check.
"""

from __future__ import annotations

import getpass
import os
from typing import Any

import psycopg

PERSON = "clarion.person"
"""The setting that clarion.record_act reads."""


def person() -> str:
    """The user that this process belongs to, by name or, without one, by number; empty where the system knows none.

    Asked of the system, not of the environment, in which anybody may call themselves anything.
    """
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
    except ImportError:  # no Unix
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return ""


def tell_person(connection: psycopg.Connection[Any]) -> None:
    """Say who is at the machine, until the transaction ends."""
    connection.execute("SELECT set_config(%s, %s, true)", (PERSON, person()))
