"""lock: the run's place, as leases on Prefect's global concurrency limits, and a fencing token from the store.

The lease is taken through the client and not by `concurrency(...)` in the task, because that one
gives it back when the task ends. The flow renews it while its stages run and releases it at its end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
import msgspec

from autosync.errors import LockTimeout, StaleLock
from autosync.policy import LEASE_SECONDS, LOCK_LIMITS, lock_names
from blocks.store import batches, ledger
from flows.space import Space, now
from flows.stages.task import async_stage

TIMEOUT = 600.0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A place: the lease that holds the limits and the token that the store checks."""

    place: str
    token: int
    lease: str
    state_version: int


async def acquire(run: str, *, timeout: float = TIMEOUT) -> UUID:
    """A lease on all of AutoSync's limits, in one call and one order.

    Raises:
        LockTimeout: Another run held them for `timeout` seconds.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder

    names = lock_names()
    waited, created = 0.0, False
    async with get_client() as client:
        while True:
            try:
                answer = await client.increment_concurrency_slots_with_lease(
                    names, 1, "concurrency", LEASE_SECONDS, ConcurrencyLeaseHolder(type="flow_run", id=UUID(run))
                )
                lease, limits = _read(answer)
                if lease is not None and len(limits) == len(names):
                    return lease
                if lease is not None:
                    await client.release_concurrency_slots_with_lease(lease)
                if created:
                    raise LockTimeout(f"the server keeps no limits {names}", where="lock", kept="everything")
                for name in names:
                    await client.upsert_global_concurrency_limit_by_name(name, LOCK_LIMITS[name])
                created = True
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.LOCKED:
                    raise
                pause = min(float(error.response.headers.get("Retry-After", 1)), 2.0) * random.uniform(0.5, 1.0)  # noqa: S311  # spreads waiters, guards nothing
                if waited >= timeout:
                    raise LockTimeout(
                        f"another run held the locks for {waited:.0f} s",
                        where="lock",
                        kept="everything; this run wrote nothing",
                        todo="see who holds them: autosync status",
                    ) from None
                waited += pause
                await asyncio.sleep(pause)


def _read(answer: httpx.Response) -> tuple[UUID | None, list[Any]]:
    body = answer.json()
    return UUID(body["lease_id"]) if body.get("lease_id") else None, body.get("limits", [])


async def take(space: Space, name: str, run: str) -> Grant:
    """Take the place of a source: first the limits, then a fencing token that outdates every older run's."""
    lease = await acquire(run)
    place = f"source {name}"

    def token() -> tuple[int, int]:
        with space.database() as db:
            return ledger.grant(db, place, run, now=now()), batches.state(db, name).version

    given, version = await asyncio.to_thread(token)
    return Grant(place=place, token=given, lease=str(lease), state_version=version)


lock_stage = async_stage("lock", "Take the run's place: leases on the global limits, and a fencing token.")(take)


async def give_back(space: Space, grant: Grant) -> None:
    """Release the lease and note that the place is free; an expired lease is fine."""

    from prefect.client.orchestration import get_client

    def done() -> None:
        with space.database() as db:
            ledger.release(db, grant.place, grant.token, now=now())

    await asyncio.to_thread(done)
    with suppress(httpx.HTTPStatusError):
        async with get_client() as client:
            await client.release_concurrency_slots_with_lease(UUID(grant.lease))


@asynccontextmanager
async def kept(space: Space, grant: Grant) -> AsyncIterator[None]:
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
        await give_back(space, grant)
