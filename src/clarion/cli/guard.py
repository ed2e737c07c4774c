"""`clarion guard` and `clarion break-glass`: what refuses commands that silence capture, and the recorded way past it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from clarion.cli.output import print_json
from clarion.core.settings import load_settings

if TYPE_CHECKING:
    from clarion.capture.guard import Window


@click.group
def guard() -> None:
    """Refuse commands that would silence capture of an attached table, even from the table's owner.

    It is made of event triggers, so a superuser has to switch it on. The embedded server has it from the start.
    """


@guard.command
def on() -> None:
    """Make the event triggers; again and again without harm."""
    from clarion.app import open_database
    from clarion.capture.guard import turn_on
    from clarion.database.check import connect

    with open_database(load_settings()) as address, connect(address) as connection:
        turn_on(connection)
    click.echo("the guard is on", err=True)


@guard.command
def off() -> None:
    """Take the event triggers away. From then on `clarion doctor` and the server find what happened, no more."""
    from clarion.app import open_database
    from clarion.capture.guard import turn_off
    from clarion.database.check import connect

    with open_database(load_settings()) as address, connect(address) as connection:
        turn_off(connection)
    click.echo("the guard is off", err=True)


@guard.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Whether the guard is on, and whether a window of break-glass is open."""
    from clarion.app import open_database
    from clarion.capture.guard import current_window, is_on
    from clarion.database.check import connect

    with open_database(load_settings()) as address, connect(address) as connection:
        guarding, window = is_on(connection), current_window(connection)
    if as_json:
        print_json({"on": guarding, "breakGlass": _shown(window)})
        return
    click.echo(f"the guard is {'on' if guarding else 'off'}")
    if window is not None:
        click.echo(_sentence(window))


@click.command
@click.option("--reason", help="Why; it is recorded.")
@click.option("--minutes", type=click.IntRange(1, 24 * 60), default=30, show_default=True, help="How long at most.")
@click.option("--close", "closing", is_flag=True, help="End the open window.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def break_glass(reason: str | None, minutes: int, *, closing: bool, as_json: bool) -> None:
    """Open a window in which the guard lets through what it would refuse, for restores and migrations.

    Who opened it, why and until when is recorded, and so is what it lets through. It needs no superuser, only the rights of
    Clarion's owner role. It ends by itself. Without options: says whether one is open.
    """
    from clarion.app import open_database
    from clarion.capture.guard import close_window, current_window, is_on, open_window
    from clarion.database.check import connect

    if closing and reason is not None:
        raise click.UsageError("--close and --reason do not go together")
    with open_database(load_settings()) as address, connect(address) as connection:
        window = current_window(connection)
        if closing:
            window = close_window(connection)
        elif reason is not None:
            window = open_window(connection, reason, minutes=minutes)
        guarding = is_on(connection)
    if as_json:
        print_json({"breakGlass": None if closing else _shown(window), "guard": guarding})
    elif closing:
        click.echo(
            "no window was open" if window is None else "the window is closed; `clarion doctor` says what is missing"
        )
    else:
        click.echo("no window is open" if window is None else _sentence(window))
    if reason is not None and not guarding:
        click.echo("the guard is off: nothing was refused before, and nothing is recorded now", err=True)


def _sentence(window: Window) -> str:
    return f"break-glass: open until {_moment(window.until)}, by {window.opened_by}: {window.reason}"


def _shown(window: Window | None) -> dict[str, object] | None:
    if window is None:
        return None
    return {
        "id": window.id,
        "openedAt": _moment(window.opened_at),
        "until": _moment(window.until),
        "reason": window.reason,
        "openedBy": window.opened_by,
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
