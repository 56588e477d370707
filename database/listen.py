"""Word from other processes that there are new tasks: a LISTEN connection of its own, pinged, made again when lost."""

import logging
from collections.abc import Callable

from database.engine import FAILURES, connect, connection_lost, explained, needs_a_person
from database.recorder import TASK_CHANNEL
from trading.clock import Clock

log = logging.getLogger(__name__)

PING_S = 15.0
RETRY_S = 2.0


async def listen_forever(url: str, clock: Clock, on_tasks: Callable[[], None]) -> None:
    """Call `on_tasks` at each notification, until cancelled. Behind it the worker polls, so a lost one is late only."""
    while True:
        try:
            connection = await connect(url)
            try:
                await connection.add_listener(TASK_CHANNEL, lambda *_: on_tasks())
                on_tasks()
                while True:
                    await clock.sleep(PING_S)
                    await connection.execute("SELECT 1", timeout=PING_S)
            finally:
                connection.terminate()
        except FAILURES as error:
            if not (connection_lost(error) or needs_a_person(error)):
                raise
            log.debug("the listening connection was lost", extra={"error": explained(error)})
            await clock.sleep(RETRY_S)
