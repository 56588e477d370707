"""What other processes on the same database do to signals, told here like our own: verdicts, and retries by hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import orjson

from database.engine import FAILURES, explained, worth_retrying
from database.final_reads import AT_ONCE, Place, finals_after, items_now, place_now
from database.retry_reads import RetriesSeen
from database.takeover import worker_name

if TYPE_CHECKING:
    from service.daemon import Daemon

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
SHARE = 50.0


async def follow_elsewhere(daemon: Daemon, pool: asyncpg.Pool) -> None:
    """Look for it until cancelled, twice a second or so that it takes a fiftieth of the time at most.

    What is stored while PostgreSQL cannot be asked is told when it can; that it is away, others say.
    """
    clock = daemon.clock
    place: Place | None = None
    retries = RetriesSeen(pool, but=worker_name())
    retried: list[UUID] = []
    said = False
    while True:
        began = clock.monotonic()
        try:
            place = place or await place_now(pool)
            retried += await retries.new()
            await tell_retried(daemon, pool, retried)  # before a verdict that came of it
            retried = []
            finals, behind = await finals_after(pool, place)
            others = [each.signal_id for each in finals if daemon.telling.last_told(each.signal_id) != each.finished_at]
            await tell_final(daemon, pool, others)
            place = behind
            full, said = len(finals) == AT_ONCE, False
        except FAILURES as error:
            full = False
            if not said and not worth_retrying(error):
                said = True
                log.error("what other processes do cannot be told", extra={"error": explained(error)})
        await clock.sleep(0.0 if full else max(LOOK_EVERY_S, SHARE * (clock.monotonic() - began)))


async def tell_final(daemon: Daemon, pool: asyncpg.Pool, ids: Sequence[UUID]) -> None:
    """Tell the results of these signals that have not been told."""
    for each in await items_now(pool, ids):
        if each.finished_at is not None:
            daemon.telling.verdict(each.signal_id, each.finished_at, orjson.loads(each.item))


async def tell_retried(daemon: Daemon, pool: asyncpg.Pool, ids: Sequence[UUID]) -> None:
    """Tell how these signals stand, that a person has rated again; nothing where the new verdict was quicker."""
    before = {signal_id: daemon.telling.last_told(signal_id) for signal_id in ids}
    for each in await items_now(pool, ids):
        if each.finished_at is None and daemon.telling.last_told(each.signal_id) == before[each.signal_id]:
            daemon.telling.again(orjson.loads(each.item))
