"""Release of leases that dead runs left behind: at once, by their ids, whichever server keeps them.

Waiting is not enough: a lease in memory is lost with its server and its slot stays taken; a temporary server runs no
service that frees expired leases; and where one runs, the next run would wait a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import httpx

from autosync.policy import lock_names
from blocks.processes import current_process, is_dead
from blocks.store import leases, ledger
from blocks.store.leases import LeaseHolder
from blocks.store.schema import Db
from flows.log import event
from flows.prefect_server import lease_folder
from flows.workspace import Workspace, now

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

SETTLE_SECONDS = 3.0  # a server writes the lease a moment after it took the slots


class StoredLease(NamedTuple):
    """A lease as the server keeps it: its id, the run that it was given to, whether it has run out."""

    id: str
    run: str
    expired: bool


def forget_others(db: Db, run: str) -> None:
    """Forget the rows that mean nothing now that a run holds every limit: of former holders and of dead waiters."""
    for row in leases.holders(db):
        if row.run != run and (row.lease or row.released is not None or is_dead(row.process)):
            leases.remove(db, row.run)
            ledger.release_run(db, row.run, now=now())


@dataclass
class AbandonedLeases:
    """What a waiting run releases of others.

    Attributes:
        run: The waiting run's id.
        slots_without_lease_since: Monotonic seconds since which the slots are taken and no lease is there.
    """

    workspace: Workspace
    client: PrefectClient
    run: str
    slots_without_lease_since: float | None = field(default=None, init=False)

    async def release(self) -> bool:
        """Release every lease whose holder is provably gone. Returns whether it makes sense to ask again at once."""
        living, over = await asyncio.to_thread(self._rows)
        stored = await self._stored() if any(row.lease is None for row in over) else []
        by_run = {lease.run: lease.id for lease in stored}
        released = False
        for row in over:
            if await asyncio.to_thread(self._adopt, row):
                lease = row.lease or by_run.get(row.run)
                await self._release_row(row, lease)
                released = released or lease is not None
        return released or await self._release_unknown({row.run for row in living} | {self.run})

    def _rows(self) -> tuple[list[LeaseHolder], list[LeaseHolder]]:
        """The other runs that hold or await a lease: those that may live, and those that are over."""
        with self.workspace.database() as db:
            others = [row for row in leases.holders(db) if row.run != self.run]
        over = [row for row in others if row.released is not None or is_dead(row.process)]
        return [row for row in others if row not in over], over

    def _adopt(self, row: LeaseHolder) -> bool:
        with self.workspace.database() as db:
            return leases.adopt(db, row, current_process())

    async def _release_row(self, row: LeaseHolder, lease: str | None) -> None:
        """Release an adopted row's lease and forget the row; it stays anybody's when the server doesn't answer."""
        try:
            if lease:
                await self.client.release_concurrency_slots_with_lease(UUID(lease))
        except httpx.HTTPError:
            await asyncio.to_thread(self._mark_released, row)
            raise
        await asyncio.to_thread(self._forget, row)

    def _mark_released(self, row: LeaseHolder) -> None:
        with self.workspace.database() as db:
            leases.mark_released(db, row.run, now=now())

    def _forget(self, row: LeaseHolder) -> None:
        with self.workspace.database() as db:
            leases.remove(db, row.run)
            ledger.release_run(db, row.run, now=now())
        why = f"its process {row.process.pid} is gone" if row.released is None else "it ended, and no server took note"
        event(self.run, row.name, f"freed the locks of run {row.run}: {why}")

    async def _release_unknown(self, living: set[str]) -> bool:
        """On a server of this home alone: release expired leases without a row, and slots without a lease.

        An older version wrote no rows. Slots lose their lease when a server dies between taking and noting them.

        Args:
            living: Runs whose leases are their own.
        """
        if lease_folder(self.workspace.home, os.environ) is None:
            return False
        stored = await self._stored()
        expired = [lease for lease in stored if lease.expired and lease.run not in living]
        for lease in expired:
            await self.client.release_concurrency_slots_with_lease(UUID(lease.id))
            event(self.run, "-", f"freed the locks of run {lease.run}: its lease has run out")
        return bool(expired) or (not stored and await self._reset_slots())

    async def _reset_slots(self) -> bool:
        """Empty the limits once they were full without any lease for longer than a server takes to note one."""
        if self.slots_without_lease_since is None:
            self.slots_without_lease_since = time.monotonic()
        if time.monotonic() - self.slots_without_lease_since < SETTLE_SECONDS:
            return False
        from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

        for name in lock_names():
            await self.client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
        event(self.run, "-", "freed the locks: they were taken, and no lease said by whom")
        self.slots_without_lease_since = None
        return True

    async def _stored(self) -> list[StoredLease]:
        """The leases on our limits that a server of this home alone keeps as files; none for any other server."""
        folder = lease_folder(self.workspace.home, os.environ)
        if folder is None:
            return []
        from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

        storage, found = ConcurrencyLeaseStorage(folder), []
        limits = {(await self.client.read_global_concurrency_limit_by_name(name)).id for name in lock_names()}
        for path in folder.glob("*.json"):
            with suppress(ValueError):  # the index of expirations
                lease = await storage.read_lease(UUID(path.stem))
                if lease and limits.intersection(lease.resource_ids):
                    holder = lease.metadata.holder if lease.metadata else None
                    run = str(holder.id) if holder else ""
                    found.append(StoredLease(str(lease.id), run, lease.expiration < datetime.now(UTC)))
        return found
