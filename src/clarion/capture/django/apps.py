"""Puts `carry` on every connection to PostgreSQL that Django opens."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.signals import connection_created

from clarion.capture.django.statements import carry


class ClarionConfig(AppConfig):
    """The app `clarion.capture.django`. It has no models."""

    name = "clarion.capture.django"
    label = "clarion"
    verbose_name = "Clarion"

    def ready(self) -> None:
        connection_created.connect(_put_on, dispatch_uid="clarion")
        for connection in connections.all(initialized_only=True):
            _put_on(connection=connection)


def _put_on(*, connection: Any, **_signal: object) -> None:
    if connection.vendor == "postgresql" and carry not in connection.execute_wrappers:
        # First, because Django takes away its temporary ones from the end, and the outermost.
        connection.execute_wrappers.insert(0, carry)
