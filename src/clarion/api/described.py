"""Strawberry's decorators and enum values with a description, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import strawberry
from strawberry.types.field import StrawberryField

Resolver = Callable[..., Any]


def field(description: str, name: str | None = None) -> Callable[[Resolver], StrawberryField]:
    """Decorates the resolver of a field that carries this description, and this name if it is not the resolver's."""
    return cast("Callable[[Resolver], StrawberryField]", strawberry.field(description=description, name=name))


mutation = field
"""The same for a root field that changes something: GraphQL tells the two apart by the type they stand in."""


def enum_value(value: str, description: str) -> Any:
    """A member of an enum class that is decorated with `strawberry.enum`; its `value` is the text."""
    return strawberry.enum_value(value, description=description)
