"""Nobody may grant what they have not: which rights a client may give another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from clarion.access.principal import PERMISSIONS, Principal, Role
from clarion.core.errors import Code, RequestRefused


@dataclass(frozen=True, slots=True)
class Rights:
    """What a client may do, or is to be allowed. `readable_resources` None: all, later ones too."""

    role: Role
    readable_resources: Collection[str] | None
    publishable_resources: Collection[str]


def require_grantable_role(principal: Principal, role: Role, field: str) -> None:
    """Raises RequestRefused (FORBIDDEN) if the role has a permission that the principal's own has not."""
    missing = sorted(PERMISSIONS[role] - PERMISSIONS[principal.role])
    if missing:
        raise _forbidden(f"role {role} has permissions that yours has not: {', '.join(missing)}", field)


def require_grantable_reading(principal: Principal, readable_resources: Collection[str] | None, field: str) -> None:
    """Raises RequestRefused (FORBIDDEN) unless the principal may itself read all of these; None: all that there are."""
    own = principal.readable_resources
    if own is None:
        return
    if readable_resources is None:
        raise _forbidden("you may read some resources only, so you cannot give the right to read all: name them", field)
    missing = sorted(set(readable_resources) - own)
    if missing:
        raise _forbidden(f"you may not read {', '.join(missing)} yourself", field)


def require_grantable_publishing(principal: Principal, publishable_resources: Collection[str], field: str) -> None:
    """Raises RequestRefused (FORBIDDEN) unless the principal may itself publish changes of all of these."""
    missing = sorted(one for one in publishable_resources if not principal.may_publish(one))
    if missing:
        raise _forbidden(f"you may not publish changes of {', '.join(missing)} yourself", field)


def require_grantable(principal: Principal, rights: Rights, field: str) -> None:
    """Raises RequestRefused (FORBIDDEN) on `field` unless the principal has all these rights: whoever makes a key knows it."""
    require_grantable_role(principal, rights.role, field)
    require_grantable_reading(principal, rights.readable_resources, field)
    require_grantable_publishing(principal, rights.publishable_resources, field)


def _forbidden(message: str, field: str) -> RequestRefused:
    return RequestRefused(Code.FORBIDDEN, message, field)
