"""lock: the run's place, as leases on Prefect's global concurrency limits, and a fencing token from the store.

The lease is taken through the client and not by `concurrency(...)` in the task, because that one
gives it back when the task ends. The flow renews it while its stages run and releases it at its end.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
import msgspec

from autosync.errors import LockTimeout, StaleLock
from autosync.policy import LEASE_SECONDS, LOCK_LIMITS, lock_names
from blocks.processes import current_process
from blocks.store import batches, leases, ledger
from flows.abandoned_leases import AbandonedLeases, forget_others
from flows.log import event
from flows.tasks import async_stage
from flows.workspace import Workspace, now

TIMEOUT = 600.0
SAY_EVERY = 10.0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A place: the lease that holds the limits and the token that the store checks."""

    place: str
    token: int
    lease: str
    state_version: int


async def acquire(workspace: Workspace, name: str, run: str, *, timeout: float = TIMEOUT) -> UUID:
    """A lease on all of AutoSync's limits, in one call and one order.

    While others hold them, leases that dead runs left are released, and who is waited for is said.

    Args:
        name: The lock's name, to say who waits for what.
        timeout: Seconds to wait at most.

    Raises:
        LockTimeout: Another run held them for `timeout` seconds.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder

    names, holder = lock_names(), ConcurrencyLeaseHolder(type="flow_run", id=UUID(run))
    async with get_client() as client:
        abandoned = AbandonedLeases(workspace, client, run)
        started, said, created = time.monotonic(), 0.0, False
        while True:
            try:
                answer = await client.increment_concurrency_slots_with_lease(
                    names, 1, "concurrency", LEASE_SECONDS, holder
                )
                lease, limits = _read(answer)
                if lease is not None and len(limits) == len(names):
                    return lease
                if lease is not None:
                    await client.release_concurrency_slots_with_lease(lease)
                if created:
                    raise LockTimeout(f"the server keeps no limits {names}", where="lock", kept="everything")
                for limit in names:
                    await client.upsert_global_concurrency_limit_by_name(limit, LOCK_LIMITS[limit])
                created = True
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.LOCKED:
                    raise
                if await abandoned.release():
                    continue
                waited = time.monotonic() - started
                if waited >= timeout:
                    raise _timed_out(workspace, run, waited) from None
                if waited >= said:
                    said = waited + SAY_EVERY
                    await asyncio.to_thread(_say_waiting, workspace, name, run, waited)
                pause = min(float(error.response.headers.get("Retry-After", 1)), 2.0)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads waiters, guards nothing


def _timed_out(workspace: Workspace, run: str, waited: float) -> LockTimeout:
    return LockTimeout(
        f"{_holder(workspace, run)} held the locks for {waited:.0f} s",
        where="lock",
        kept="everything; this run wrote nothing",
        todo="see who holds them: autosync status",
    )


def _say_waiting(workspace: Workspace, name: str, run: str, waited: float) -> None:
    """Say who is waited for: in the run's log, in logs/app.log, and on the terminal of a command."""
    from prefect import get_run_logger, runtime

    text = f"waiting for {_holder(workspace, run)}" + (f" ({waited:.0f} s so far)" if waited >= 1 else "")
    event(run, name, text, logging.WARNING)
    get_run_logger().warning(text)
    if runtime.deployment.id is None:
        print(f"autosync: {name}: {text}", file=sys.stderr, flush=True)


def _holder(workspace: Workspace, run: str) -> str:
    """Who holds the locks, as people find it."""
    with workspace.database() as db:
        other = next((row for row in leases.holders(db) if row.lease and row.run != run), None)
    if other is None:
        return "a run of another home or machine on this Prefect server"
    return f"run {other.run} of {other.name} (process {other.process.pid}, for {now() - other.since:.0f} s)"


def _read(answer: httpx.Response) -> tuple[UUID | None, list[Any]]:
    body = answer.json()
    return UUID(body["lease_id"]) if body.get("lease_id") else None, body.get("limits", [])


async def take(workspace: Workspace, name: str, run: str) -> Grant:
    """Take the place of a source: first the limits, then a fencing token that outdates every older run's.

    The process is noted before it asks, so that whenever it dies, the next run knows that its lease is free.
    """
    place = f"source {name}"

    def ask() -> None:
        with workspace.database() as db:
            leases.add_waiter(db, run, place, current_process(), now=now())

    def token(lease: UUID) -> tuple[int, int]:
        with workspace.database() as db:
            leases.note_lease(db, run, str(lease), now=now())
            forget_others(db, run)
            return ledger.grant(db, place, run, now=now()), batches.state(db, name).version

    await asyncio.to_thread(ask)
    granted = False
    try:
        lease = await acquire(workspace, place, run)
        given, version = await asyncio.to_thread(token, lease)
        granted = True
    finally:
        if not granted:
            await asyncio.shield(asyncio.to_thread(_abandon, workspace, run))
    return Grant(place=place, token=given, lease=str(lease), state_version=version)


def _abandon(workspace: Workspace, run: str) -> None:
    """Note that a run no longer waits; a lease that it was given in that very moment is anybody's to release."""
    with workspace.database() as db:
        leases.mark_released(db, run, now=now())


lock_stage = async_stage("lock", "Take the run's place: leases on the global limits, and a fencing token.")(take)


async def release_lease(workspace: Workspace, run: str, grant: Grant) -> None:
    """Release the lease and note that the place is free; an expired lease is fine.

    When the server can't be told, the row stays and the next run releases the lease.
    """
    from prefect.client.orchestration import get_client

    try:
        async with get_client() as client:
            await client.release_concurrency_slots_with_lease(UUID(grant.lease))
        released = True
    except httpx.HTTPError:
        released = False

    def free() -> None:
        with workspace.database() as db:
            ledger.release(db, grant.place, grant.token, now=now())
            if released:
                leases.remove(db, run)
            else:
                leases.mark_released(db, run, now=now())

    await asyncio.to_thread(free)


@asynccontextmanager
async def hold_lease(workspace: Workspace, run: str, grant: Grant) -> AsyncIterator[None]:
    """Keep a place while the stages inside run: renew the lease, and stop when it was lost.

    Raises:
        StaleLock: The lease ran out in between, so that another run may have the place.
    """
    from prefect.client.orchestration import get_client

    lost: list[Exception] = []

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                async with get_client() as client:
                    await client.renew_concurrency_lease(UUID(grant.lease), LEASE_SECONDS)
            except httpx.HTTPStatusError as error:
                lost.append(error)
                return
            except httpx.TransportError:
                continue  # the server may come back before the lease ends; the fencing token guards the store

    renewal = asyncio.create_task(renew())
    try:
        yield
        if lost:
            raise StaleLock("the lease of this run ran out", where="lock", kept="what the stages wrote until now")
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await renewal
        await release_lease(workspace, run, grant)
