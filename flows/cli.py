"""The command line `autosync`. Prefect is imported only by the commands that need it."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from autosync.errors import AutoSyncError, Refused

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 0, 1, 2, 3


def exit_status(error: AutoSyncError) -> int:
    """The exit status that an error becomes."""
    from autosync.errors import ConfigError

    if isinstance(error, Refused):
        return EXIT_REFUSED
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def main() -> NoReturn:
    """Run a command; the one place where errors become words and exit statuses."""
    from flows.commands import app

    gc.freeze()  # what was imported stays: looking for garbage in it is in vain
    try:
        app(prog_name="autosync")
    except AutoSyncError as error:
        print(f"autosync: {error}", file=sys.stderr)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(EXIT_DONE)


if __name__ == "__main__":
    main()
