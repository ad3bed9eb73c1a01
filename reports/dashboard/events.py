"""Server-sent events: one `revision` event whenever the store's revision changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from autosync.errors import AutoSyncError

__all__ = ["Pulse"]

EVERY = 1.0
HEARTBEAT = 15.0
MOST_LISTENERS = 200


@dataclass
class Pulse:
    """Tells listeners about new revisions. Looks only while somebody listens, once for all of them."""

    revision: Callable[[], str]
    every: float = EVERY
    listeners: int = 0
    _found: str = ""
    _at: float = float("-inf")

    @property
    def full(self) -> bool:
        """Whether no more listeners are taken."""
        return self.listeners >= MOST_LISTENERS

    async def _look(self) -> str:
        clock = asyncio.get_running_loop().time()
        if clock - self._at >= self.every * 0.9:
            self._at = clock
            with suppress(AutoSyncError):  # busy or being replaced: the next look tells
                self._found = await asyncio.to_thread(self.revision)
        return self._found

    async def listen(self, known: str | None) -> AsyncIterator[str]:
        """The stream for one listener who knows a revision; a comment keeps quiet connections open."""
        self.listeners += 1
        try:
            current = await self._look()
            told = current if known is None else known
            yield "retry: 3000\n\n"
            quiet = 0.0
            while True:
                if current != told:
                    told, quiet = current, 0.0
                    yield f'event: revision\nid: {told}\ndata: {{"revision": "{told}"}}\n\n'
                elif quiet >= HEARTBEAT:
                    quiet = 0.0
                    yield ": quiet\n\n"
                await asyncio.sleep(self.every)
                quiet += self.every
                current = await self._look()
        finally:
            self.listeners -= 1
