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
    EVENTS_WRITE = "events:write"
    CHANGES_READ = "changes:read"
    CHANGES_PUBLISH = "changes:publish"
    RESOURCES_WRITE = "resources:write"
    EGRESS_WRITE = "egress:write"
    CLIENTS_READ = "clients:read"
    CLIENTS_WRITE = "clients:write"
    ORGANISATIONS_WRITE = "organisations:write"
    HISTORY_READ = "history:read"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.ADMINISTRATOR: frozenset(Permission),
        Role.INTEGRATOR: frozenset(
            {
                Permission.WEBHOOKS_READ,
                Permission.WEBHOOKS_WRITE,
                Permission.EVENTS_WRITE,
                Permission.CHANGES_READ,
            }
        ),
        Role.OPERATOR: frozenset(
            {
                Permission.WEBHOOKS_READ,
                Permission.EVENTS_WRITE,
                Permission.CHANGES_PUBLISH,
                Permission.RESOURCES_WRITE,
                Permission.EGRESS_WRITE,
                Permission.CLIENTS_READ,
                Permission.HISTORY_READ,
            }
        ),
        Role.AUDITOR: frozenset(
            {
                Permission.WEBHOOKS_READ,
                Permission.CHANGES_READ,
                Permission.CLIENTS_READ,
                Permission.HISTORY_READ,
            }
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: the peer's address, the request's id (16 hexadecimal digits), the key that it was made with."""

    address: str | None = None
    request_id: str | None = None
    api_key_id: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """The client behind a request. `kind` is PERSON or MACHINE.

    `readable_resources` are the only ones whose changes and events it may see; None: all. `publishable_resources` are those
    that it may publish changes of although its role alone does not let it.
    """

    client_id: ClientId
    name: str
    kind: str
    role: Role
    organisation_id: OrganisationId
    readable_resources: frozenset[str] | None = None
    publishable_resources: frozenset[str] = frozenset()
    origin: Origin = Origin()

    def may(self, permission: Permission) -> bool:
        return permission in PERMISSIONS[self.role]

    def may_read(self, resource: str) -> bool:
        """Whether the changes and events of a resource may be shown to it."""
        return self.readable_resources is None or resource in self.readable_resources

    def may_publish(self, resource: str) -> bool:
        return self.may(Permission.CHANGES_PUBLISH) or resource in self.publishable_resources

    def require(self, permission: Permission) -> None:
        """Raises RequestRefused (FORBIDDEN) unless the role has the permission."""
        if not self.may(permission):
            raise RequestRefused(
                Code.FORBIDDEN,
                f"client {self.name!r} has role {self.role} without permission {permission}; "
                "ask an administrator of the organisation",
            )

    def require_read(self, resource: str, field: str) -> None:
        """Raises RequestRefused (FORBIDDEN) on `field` unless it may see the resource's changes."""
        if not self.may_read(resource):
            raise RequestRefused(
                Code.FORBIDDEN,
                f"client {self.name!r} may not read {resource}; ask an administrator of the organisation",
                field,
            )
