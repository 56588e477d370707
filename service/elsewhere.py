"""Verdicts that other processes on the same database make, told here like our own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import orjson

from database.engine import FAILURES, explained, worth_retrying
from database.final_reads import AT_ONCE, Place, final_items, place_now, signals_final_after

if TYPE_CHECKING:
    from service.daemon import Daemon

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
SHARE = 50.0


async def follow_elsewhere(daemon: Daemon, pool: asyncpg.Pool) -> None:
    """Look for them until cancelled, twice a second or so that it takes a fiftieth of the time at most.

    What is stored while PostgreSQL cannot be asked is told when it can; that it is away, others say.
    """
    clock = daemon.clock
    place: Place | None = None
    said = False
    while True:
        began = clock.monotonic()
        try:
            place = place or await place_now(pool)
            ids, behind = await signals_final_after(pool, place)
            others = [signal_id for signal_id in ids if not _is_ours(daemon, signal_id)]
            for item in await final_items(pool, others) if others else ():
                daemon.events.publish("verdict", orjson.loads(item))
            place = behind
            full, said = len(ids) == AT_ONCE, False
        except FAILURES as error:
            full = False
            if not said and not worth_retrying(error):
                said = True
                log.error("verdicts of other processes cannot be told", extra={"error": explained(error)})
        await clock.sleep(0.0 if full else max(LOOK_EVERY_S, SHARE * (clock.monotonic() - began)))


def _is_ours(daemon: Daemon, signal_id: UUID) -> bool:
    """Whether this process has told the result, or is about to: it holds the task until then."""
    known = daemon.store.get(signal_id)
    return daemon.telling.has_told(signal_id) or (known is not None and known.claim is not None)
