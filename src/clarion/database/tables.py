"""The tables of schema `clarion` as SQLAlchemy Core knows them: the control plane, and what the records read.

A mirror of the migrations, which alone make tables; a test compares the two column by column. Server defaults are not
repeated here: an INSERT that leaves a column out gets the database's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import CIDR, JSONB
from sqlalchemy.types import UserDefinedType

metadata = MetaData(schema="clarion")


class OneByte(UserDefinedType[str]):
    """PostgreSQL's `"char"`. asyncpg returns it as bytes: select it cast to text."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return '"char"'


def _moment(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable)


def _small(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, SmallInteger, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, LargeBinary, nullable=nullable)


def _key(name: str = "id") -> Column[Any]:
    return Column(name, BigInteger, primary_key=True)


deployment = Table(
    "deployment",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    _text("incarnation"),
    _text("system_identifier"),
    Column("timeline", Integer, nullable=False),
    _number("database_oid"),
    _text("secret_key_fingerprint", nullable=True),
    _text("owner_role"),
    _text("engine_role"),
    _text("api_role"),
    _text("capture_role"),
    _moment("created"),
)

configuration = Table(
    "configuration",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    _number("version"),
)

organisations = Table("organisations", metadata, _key(), _text("name"), _moment("created"))

clients = Table(
    "clients",
    metadata,
    _key(),
    _number("organisation_id"),
    _text("name"),
    _text("kind"),
    _text("role"),
    Column("active", Boolean, nullable=False),
    Column("readable_resources", ARRAY(Text)),
    Column("publishable_resources", ARRAY(Text), nullable=False),
    _text("etag"),
    _moment("created"),
    _moment("updated"),
    _number("created_by_id", nullable=True),
    _number("updated_by_id", nullable=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    _key(),
    _number("organisation_id"),
    _number("client_id"),
    _text("prefix"),
    _bytes("hash"),
    _text("etag"),
    _moment("created"),
    _number("created_by_id", nullable=True),
    _moment("expires", nullable=True),
    _moment("last_used", nullable=True),
    _moment("revoked", nullable=True),
    _number("revoked_by_id", nullable=True),
)

history = Table(
    "history",
    metadata,
    _key(),
    _number("organisation_id"),
    _moment("at"),
    _number("client_id", nullable=True),
    _text("client_name"),
    _number("api_key_id", nullable=True),
    _text("from_address", nullable=True),
    _text("request_id", nullable=True),
    _text("action"),
    _text("object_type"),
    _text("object_id"),
    # An absent side is SQL's NULL, not JSON's.
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    _text("refusal", nullable=True),
    _text("message", nullable=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _number("id"),
    _number("organisation_id"),
    Column("client_id", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    _bytes("request_sha256"),
    _small("status"),
    _bytes("answer_sealed"),
    _moment("created"),
)

resources = Table(
    "resources",
    metadata,
    _key(),
    _text("name"),
    _text("singular", nullable=True),
    _text("description"),
    _text("schema_name", nullable=True),
    _text("table_name", nullable=True),
    Column("key_columns", ARRAY(Text), nullable=False),
    Column("excluded_columns", ARRAY(Text), nullable=False),
    _text("organisation_column", nullable=True),
    _number("organisation_id", nullable=True),
    _moment("created"),
    _text("label_column", nullable=True),
    _text("on_truncate"),
    _bytes("function_sha256", nullable=True),
    _text("json_schema", nullable=True),
    _text("etag"),
    _moment("updated"),
    _number("created_by_id", nullable=True),
    _number("updated_by_id", nullable=True),
)

receivers = Table(
    "receivers",
    metadata,
    _key(),
    _number("organisation_id"),
    _text("name"),
    _text("description", nullable=True),
    _text("webhook_uri"),
    _text("content_type"),
    _small("expected_response_code", nullable=True),
    Column("active", Boolean, nullable=False),
    _text("disabled_reason", nullable=True),
    _moment("inactive_since", nullable=True),
    Column("retry_schedule", ARRAY(Integer), nullable=False),
    _small("timeout_seconds"),
    _small("concurrency"),
    Column("rate_limit_per_second", Integer),
    _text("ordering"),
    Column("lane_block_max_seconds", Integer),
    Column("signatures", ARRAY(Text), nullable=False),
    _bytes("shared_secret_sealed"),
    _text("shared_secret_hint"),
    _bytes("previous_secret_sealed", nullable=True),
    _moment("previous_secret_until", nullable=True),
    _text("ca_certificates", nullable=True),
    _text("client_certificate", nullable=True),
    _bytes("client_key_sealed", nullable=True),
    Column("readable_resources", ARRAY(Text)),
    _text("etag"),
    _moment("created"),
    _moment("updated"),
    _number("created_by_id", nullable=True),
    _number("updated_by_id", nullable=True),
    _moment("deleted", nullable=True),
)

headers = Table(
    "headers",
    metadata,
    _key(),
    _number("organisation_id"),
    _number("receiver_id"),
    _text("key"),
    _bytes("value_sealed"),
    _text("etag"),
    _moment("created"),
    _moment("updated"),
    _number("created_by_id", nullable=True),
    _number("updated_by_id", nullable=True),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    _key(),
    _number("organisation_id"),
    _number("receiver_id"),
    _text("resource"),
    _text("action"),
    Column("active", Boolean, nullable=False),
    Column("expires_after_seconds", Integer),
    _text("condition", nullable=True),
    Column("fields", ARRAY(Text)),
    _text("template", nullable=True),
    _text("etag"),
    _moment("created"),
    _moment("updated"),
    _number("created_by_id", nullable=True),
    _number("updated_by_id", nullable=True),
    _moment("deleted", nullable=True),
)

subscription_resources = Table(
    "subscription_resources",
    metadata,
    Column("organisation_id", BigInteger, primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("action", Text, primary_key=True),
    Column("subscription_id", BigInteger, primary_key=True),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    _key(),
    _bytes("public_key"),
    _bytes("private_key_sealed"),
    _moment("created"),
    _moment("signs_from"),
    _moment("signs_until", nullable=True),
)

egress_rules = Table(
    "egress_rules",
    metadata,
    _key(),
    _number("organisation_id"),
    _text("environment"),
    _text("host", nullable=True),
    Column("network", CIDR, nullable=False),
    Column("port", Integer, nullable=False),
    _text("note"),
    _text("etag"),
    _moment("created"),
    _number("created_by_id", nullable=True),
)

tests = Table(
    "tests",
    metadata,
    _key(),
    _number("organisation_id"),
    _number("receiver_id"),
    _number("requested_by_id", nullable=True),
    _moment("created"),
    _text("message"),
)

activations = Table(
    "activations",
    metadata,
    Column("subscription_id", BigInteger, primary_key=True),
    _number("organisation_id"),
    Column("from_position", BigInteger, primary_key=True),
    _number("until_position", nullable=True),
    _text("condition", nullable=True),
    Column("fields", ARRAY(Text)),
    _text("template", nullable=True),
)

evaluation_errors = Table(
    "evaluation_errors",
    metadata,
    Column("subscription_id", BigInteger, primary_key=True),
    _number("organisation_id"),
    _moment("since"),
    _number("conditions_count"),
    _number("templates_count"),
    _moment("last_at"),
    _number("last_change_id"),
    _text("last_message"),
)

ledger = Table(
    "ledger",
    metadata,
    _key("position"),
    _number("organisation_id"),
    _number("change_id"),
    _number("outbox_id"),
    _number("half_of", nullable=True),
    _moment("recorded_at"),
    _moment("occurred_at"),
    _moment("captured_at"),
    Column("xid", Text, nullable=False),
    _small("hops", nullable=True),
    Column("action", OneByte(), nullable=False),
    _text("resource"),
    _text("object_id"),
    _text("actor_id", nullable=True),
    _text("actor_name", nullable=True),
    _text("correlation_id", nullable=True),
    _bytes("link"),
    _bytes("salt", nullable=True),
    _text("old", nullable=True),
    _text("new", nullable=True),
    _text("problem", nullable=True),
    _number("first_event_id", nullable=True),
    Column("events_count", Integer, nullable=False),
)

queue = Table(
    "queue",
    metadata,
    _key("queue_id"),
    _number("event_id"),
    _number("organisation_id"),
    _number("receiver_id"),
    _number("subscription_id"),
    _number("position"),
    _number("sequence"),
    _number("lane"),
    _moment("due_at", nullable=True),
    _moment("first_failed_at", nullable=True),
    _small("shard"),
    _small("round"),
    Column("attempts_count", Integer, nullable=False),
    Column("spent_count", Integer, nullable=False),
    _small("render_version"),
    _text("fields", nullable=True),
    _bytes("body", nullable=True),
    _bytes("body_sha256", nullable=True),
)

events = Table(
    "events",
    metadata,
    _key("event_id"),
    Column("round", SmallInteger, primary_key=True),
    _number("organisation_id"),
    _number("receiver_id"),
    _number("subscription_id"),
    _number("position"),
    _number("sequence"),
    _moment("settled_at"),
    _text("status"),
    _text("reason"),
    Column("attempts_count", Integer, nullable=False),
    _small("render_version"),
    _text("fields", nullable=True),
    _bytes("body", nullable=True),
    _bytes("body_sha256", nullable=True),
)

intake = Table(
    "intake",
    metadata,
    _key(),
    _number("organisation_id"),
    _text("kind"),
    Column("request", JSONB, nullable=False),
    _moment("created"),
)

alarms = Table(
    "alarms",
    metadata,
    _key(),
    _text("code"),
    _text("subject"),
    _text("severity"),
    _text("message"),
    _moment("since"),
    _moment("seen"),
    _moment("ended", nullable=True),
)

commands = Table(
    "commands",
    metadata,
    _key(),
    _number("organisation_id"),
    _small("shard"),
    _text("kind"),
    _number("event_id"),
    _moment("created"),
)

attempts = Table(
    "attempts",
    metadata,
    _key("event_id"),
    Column("round", SmallInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    _number("organisation_id"),
    _moment("started_at"),
    Column("duration_ms", Integer, nullable=False),
    _small("status_code", nullable=True),
    _text("outcome"),
    _text("response_headers", nullable=True),
    _bytes("response_body", nullable=True),
    _text("error", nullable=True),
    _text("source_address", nullable=True),
    _text("peer_address", nullable=True),
)
