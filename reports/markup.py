"""Any text as Markdown that shows exactly that text: in a sentence, a heading or a table's cell."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Markdown", "as_code", "as_text"]

MARKUP = re.compile(r"[&<>`|\\*\[\]~!#@$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
CODE = re.compile(r"[^`|\\\s](?:[^`|\\]*[^`|\\\s])?")


class Markdown(str):
    """Text that is Markdown already."""


def as_text(value: object) -> Markdown:
    """Text with everything that could begin markup as a character reference, which CommonMark never obeys.

    `_` between letters or digits is harmless and stays readable.
    """
    if isinstance(value, Markdown):
        return value
    return Markdown(MARKUP.sub(lambda found: f"&#{ord(found[0])};", re.sub(r"\s+", " ", str(value)).strip()))


def as_code(value: str, direction: Literal["ltr", "rtl"] = "ltr") -> Markdown:
    """An id as a code span where every dialect reads that alike (no backtick, pipe or backslash), else as text.

    In text that runs from the right it is isolated, so that its own signs stay in place.
    """
    code = f"`{value}`" if CODE.fullmatch(value) else as_text(value)
    return Markdown(f"\u2068{code}\u2069" if direction == "rtl" and value else code)
