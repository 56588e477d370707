"""WebhookSender: follows the results for each webhook, and sends what it asks for until it is taken or given up."""

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from datetime import timedelta

import aiohttp
import asyncpg

from database.deliveries import Delivery, PostgresDeliveries
from database.engine import FAILURES
from service.webhooks.endpoint import Answer, Endpoint
from service.webhooks.settings import WebhookSettings
from trading.clock import Clock

log = logging.getLogger(__name__)

RETRY_S = (5.0, 20.0, 80.0, 320.0, 1280.0, 3600.0)
LOOK_S = 1.0
BEGIN_S = 6 * 3600.0
MARGIN_S = 5.0
TELL_EVERY_S = 60.0
OLDEST = timedelta(days=1)
GONE = 410


class WebhookSender:
    """Sends to every webhook of the settings, each by itself: one that is away holds up no other.

    Raises SettingsError where a webhook's secret is missing. Several processes share the work. A message is sent at
    least once, with the same id each time: whoever gets it may get it again after a crash.
    """

    def __init__(
        self, hooks: Sequence[WebhookSettings], pool: asyncpg.Pool, clock: Clock, retry_s: Sequence[float] = RETRY_S
    ) -> None:
        self._lines = [Line(Endpoint.of(hook), pool, clock, retry_s) for hook in hooks]
        self._running: list[asyncio.Task[None]] = []

    def poke(self) -> None:
        """A result may be there."""
        for line in self._lines:
            line.poke()

    async def run(self) -> None:
        """Send until cancelled, or drained."""
        async with asyncio.TaskGroup() as group:
            self._running = [group.create_task(line.run(), name=f"webhook-{line.name}") for line in self._lines]

    async def drain(self, limit_s: float) -> None:
        """Send what can be sent at once, for at most `limit_s`; the rest stays for the next start."""
        for line in self._lines:
            line.stop()
        if self._running:
            await asyncio.wait(self._running, timeout=limit_s)


class Line:
    """The way to one webhook."""

    def __init__(self, endpoint: Endpoint, pool: asyncpg.Pool, clock: Clock, retry_s: Sequence[float]) -> None:
        self.name = endpoint.hook.name
        self._endpoint = endpoint
        self._deliveries = PostgresDeliveries(pool, self.name)
        self._clock = clock
        self._retry_s = retry_s
        self._work = asyncio.Event()
        self._within = timedelta(seconds=endpoint.hook.timeout_seconds + MARGIN_S)
        self._not_before = 0.0
        self._begun_s = self._told_s = -math.inf
        self._told = False
        self._stopping = self._gone = self._lost = self._away = False

    def poke(self) -> None:
        """A result may be there."""
        self._work.set()

    def stop(self) -> None:
        """End once what is due is sent."""
        self._stopping = True
        self._work.set()

    async def run(self) -> None:
        """Follow and send, until stopped, cancelled or told that nobody is there any more."""
        while not self._gone:
            self._work.clear()
            last = self._stopping
            try:
                await self.send_due()
                self._away = False
            except FAILURES as error:
                self._say_away(error)
                await self._clock.sleep(LOOK_S)
            if last:
                return
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._work.wait()
        except TimeoutError:
            return

    async def send_due(self) -> None:
        """All that can be sent now. Raises one of FAILURES."""
        if self._clock.monotonic() - self._begun_s > BEGIN_S:
            await self._deliveries.begin()
            self._begun_s = self._clock.monotonic()
        async with aiohttp.ClientSession() as session:
            while await self._deliveries.follow(self._endpoint.hook.wants, OLDEST) or await self._send_one(session):
                if self._gone:
                    return

    async def _send_one(self, session: aiohttp.ClientSession) -> bool:
        """The next message; False where none is to be sent now."""
        if self._clock.monotonic() < self._not_before:
            return False
        delivery = await self._deliveries.claim(self._within)
        if delivery is None:
            return False
        answer = await self._endpoint.post(session, delivery.item, delivery.message_id, self._clock.now())
        await self._note(delivery, answer)
        return True

    async def _note(self, delivery: Delivery, answer: Answer) -> None:
        if answer.taken:
            await self._deliveries.end(delivery, "delivered", answer.status, None)
            if self._told:
                log.info(f"webhook {self.name} takes messages again")
            self._lost = self._told = False
        elif answer.status == GONE:
            self._gone = True
            await self._deliveries.give_up("the webhook is gone: it answered 410")
            log.error(f"webhook {self.name} is gone (410): nothing more is sent to it; take it out of the settings")
        elif delivery.attempt >= self._endpoint.hook.max_attempts:
            await self._deliveries.end(delivery, "failed", answer.status, answer.error)
            self._say_lost(delivery, answer)
        else:
            wait_s = self._wait_s(delivery.attempt, answer)
            await self._deliveries.postpone(delivery, timedelta(seconds=wait_s), answer.status, answer.error or "")
            self._say_failing(answer)

    def _wait_s(self, attempt: int, answer: Answer) -> float:
        """How long this message waits; where the webhook says how long, all of its messages do.

        One that says "at once" is not taken at its word: all attempts would be over within a moment.
        """
        if answer.wait_s:
            self._not_before = self._clock.monotonic() + answer.wait_s
            return answer.wait_s
        return self._retry_s[min(attempt, len(self._retry_s)) - 1] * random.uniform(0.8, 1.2)

    def _say_failing(self, answer: Answer) -> None:
        """Once, until it takes messages again; of one that does so every now and then, once a minute."""
        if not self._told and self._clock.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told, self._told_s = True, self._clock.monotonic()
            log.warning(
                f"webhook {self.name} does not take messages; they are tried again", extra={"error": answer.error}
            )

    def _say_lost(self, delivery: Delivery, answer: Answer) -> None:
        if not self._lost:
            self._lost = True
            log.error(
                f"webhook {self.name}: a message was given up; see webhook_deliveries for it and those after it",
                extra={"delivery": delivery.message_id, "attempts": delivery.attempt, "error": answer.error},
            )

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning(
                f"webhook {self.name}: PostgreSQL cannot be reached; messages wait",
                extra={"error": str(error) or type(error).__name__},
            )
