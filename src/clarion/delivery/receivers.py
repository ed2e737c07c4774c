"""Receivers as the worker needs them: what the engine decides by, and the endpoint that the sender talks to."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import inf
from typing import Any

import asyncpg

from clarion.core.ids import NO_SUBSCRIPTION
from clarion.database.pool import store_errors
from clarion.delivery.queue import SQL
from clarion.delivery.step import Configured, ReceiverSettings
from clarion.sender.endpoint import Endpoint, SealedEndpoint, open_endpoint, signing_key_binding
from clarion.sender.policy import Rule
from clarion.sender.seal import Sealer, SecretUnreadable
from clarion.sender.signing_key import SigningKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Receivers:
    """All live receivers as of one version of the configuration."""

    version: int
    configured: Configured
    endpoints: dict[int, Endpoint]
    rules: tuple[Rule, ...]


async def load_receivers(connection: asyncpg.Connection, sealer: Sealer, environment: str) -> Receivers:
    """The receivers, subscriptions, endpoints and egress rules of one version.

    A receiver whose secret does not open is logged and held like an inactive one: it must not stop the others.
    """
    with store_errors("read the configuration"):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            version = int(await connection.fetchval(SQL["configuration_version"]))
            records = await connection.fetch(SQL["receivers"])
            subscriptions = await connection.fetch(SQL["subscriptions"])
            rules = await connection.fetch(SQL["egress_rules"], environment)
            signing = await connection.fetch(SQL["signing_keys"])
    signing_keys = _signing_keys(signing, sealer)
    endpoints: dict[int, Endpoint] = {}
    settings: dict[int, ReceiverSettings] = {}
    for record in records:
        try:
            endpoints[record["id"]] = open_endpoint(_sealed(record, signing_keys), sealer)
        except SecretUnreadable as error:
            _log.error("receiver %s is held: %s", record["id"], error)
        if "V1A" in record["signatures"] and not signing_keys and endpoints.pop(record["id"], None) is not None:
            _log.error("receiver %s is held: there is no signing key for v1a", record["id"])
        settings[record["id"]] = _settings(record, usable=record["id"] in endpoints)
    live: dict[int, int | None] = {NO_SUBSCRIPTION: None}
    live |= {record["id"]: record["expires_after_seconds"] for record in subscriptions}
    allowed = tuple(Rule(rule["host"], rule["network"], rule["port"]) for rule in rules)
    return Receivers(version, Configured(settings, live), endpoints, allowed)


def _settings(record: Any, *, usable: bool) -> ReceiverSettings:
    readable = record["readable_resources"]
    return ReceiverSettings(
        receiver_id=record["id"],
        active=record["active"] and usable,
        inactive_since=record["inactive_since"],
        concurrency=record["concurrency"],
        retry_schedule_s=tuple(record["retry_schedule"]),
        ordered_per_object=record["ordering"] == "PER_OBJECT",
        rate_limit_per_second=record["rate_limit_per_second"],
        lane_block_max_s=record["lane_block_max_seconds"],
        readable_resources=None if readable is None else frozenset(readable),
    )


def _signing_keys(records: list[Any], sealer: Sealer) -> tuple[SigningKey, ...]:
    """The deployment's keys that open; without any, receivers that want v1a are held."""
    keys = []
    for record in records:
        public, until = record["public_key"], record["signs_until"]
        try:
            private = sealer.unseal(record["private_key_sealed"], signing_key_binding(public))
            keys.append(
                SigningKey(private, public, record["signs_from"].timestamp(), until.timestamp() if until else inf)
            )
        except (SecretUnreadable, ValueError) as error:
            _log.error("signing key %s does not sign: %s", public.hex(), error)
    return tuple(keys)


def _sealed(record: Any, signing_keys: tuple[SigningKey, ...]) -> SealedEndpoint:
    until = record["previous_secret_until"]
    return SealedEndpoint(
        receiver_id=record["id"],
        organisation_id=record["organisation_id"],
        uri=record["webhook_uri"],
        content_type=record["content_type"],
        header_names=tuple(record["header_keys"]),
        header_values_sealed=tuple(record["header_values_sealed"]),
        secret_sealed=record["shared_secret_sealed"],
        signatures=tuple(record["signatures"]),
        timeout_s=record["timeout_seconds"],
        concurrency=record["concurrency"],
        expected_response_code=record["expected_response_code"],
        ca_certificates=record["ca_certificates"],
        client_certificate=record["client_certificate"],
        client_key_sealed=record["client_key_sealed"],
        previous_secret_sealed=record["previous_secret_sealed"],
        previous_until_s=int(until.timestamp()) if until is not None else 0,
        signing_keys=signing_keys,
    )
