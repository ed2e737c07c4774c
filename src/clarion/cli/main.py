"""The command `clarion`. Subcommands are imported when they are used, so that `clarion --help` is quick."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import NoReturn

import click

from clarion import __version__
from clarion.core.errors import ClarionError

_INTERRUPTED = 130

# Name of the command: its module and the line that `clarion --help` shows.
COMMANDS = {
    "demo": ("clarion.cli.demo", "Show the whole path live: factory, deliveries, a receiver that verifies."),
    "serve": ("clarion.cli.serve", "Run API, router and delivery."),
    "migrate": ("clarion.cli.database", "Bring the database to this version's schema."),
    "attach": ("clarion.cli.attach", "Capture the changes of tables."),
    "detach": ("clarion.cli.attach", "Stop capturing the changes of a resource."),
    "guard": ("clarion.cli.guard", "Refuse what would silence capture: on, off, status."),
    "break-glass": ("clarion.cli.guard", "Let through, and record, what the guard refuses."),
    "doctor": ("clarion.cli.doctor", "Compare what should be with what is."),
    "receivers": ("clarion.cli.receivers", "List, make, change and test receivers."),
    "subscriptions": ("clarion.cli.subscriptions", "List, try, make and change subscriptions."),
    "events": ("clarion.cli.events", "List, watch, retry and cancel events."),
    "resources": ("clarion.cli.resources", "List, register and change resources."),
    "changes": ("clarion.cli.changes", "List and show the changes in the ledger."),
    "history": ("clarion.cli.history", "List and export who did what, and what was refused."),
    "organisations": ("clarion.cli.organisations", "List and make organisations."),
    "clients": ("clarion.cli.clients", "List, make and change clients of the API."),
    "keys": ("clarion.cli.keys", "Make, list and revoke API keys; encryption and signing keys."),
    "whoami": ("clarion.cli.whoami", "Show whose key it is, and what it lets one do."),
    "egress": ("clarion.cli.egress", "Addresses that requests come from, rules for where they go."),
    "settings": ("clarion.cli.settings", "List the settings and their values."),
    "factory": ("clarion.cli.factory", "Install and run the reference factory."),
}


class _LazyGroup(click.Group):
    """Knows its subcommands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="clarion", message="%(prog)s %(version)s")
@click.option("--no-color", is_flag=True, help="No colours; accepted after any command too. NO_COLOR does the same.")
def cli(*, no_color: bool) -> None:
    """Signed, ordered, audited webhooks for any application on PostgreSQL.

    Settings come from the environment (CLARION_*): `clarion settings` lists them.
    """
    # `main` has taken it out of the arguments already, wherever it stood.
    assert not no_color


def main() -> NoReturn:
    """Runs the command line and ends the process.

    Exit codes: 0; 1 a check failed; 2 usage or setting; 3 the environment refuses; 4 the API refused; 130 interrupted.
    """
    for request in (signal.SIGTERM, signal.SIGHUP):
        # What is open is closed on the way out: the last user of an embedded server stops it.
        if signal.getsignal(request) is signal.SIG_DFL:
            signal.signal(request, lambda number, _: sys.exit(128 + number))
    code = run(sys.argv[1:])
    for request in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # All is done: an interrupt while the interpreter ends must not change the code.
        signal.signal(request, signal.SIG_IGN)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs one command; its exit code comes back. An unexpected error passes through with its traceback."""
    output = sys.stdout
    try:
        result = cli.main(_without_colours(arguments), prog_name="clarion", standalone_mode=False)
    except ClarionError as error:
        click.echo(f"clarion: {error.message}", err=True)
        if error.hint:
            click.echo(f"         {error.hint}", err=True)
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        return _without_reader()
    except SystemExit:
        # click puts another stream in its place and ends so when a command's own write finds no reader; other exits
        # are asked for by a signal.
        if sys.stdout is not output:
            return _without_reader()
        raise
    except Exception as error:
        # What was interrupted may fail once more while it cleans up; the interrupt is the reason all the same.
        if (code := _interrupted_before(error)) is None:
            raise
        return code
    return result if isinstance(result, int) else 0


def _without_reader() -> int:
    """The reader of our output left (`clarion settings | head`). Nothing more can be written, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _interrupted_before(error: BaseException) -> int | None:
    """The exit code of the interrupt during whose handling the error came up; None if there was none."""
    cause = error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return _INTERRUPTED
        if isinstance(cause, SystemExit) and isinstance(cause.code, int):
            return cause.code
        cause = cause.__context__
    return None


def _without_colours(arguments: list[str]) -> list[str]:
    """Takes `--no-color` out wherever it stands before `--`, and says so to us and our children by NO_COLOR."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--no-color" in arguments[:end]:
        os.environ["NO_COLOR"] = "1"
    return [argument for argument in arguments[:end] if argument != "--no-color"] + arguments[end:]


if __name__ == "__main__":
    main()
