"""The page on access says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from clarion.access.keys import KeyStatus
from clarion.access.principal import PERMISSIONS, Permission, Role
from clarion.api.organisations import Permission as Shown

PAGE = (Path(__file__).parents[2] / "docs/reference/access.md").read_text()


def _rows(heading: str) -> list[list[str]]:
    """The cells of the first table after the heading, its head first."""
    after = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table is not None
    lines = table.group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_roles_have_the_permissions_that_the_page_says() -> None:
    head, *rows = _rows("## Roles and permissions")
    assert head[1:-1] == list(Role)
    assert [row[0] for row in rows] == [f"`{permission}`" for permission in Permission]
    for row in rows:
        permission = Permission(row[0].strip("`"))
        assert [cell == "yes" for cell in row[1:-1]] == [permission in PERMISSIONS[role] for role in Role], permission
        assert set(row[1:-1]) <= {"yes", ""}


def test_the_page_and_the_schema_describe_permissions_alike() -> None:
    _head, *rows = _rows("## Roles and permissions")
    definition = Shown.__strawberry_definition__  # type: ignore[attr-defined]  # added by the decorator
    described = {value.name: value.description for value in definition.values}
    assert described == {Permission(row[0].strip("`")).name: f"{row[0]}: {row[-1]}." for row in rows}


def test_every_status_of_a_key_is_explained() -> None:
    _head, *rows = _rows("## Keys")
    assert [row[0].strip("`") for row in rows] == list(KeyStatus)
