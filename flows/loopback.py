"""Free TCP ports of the loopback address."""

from __future__ import annotations

import socket

from autosync.errors import ConfigError


def free_port(wanted: int) -> int:
    """The wanted port when it is free on the loopback, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("no port is free on 127.0.0.1")
