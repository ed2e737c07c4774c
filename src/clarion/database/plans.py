"""How the database is to plan: for the values at hand, where they decide what is quick."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func


def for_these_values() -> ColumnElement[str]:
    """A column whose reading has the transaction's further statements planned for their own values, each time.

    After five times the database may take one plan for all values: it would look for what is rare as for what is common, and
    read a page of ten as if it were a tenth of the table.
    """
    return func.set_config("plan_cache_mode", "force_custom_plan", True).label("planned")
