"""Who asks, and what their role lets them do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId


class Role(StrEnum):
    """What a client is there for."""

    ADMINISTRATOR = "ADMINISTRATOR"
    INTEGRATOR = "INTEGRATOR"
    OPERATOR = "OPERATOR"
    AUDITOR = "AUDITOR"


class Permission(StrEnum):
    """One thing that a role may do, as it is named in refusals and in the documentation."""

    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    SECRETS_REVEAL = "secrets:reveal"
    EGRESS_WRITE = "egress:write"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.ADMINISTRATOR: frozenset(Permission),
        Role.INTEGRATOR: frozenset({Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE}),
        Role.OPERATOR: frozenset({Permission.WEBHOOKS_READ, Permission.EGRESS_WRITE}),
        Role.AUDITOR: frozenset({Permission.WEBHOOKS_READ}),
    }
)


@dataclass(frozen=True, slots=True)
class Principal:
    """The client behind a request. `kind` is PERSON or MACHINE."""

    client_id: ClientId
    name: str
    kind: str
    role: Role
    organisation_id: OrganisationId

    def may(self, permission: Permission) -> bool:
        return permission in PERMISSIONS[self.role]

    def require(self, permission: Permission) -> None:
        """Raises RequestRefused (FORBIDDEN) unless the role has the permission."""
        if not self.may(permission):
            raise RequestRefused(
                Code.FORBIDDEN,
                f"client {self.name!r} has role {self.role} without permission {permission}; "
                "ask an administrator of the organisation",
            )
