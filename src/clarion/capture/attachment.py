"""What is attached, and as what: the value, what of it can be refused without a look at the database, Clarion's own ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clarion.capture.names import RESOURCE
from clarion.core.errors import UsageInvalid
from clarion.core.ids import TESTS

ORGANISATION_LENGTH_MAX = 200
"""Characters of an organisation's name."""


class OnTruncate(StrEnum):
    """What a TRUNCATE of the table does; the value is how clarion.resources spells it."""

    REFUSE = "REFUSE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A table and what its changes are called.

    `key_columns` empty means the primary key. Rows belong to the fixed `organisation` (made if absent), unless
    `organisation_column` names a text column with the organisation's name, or `organisation_id_column` one with its id.
    `label_column` names the object for people.
    """

    resource: str
    table: str
    schema: str = "public"
    singular: str | None = None
    description: str = ""
    key_columns: tuple[str, ...] = ()
    excluded_columns: tuple[str, ...] = ()
    organisation: str | None = "default"
    organisation_column: str | None = None
    organisation_id_column: str | None = None
    label_column: str | None = None
    on_truncate: OnTruncate = OnTruncate.REFUSE

    @property
    def named_organisation_column(self) -> str | None:
        """The column that says whose row it is, by name or by id; None if all belong to one organisation."""
        return self.organisation_column or self.organisation_id_column

    @property
    def qualified(self) -> str:
        """The table as schema.table, unquoted, for messages."""
        return f"{self.schema}.{self.table}"


OWN_RESOURCES = (
    Attachment(
        resource="WEBHOOK_RECEIVERS",
        singular="WEBHOOK_RECEIVER",
        schema="clarion",
        table="receivers",
        description="Registered HTTPS endpoints that webhooks are sent to.",
        excluded_columns=(
            "shared_secret_sealed",
            "shared_secret_hint",
            "previous_secret_sealed",
            "client_key_sealed",
            "inactive_since",
        ),
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource="WEBHOOK_SUBSCRIPTIONS",
        singular="WEBHOOK_SUBSCRIPTION",
        schema="clarion",
        table="subscriptions",
        description="Pairs of resource and action that a receiver listens for.",
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource="WEBHOOK_HEADERS",
        singular="WEBHOOK_HEADER",
        schema="clarion",
        table="headers",
        description="Custom HTTP headers of a receiver; their values are never part of a change.",
        excluded_columns=("value_sealed",),
        organisation=None,
        organisation_id_column="organisation_id",
    ),
    Attachment(
        resource=TESTS,
        singular="WEBHOOK_TEST",
        schema="clarion",
        table="tests",
        description="Test sends; each is an event for the receiver that it tests, subscribed or not.",
        organisation=None,
        organisation_id_column="organisation_id",
    ),
)
"""Clarion's own objects, which integrators can subscribe to like any other."""


def check_called(resource: str, singular: str | None, organisation: str | None, *, example: str) -> None:
    """Raises UsageInvalid for names that no resource, and no organisation, can have."""
    for name in filter(None, (resource, singular)):
        if RESOURCE.fullmatch(name) is None:
            raise UsageInvalid(
                f"attach: {name!r} cannot name a resource",
                f"take capitals, digits and _, a letter first, 63 characters at most: {example}",
            )
    if organisation is not None and not 1 <= len(organisation) <= ORGANISATION_LENGTH_MAX:
        raise UsageInvalid(f"attach: an organisation's name has 1 to {ORGANISATION_LENGTH_MAX} characters")


def check_names(attachment: Attachment) -> None:
    """Raises UsageInvalid for what no database could accept."""
    check_called(attachment.resource, attachment.singular, attachment.organisation, example="PURCHASE_ORDERS")
    texts = (attachment.table, attachment.schema, attachment.description, attachment.organisation)
    columns = (
        *attachment.key_columns,
        *attachment.excluded_columns,
        attachment.organisation_column,
        attachment.label_column,
    )
    if any("\0" in text for text in (*texts, *columns) if text):
        raise UsageInvalid("attach: a name holds a NUL character, which PostgreSQL cannot store")
    if attachment.named_organisation_column is None and attachment.organisation is None:
        raise UsageInvalid("attach: name an organisation, or the column that holds it")
    if attachment.schema == "clarion" and attachment not in OWN_RESOURCES:
        raise UsageInvalid("attach: the tables of schema clarion are Clarion's own")
