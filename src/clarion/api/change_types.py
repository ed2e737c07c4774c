"""Changes as the API shows them: the ledger, with values as receivers get them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from clarion.access.principal import Permission
from clarion.api import described
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.api.inputs import NESTED_DEFAULT, nested_first
from clarion.api.values import BigInt, JSONValue, WebhookSubscriptionActions, json_as_written
from clarion.core.encoding import join_object
from clarion.core.ids import ResourceName
from clarion.ledger.difference import difference
from clarion.records.changes import Contents, RecordedChange

if TYPE_CHECKING:
    from clarion.api.events import WebhookEvent


@strawberry.type(description="Who changed an object, as the application that made the change said.")
class ChangeActor:
    id: str | None = strawberry.field(description="The application's id of the user or program; null if it gave none.")
    name: str | None = strawberry.field(description="The actor's name for people; null if the application gave none.")


@strawberry.type(
    description="One committed action on one object: an entry of the ledger, which is never changed and has no gaps. "
    "Whether or not anybody was subscribed to it."
)
class Change(Node):
    change_id: BigInt = strawberry.field(
        description="The change's number in the organisation: 1, 2, 3 and so on without gaps, in the order of the ledger."
    )
    resource: ResourceName = strawberry.field(description="What kind of object was changed.")
    action: WebhookSubscriptionActions = strawberry.field(description="What happened to the object.")
    object_id: str = strawberry.field(description="The object's key in the application, as text.")
    occurred_at: datetime = strawberry.field(description="When the application's transaction changed the object.")
    recorded_at: datetime = strawberry.field(description="When the change was entered into the ledger.")
    actor: ChangeActor | None = strawberry.field(description="Who changed it; null if the application did not say.")
    correlation_id: str | None = strawberry.field(
        description="What groups the changes of one request or job of the application; by default those of one transaction."
    )
    link: str = strawberry.field(
        description="The entry's hash, 64 hexadecimal digits, which covers the entry and the link of the organisation's one before: "
        "whoever keeps one can later prove that nothing before it was altered."
    )
    record: strawberry.Private[RecordedChange]

    @described.field("Names of the columns that an UPDATE changed, in the order of the row; empty for other actions.")
    async def changed(self, info: Info) -> list[str] | None:
        contents = await self._contents(info)
        return None if contents.is_omitted else difference(contents.action, contents.old, contents.new).names

    @described.field(
        "The object's row after the change, for a DELETE before it: an object of its columns, but for those that are excluded from "
        "capture, as receivers get it. Numbers have all their digits: read them with a parser that keeps them. Null if the row is "
        "too long (see `dataOmitted`)."
    )
    async def data(self, info: Info) -> JSONValue | None:
        contents = await self._contents(info)
        text = contents.new if contents.new is not None else contents.old
        return None if text is None else json_as_written(text)

    @described.field(
        "The former values of the columns in `changed`, as receivers get them; an empty object for other actions than UPDATE. Null "
        "if the row is too long (see `dataOmitted`)."
    )
    async def previous(self, info: Info) -> JSONValue | None:
        contents = await self._contents(info)
        if contents.is_omitted:
            return None
        names, old = difference(contents.action, contents.old, contents.new)
        return json_as_written(join_object((name, old[name]) for name in names if name in old))

    @described.field(
        "True if `changed`, `data` and `previous` are null because the row before and after has more than 256 KiB, or because the "
        "changes of this answer have more than 8 MiB together: then ask for fewer at once."
    )
    async def data_omitted(self, info: Info) -> bool:
        return (await self._contents(info)).is_omitted

    @described.field(
        "The events that the change made, one for each subscription that it matched, in the order of their ids; `first` from 1 to "
        "100. None: nobody was subscribed, or no condition held."
    )
    async def events(
        self, info: Info, first: int = NESTED_DEFAULT
    ) -> list[Annotated[WebhookEvent, strawberry.lazy("clarion.api.events")]]:
        from clarion.api.events import event_of

        found = await info.context.loaders.events_of_change.load((self.record.position, nested_first(first)))
        return [event_of(one) for one in found]

    async def _contents(self, info: Info) -> Contents:
        return await info.context.loaders.contents.load(self.record.position)


def change_of(record: RecordedChange) -> Change:
    """The change's GraphQL object."""
    actor = None
    if record.actor_id is not None or record.actor_name is not None:
        actor = ChangeActor(id=record.actor_id, name=record.actor_name)
    return Change(
        id=strawberry.ID(str(record.position)),
        change_id=BigInt(record.change_id),
        resource=record.resource,
        action=WebhookSubscriptionActions(record.action),
        object_id=record.object_id,
        occurred_at=record.occurred_at,
        recorded_at=record.recorded_at,
        actor=actor,
        correlation_id=record.correlation_id,
        link=record.link.hex(),
        record=record,
    )


async def change_at(info: Info, position: int) -> Change | None:
    """The change at a position, None if the caller may not read its resource. Raises RequestRefused (FORBIDDEN)."""
    info.context.principal.require(Permission.CHANGES_READ)
    found = await info.context.loaders.change.load(position)
    return None if found is None else change_of(found)
