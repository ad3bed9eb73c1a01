"""Notices as plain readable text on a terminal or in a log: the notifier that needs no account."""

from __future__ import annotations

import re
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from autosync.errors import RemoteError
from autosync.ports import Level, Notice

__all__ = ["ConsoleNotifier"]

_STYLES: dict[Level, str] = {"info": "bold green", "warning": "bold yellow", "error": "bold red"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ConsoleNotifier:
    """Writes each notice to a text stream, in colour where that is a terminal.

    Args:
        stream: Where to write; the process's standard error when left out.
    """

    name = "console"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return "ConsoleNotifier()"

    def send(self, notice: Notice) -> None:
        """Write the notice; a value in it can neither colour the text nor drive the terminal."""
        console = Console(file=self._stream or sys.stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)
        try:
            console.print(_readable(notice), soft_wrap=True)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise RemoteError(
                f"The notice {_clean(notice.title)!r} could not be written: {error}",
                where=self.name,
                todo="see that the terminal or log file is open and the disk has space",
            ) from None

    def check(self) -> None:
        """Prove that the stream is open."""
        if getattr(self._stream or sys.stderr, "closed", False):
            raise RemoteError("The console's stream is closed", where=self.name, todo="start in a terminal")


def _readable(notice: Notice) -> Text:
    text = Text()
    text.append(f"[{notice.level}]", style=_STYLES[notice.level])
    text.append(f" {_clean(' '.join(notice.title.split()))}\n", style="bold")
    for line in notice.text.splitlines():
        text.append(f"  {_clean(line)}\n")
    for label, value in notice.facts:
        text.append(f"  {_clean(label)}: ", style="dim").append(f"{_clean(value)}\n")
    if notice.link:
        text.append(f"  {_clean(notice.link)}\n")
    text.right_crop(1)
    return text


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
