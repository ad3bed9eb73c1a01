"""Text from data made safe to read: one line, no controls, nothing that turns the text around it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Literal

__all__ = ["MOST_ID", "MOST_TEXT", "clean", "escaped", "isolated"]

Direction = Literal["ltr", "rtl"]
MOST_ID, MOST_TEXT = 160, 600
JOINERS = "\u200c\u200d"  # Persian and Indic words need them


def escaped(sign: str) -> str:
    """A sign as JSON's escapes write it."""
    text = json.dumps(sign)[1:-1]
    return text if text != sign else f"\\u{ord(sign):04x}"


def clean(text: str, most: int = MOST_TEXT) -> str:
    """The text on one line, controls and direction marks escaped, its middle left out when it is too long."""
    line = "".join(escaped(sign) if _harmful(sign) else sign for sign in re.sub(r"\s+", " ", text).strip())
    head = most * 2 // 3
    return line if len(line) <= most else f"{line[:head]}…{line[len(line) - (most - head - 1) :]}"


def isolated(text: str, direction: Direction) -> str:
    """The clean text; where its direction may differ from the sentence's, between Unicode isolates."""
    line = clean(text)
    turns = direction == "rtl" or any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in line)
    return f"\u2068{line}\u2069" if turns else line


def _harmful(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn") and sign not in JOINERS
