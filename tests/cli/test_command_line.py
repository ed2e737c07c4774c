"""The reference of the command line names every command that there is, and no other."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clarion.cli.main import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "command-line.md").read_text()


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for part, below in command.commands.items():
            yield from _commands(below, f"{name} {part}")
    else:
        yield name, command


FOUND = {
    name: command
    for top, (module, _) in COMMANDS.items()
    for name, command in _commands(getattr(importlib.import_module(module), top.replace("-", "_")), top)
}


def _usage(name: str, command: click.Command) -> str:
    """As a row of the page begins."""
    context = click.Context(command)
    arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
    return " ".join(["clarion", name, *arguments]).replace("|", r"\|")


def test_every_command_has_its_row_and_its_summary() -> None:
    rows = re.findall(r"^\| `(clarion [^`]+)` \| (.+?) \|$", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(
        (_usage(name, command), command.get_short_help_str(limit=1000)) for name, command in FOUND.items()
    )


EXAMPLES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_understood(example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is parsed by the command that it names; files that it reads are there."""
    monkeypatch.chdir(tmp_path)
    for file in ("token.txt", "condition.cel", "schema.json", "secret.txt"):
        (tmp_path / file).write_text("{}")
    words = shlex.split(example.split(" > ", maxsplit=1)[0].split(" | ", maxsplit=1)[0])
    assert words[0] == "clarion"
    name = max((name for name in FOUND if words[1:][: len(name.split())] == name.split()), key=len)
    arguments = words[1 + len(name.split()) :]
    with FOUND[name].make_context(name, arguments):
        pass


def test_every_command_over_the_api_has_an_example() -> None:
    told = "\n".join(EXAMPLES)
    for name, command in FOUND.items():
        if any(one.name == "key_file" for one in command.params):
            assert f"clarion {name}" in told, name
