"""What the demo writes for people: colours where they are wanted, plain signs where the terminal knows no others."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from time import monotonic
from typing import TextIO

import click

from clarion.cli.output import colours_wanted

_ASCII = {"→": "->", "✓": "ok", "✗": "NO", "⇒": "=>", "…": "..."}
_WIDTH_UNLIMITED = 100_000


@dataclass(frozen=True, slots=True)
class Terminal:
    """An output stream, and what it can show. `width` is in columns, practically unlimited where there is no screen."""

    stream: TextIO
    colours: bool
    unicode: bool
    width: int

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """The terminal behind a stream, as it is now."""
        encoding = (stream.encoding or "").lower().replace("_", "-")
        width = shutil.get_terminal_size().columns if stream.isatty() else _WIDTH_UNLIMITED
        return cls(stream, colours_wanted(stream), encoding in {"utf-8", "utf8"}, width)

    def plain(self, text: str) -> str:
        """The text with nothing that the terminal cannot show."""
        if self.unicode:
            return text
        for sign, instead in _ASCII.items():
            text = text.replace(sign, instead)
        return text.encode(self.stream.encoding or "ascii", "replace").decode(self.stream.encoding or "ascii")

    def style(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """The text in a colour of click's names, or as it is where colours are not wanted."""
        return click.style(text, fg=colour, bold=bold or None, dim=dim or None) if self.colours else text

    def line(self, text: str = "") -> None:
        """Writes a line at once."""
        click.echo(self.plain(text), file=self.stream, color=self.colours)
        self.stream.flush()


def json_text(value: object, stream: TextIO, *, indent: int | None = None) -> str:
    """A JSON document; what the stream cannot encode is escaped."""
    return json.dumps(value, indent=indent, ensure_ascii=not Terminal.of(stream).unicode)


class Steps:
    """The set-up's steps on standard error, with the seconds that each took."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._terminal = terminal or Terminal.of(sys.stderr)
        self._name = ""
        self._begun = self._started = monotonic()

    def step(self, name: str) -> None:
        """The step before is done, this one begins."""
        self._done()
        self._name, self._begun = name, monotonic()
        if self._terminal.stream.isatty():
            click.echo(self._terminal.plain(f"  {name} …"), file=self._terminal.stream, nl=False)
            self._terminal.stream.flush()

    def finish(self) -> float:
        """All is done; the seconds that it took."""
        self._done()
        return monotonic() - self._started

    def abandon(self) -> None:
        """The step under way failed: what follows begins on a line of its own."""
        if self._name and self._terminal.stream.isatty():
            click.echo(file=self._terminal.stream)
        self._name = ""

    def _done(self) -> None:
        if not self._name:
            return
        returned = "\r" if self._terminal.stream.isatty() else ""
        self._terminal.line(f"{returned}  {self._name:<46} {monotonic() - self._begun:5.1f} s")
        self._name = ""
