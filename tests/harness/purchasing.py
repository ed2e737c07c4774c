"""The Django project of `examples/purchasing`: in this process, on a test's database, or as commands of its own."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clarion.database.address import DatabaseAddress
from harness.cluster import libpq_environment

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "purchasing"


@contextmanager
def in_this_process(address: DatabaseAddress) -> Iterator[None]:
    """Its models work on `address`, migrated, with Clarion's app and middleware, until the block ends."""
    _configure()
    from django.core.management import call_command
    from django.db import connections

    for alias in ("default", "other"):
        connect(alias, address)
    call_command("migrate", verbosity=0)
    try:
        yield
    finally:
        connections.close_all()


def connect(alias: str, address: DatabaseAddress, **options: object) -> None:
    """From now on the connections of this alias go there, with these of Django's OPTIONS."""
    from django.db import connections

    parts = libpq_environment(address)
    connections[alias].close()
    connections.settings[alias].update(
        NAME=parts["PGDATABASE"],
        USER=parts["PGUSER"],
        HOST=parts.get("PGHOST", ""),
        PORT=parts.get("PGPORT", ""),
        OPTIONS=options,
    )
    # Made anew at its next use, with what was said here.
    del connections[alias]


def _configure() -> None:
    """Once a process: Django's settings are global."""
    from django.conf import settings

    if settings.configured:
        return
    import django

    sys.path.insert(0, str(PROJECT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "purchasing.settings"
    project = importlib.import_module("purchasing.settings")
    project.ALLOWED_HOSTS.append("testserver")
    project.INSTALLED_APPS.append("clarion.capture.django")
    project.MIDDLEWARE.append("clarion.capture.django.middleware.acting_middleware")
    project.DATABASES["other"] = dict(project.DATABASES["default"])
    django.setup()
