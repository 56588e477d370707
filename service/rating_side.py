"""The rating side put together: store, worker and the models it asks."""

import asyncio
import logging
from collections.abc import Sequence

from database.calls import calls_since
from database.listen import listen_forever
from database.results import ResultWriter
from database.takeover import lapse_leases_of_the_dead, worker_name
from database.tasks import PostgresTaskQueue
from llm_integration.calling.compose import Caller, build, key_names
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import LLMProcessor
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.ports import Health
from llm_integration.response_parser import LLMResponseParser
from llm_integration.settings_sources import secret
from llm_integration.signal_formatter import SignalFormatter
from llm_integration.worker import LLMWorker, OnFinal
from service.store_room import StoreRoom
from trading.clock import Clock

log = logging.getLogger(__name__)


class RatingSide:
    """Claims what is owed to signals and rates it."""

    def __init__(
        self, config: LLMConfig, room: StoreRoom, store: SignalMemoryStore, clock: Clock, *, on_final: OnFinal
    ) -> None:
        self._room = room
        self._clock = clock
        self._running: list[asyncio.Task[None]] = []
        keys = {name: secret(variable) for name, variable in key_names(config).items()}
        self.caller: Caller = build(config, clock, keys)
        self.queue = PostgresTaskQueue(
            room.pool,
            ResultWriter(room.pool, clock, worker=worker_name(), redact=config.audit.redact),
            worker=worker_name(),
            max_attempts=config.max_retries,
        )
        self.parser = LLMResponseParser()
        formatter = SignalFormatter(config.lookback_periods, config.indicators_to_include)
        processor = LLMProcessor(config, formatter, self.parser, self.caller.backend, clock)
        self.worker = LLMWorker(config, store, self.queue, processor, clock, on_final)
        self.checked: Sequence[tuple[str, Health]] = ()

    async def prepare(self) -> None:
        """Take up what a dead process left, and remember what the quota has given in the last minute."""
        left = await lapse_leases_of_the_dead(self._room.pool)
        if left:
            log.info("signals that a dead process was rating are taken up again", extra={"count": left})
        self.caller.seed(await calls_since(self._room.pool, 60.0, list(self.caller.limits())))

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; a crash of any part ends the group."""
        self._running = [
            group.create_task(self._rate(), name="worker"),
            group.create_task(listen_forever(self._room.url, self._clock, self.worker.poke), name="listener"),
        ]

    async def _rate(self) -> None:
        """See which models can be used, say so, and rate. Meanwhile the market is watched: a model may be slow."""
        self.checked = await self.caller.check()
        say_who_rates(self.checked)
        await self.worker.run()

    async def drain(self, grace_s: float) -> None:
        """Claim no more; give what is under way `grace_s` to end, and hand the rest back."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if not await self.worker.drain(grace_s):
            log.warning("signals under way were handed back to the queue")

    async def close(self) -> None:
        """Let go of connections and helper processes."""
        await self.caller.close()
        await self.parser.close()


def say_who_rates(checked: Sequence[tuple[str, Health]]) -> None:
    """One line for each model that cannot be used, and one that says which rates."""
    usable = [model for model, health in checked if health.usable]
    instead = f"{usable[0]} rates instead" if usable else "no other model can rate instead"
    for model, health in checked:
        if not health.usable:
            log.warning(f"{model} cannot be used: {health.detail}; {instead}")
    if usable:
        log.info(f"signals are rated by {usable[0]}")
