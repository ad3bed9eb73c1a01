"""logs/app.log: the events of every run with its id, rotated, with anything that looks like a secret masked."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

SECRETS = re.compile(
    r"(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|xox[abprs]-[\w-]{10,}|https://hooks\.slack\.com/\S+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?i:(?<=bearer )|(?<=password=)|(?<=token=)|(?<=secret=))[^\s&\"']+)"
)
MAX_BYTES, KEPT = 5_000_000, 5
_log = logging.getLogger("autosync")


def mask(text: str) -> str:
    """The text with tokens, webhook addresses and logins in addresses replaced by ***."""
    return SECRETS.sub("***", text)


class _Masked(logging.Formatter):
    converter = staticmethod(time.gmtime)  # UTC

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def open_log(path: Path) -> None:
    """Send the events of this process to a log file; a second call for the same file does nothing."""
    for handler in list(_log.handlers):
        if isinstance(handler, RotatingFileHandler):
            if handler.baseFilename == str(path):
                return
            _log.removeHandler(handler)
            handler.close()
    with suppress(OSError):  # the store reports an unwritable home; the log must not hide it
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
        handler.setFormatter(_Masked("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        _log.propagate = False


def event(run: str, source: str, text: str, level: int = logging.INFO) -> None:
    """One event of a run."""
    _log.log(level, "run=%s source=%s %s", run, source, text)


def note(program: str, text: str) -> None:
    """A line that a program of `autosync up` wrote to standard error."""
    _log.warning("program=%s %s", program, text)
