"""Which resources a client, and which a receiver, may read, and what the one may do to the other.

Rights are the names of resources, None standing for all, later ones too. A receiver's are its own: they were granted by a
client that had them, and stay when that client loses them, is deactivated or deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clarion.access.principal import Principal
from clarion.core.errors import Code, RequestRefused

FIELD = "input.readableResources"
Rights = Collection[str] | None


def has_right(rights: Rights, resource: str) -> bool:
    """Whether the resource is among these rights."""
    return rights is None or resource in rights


def covers(rights: Rights, others: Rights) -> bool:
    """Whether whoever has `rights` may read all that `others` stand for."""
    return rights is None or (others is not None and set(others) <= set(rights))


def own_rights(principal: Principal) -> list[str] | None:
    """What the client may read, as a receiver stores it."""
    return None if principal.readable_resources is None else sorted(principal.readable_resources)


def check_rights(value: Sequence[str], _field: str) -> list[str]:
    """A check for names of resources, which the schema has looked at: each once and in order."""
    return sorted(set(value))


def require_grantable(principal: Principal, before: Rights, after: Rights) -> None:
    """Raises RequestRefused (FORBIDDEN) if a receiver gets a right that the client does not have itself.

    `before` are the receiver's rights until now; they may stay.
    """
    if covers(principal.readable_resources, after) or covers(before, after):
        return
    if after is None:
        what = "all resources, later ones too"
    else:
        what = ", ".join(
            sorted(one for one in after if not principal.may_read(one) and (before is None or one not in before))
        )
        if not what:
            return
    raise RequestRefused(
        Code.FORBIDDEN,
        f"client {principal.name!r} may not read {what}, so it cannot give a receiver the right to; "
        "ask an administrator of the organisation",
        FIELD,
    )


def require_control(principal: Principal, receiver: Any, field: str, changed: Mapping[str, Any] | None = None) -> None:
    """Raises RequestRefused (FORBIDDEN) if the client may read less than the receiver (its row) is sent.

    It could otherwise have sent to itself what it may not see. `changed` has the columns that are to change, if that is known:
    to switch the receiver off and to take rights from it is allowed to everybody who may change receivers.
    """
    if covers(principal.readable_resources, receiver.readable_resources):
        return
    if changed is not None and all(_is_harmless(receiver, column, value) for column, value in changed.items()):
        return
    raise RequestRefused(
        Code.FORBIDDEN,
        f"client {principal.name!r} may read less than this receiver is sent, so it may only deactivate or delete it, or take "
        "rights from it (readableResources)",
        field,
    )


def _is_harmless(receiver: Any, column: str, value: Any) -> bool:
    match column:
        case "active":
            return value is False
        case "disabled_reason":
            return True  # follows from `active`
        case "readable_resources":
            return covers(receiver.readable_resources, value)
        case _:
            return False


def require_right(receiver: Any, resource: str, field: str) -> None:
    """Raises RequestRefused (FORBIDDEN) unless the receiver (its row) has the right to the resource."""
    if not has_right(receiver.readable_resources, resource):
        raise RequestRefused(
            Code.FORBIDDEN,
            f"the receiver has no right to {resource}: a client that may read {resource} gives it one with updateWebhookReceiver, "
            f"by adding {resource} to readableResources",
            field,
        )
