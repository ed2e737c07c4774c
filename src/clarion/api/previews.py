"""What a subscription would have made of recent changes, before it is made."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import orjson
import strawberry

from clarion.api import described
from clarion.api.context import Info
from clarion.api.inputs import NESTED_DEFAULT, existing_key, given, nested_first
from clarion.api.subscriptions import VALUES, CreateWebhookSubscriptionInput
from clarion.api.values import BigInt
from clarion.core.ids import ReceiverId
from clarion.records import preview as previews
from clarion.registry.subscriptions import checked_values


@strawberry.enum(description="What would have become of a change.")
class WebhookPreviewOutcome(Enum):
    MATCHED = described.enum_value("MATCHED", "It would have been sent.")
    NOT_MATCHED = described.enum_value("NOT_MATCHED", "The condition was false.")
    FAILED = described.enum_value("FAILED", "The condition or the template had no result; `error` says why.")


@strawberry.type(description="A recent change, and what the subscription would have made of it.")
class WebhookPreviewedChange:
    change_id: BigInt
    object_id: str
    created: datetime = strawberry.field(description="When the change was recorded.")
    outcome: WebhookPreviewOutcome
    error: str | None
    body: str | None = strawberry.field(
        description="What would have been sent; the numbers that only an event has are 0. Null if nothing would have been."
    )


@strawberry.type
class WebhookSubscriptionPreview:
    changes: list[WebhookPreviewedChange] = strawberry.field(description="Newest first.")
    matched_count: int
    failed_count: int
    is_complete: bool = strawberry.field(
        description="False if the expressions took so long that not all changes were looked at."
    )


@strawberry.type
class PreviewQueries:
    @described.field(
        "What a subscription with this input would have made of the latest changes of its resource and action: real ones, among "
        "the latest 10,000 of the organisation. Nothing is made and nothing is sent."
    )
    async def preview_webhook_subscription(
        self,
        info: Info,
        input: CreateWebhookSubscriptionInput,
        since: datetime | None = None,
        first: int = NESTED_DEFAULT,
    ) -> WebhookSubscriptionPreview | None:
        context = info.context
        limit = nested_first(first)
        receiver_id = ReceiverId(existing_key(input.receiver_id, "webhook receiver", "input.receiverId"))
        values = given(input, VALUES, null_is_default=True)
        async with context.session.reading() as connection:
            asked = await checked_values(connection, context.principal, receiver_id, values)
            found = await previews.preview(
                connection,
                context.principal.organisation_id,
                previews.Asked(
                    resource=asked.shape.resource,
                    action=asked.shape.action,
                    condition=asked.condition,
                    fields=None if asked.fields is None else orjson.dumps(asked.fields).decode(),
                    template=asked.template,
                    decimals=asked.shape.decimals,
                ),
                since,
                limit,
                context.services.clock.monotonic_ns,
            )
        changes = [
            WebhookPreviewedChange(
                change_id=BigInt(one.change_id),
                object_id=one.object_id,
                created=one.recorded_at,
                outcome=WebhookPreviewOutcome(one.outcome.value),
                error=one.error,
                body=None if one.body is None else one.body.decode(),
            )
            for one in found.changes
        ]
        return WebhookSubscriptionPreview(
            changes=changes,
            matched_count=sum(one.outcome is previews.Outcome.MATCHED for one in found.changes),
            failed_count=sum(one.outcome is previews.Outcome.FAILED for one in found.changes),
            is_complete=found.is_complete,
        )
