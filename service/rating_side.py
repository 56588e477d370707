"""The rating side put together: store, worker and the models it asks."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from typing import Any
from uuid import uuid4

from database.calls import calls_since
from database.last_verdicts import LastVerdicts
from database.listen import listen_forever
from database.money import PostgresSpendingLedger, keep_prices
from database.put_off import PostgresPutOff
from database.quota import PostgresLedger, Timing
from database.quota_line import quota_id
from database.reply_cache import PostgresReplies
from database.results import ResultWriter
from database.takeover import lapse_leases_of_the_dead, worker_name
from database.tasks import PostgresTaskQueue
from llm_integration.asking import Asker, ChainRater
from llm_integration.audit_file import AuditFile
from llm_integration.batching import Batcher
from llm_integration.calling.compose import Caller, Stores, build, key_names
from llm_integration.calling.ledger import Limits
from llm_integration.calling.prices import reference_model
from llm_integration.calling_config import SelectiveSettings, split_model
from llm_integration.comeback import Comeback
from llm_integration.config import BackendSettings, LLMConfig
from llm_integration.finishing import OnFinal
from llm_integration.llm_processor import LLMProcessor, Rater
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.panel import Member, Panel
from llm_integration.ports import Health
from llm_integration.response_parser import LLMResponseParser
from llm_integration.selective import SelectiveGate
from llm_integration.settings_sources import secret
from llm_integration.worker import LLMWorker
from service.housekeeping import Chore, call_chores, keep_house
from service.prompts import signal_formatter
from service.store_room import StoreRoom
from trading.clock import Clock, SteadyClock

log = logging.getLogger(__name__)


class RatingSide:
    """Claims what is owed to signals and rates it. Raises SettingsError for a prompt or routes that cannot be."""

    def __init__(
        self, config: LLMConfig, room: StoreRoom, store: SignalMemoryStore, clock: Clock, *, on_final: OnFinal
    ) -> None:
        self._config = config
        self._room = room
        self._clock = clock
        self._running: list[asyncio.Task[None]] = []
        self._file = AuditFile(config.audit.jsonl, config.audit.redact) if config.audit.jsonl else None
        self._run_id = uuid4().hex
        self._callers: list[Caller] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._unchecked: set[str] = set()
        self._keys = _keys(config)
        self.caller = self._build(config, self._keys, None)
        self._callers.append(self.caller)
        writer = ResultWriter(room.pool, clock, worker=worker_name(), redact=config.audit.redact, file=self._file)
        self._steady = steady = SteadyClock(clock)
        self.queue = PostgresTaskQueue(
            room.pool, writer, worker=worker_name(), max_attempts=config.max_retries, clock=steady
        )
        self.parser = LLMResponseParser()
        self._formatter = signal_formatter(config)
        processor, batcher = self._work_by(config, self.caller)
        self.worker = LLMWorker(config, store, self.queue, processor, steady, on_final, batcher)
        self.checked: Sequence[tuple[str, Health]] = ()
        self._checked = asyncio.Event()

    def prepared(self, config: LLMConfig) -> Callable[[], None]:
        """What makes this rate by other settings from the next request on; what is under way ends as it began.

        The prompt, limits of time and what is kept of calls stay as they are. Raises SettingsError where it cannot be.
        """
        keys = _keys(config)
        caller = self._build(config, keys, self.caller)
        processor, batcher = self._work_by(config, caller)

        def swap() -> None:
            well, changed = self.caller.usable(), {name for name, key in keys.items() if key != self._keys.get(name)}
            new = [each for each in caller.models if each not in well or split_model(each)[0] in changed]
            self._unchecked |= set(new)
            caller.begin()
            self._config, self._keys, self.caller = config, keys, caller
            self._callers.append(caller)
            self.queue.limit_attempts(config.max_retries)
            under_way = self.worker.change(config, processor, batcher)
            self._beside(self._take_over(under_way, new), "change of models")

        return swap

    def differs(self, config: LLMConfig) -> bool:
        """Whether these settings, or the keys that they name, are others than those that hold. Raises SettingsError."""
        return config != self._config or _keys(config) != self._keys

    def look_again(self) -> None:
        """See whether what is left alone can be used by now, as somebody may have seen to it."""
        well = self.caller.usable()
        self._beside(self._check([model for model in self.caller.models if model not in well]), "check of models")

    async def prepare(self) -> None:
        """Take up what a dead process left, and remember what the quota has given in the last minute."""
        left = await lapse_leases_of_the_dead(self._room.pool)
        if left:
            log.info("signals that a dead process was rating are taken up again", extra={"count": left})
        if self._config.quota_scope == "process":
            self.caller.seed(await calls_since(self._room.pool, 60.0, self.caller.token_modes()))
        await self.caller.open()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; a crash of any part ends the group."""
        self._running = [
            group.create_task(self._rate(), name="worker"),
            group.create_task(listen_forever(self._room.url, self._clock, self.worker.poke), name="listener"),
            group.create_task(self._keep_house(), name="housekeeper"),
            group.create_task(self._come_back(), name="comeback"),
        ]

    async def _rate(self) -> None:
        """See which models can be used, say so, and rate. Meanwhile the market is watched: a model may be slow."""
        self.checked = await self.caller.check()
        say_who_rates(self.checked)
        self._checked.set()
        await self.worker.run()

    async def _come_back(self) -> None:
        await self._checked.wait()
        await Comeback(PostgresPutOff(self._room.pool), self.worker, self._usable, self._clock).run()

    def _usable(self) -> Set[str]:
        return self.caller.usable() - self._unchecked

    async def _keep_house(self) -> None:
        """Note what models cost, see that calls have partitions to go to, and drop those that are old enough."""
        await self._checked.wait()

        async def note_prices() -> None:
            prices = self.caller.prices()
            await keep_prices(self._room.pool, prices, reference_model(self._config.models, prices))

        chores = [Chore("prices", note_prices), *call_chores(self._room.pool, self._config.audit.keep_days)]
        await keep_house(self._clock, chores)

    async def drain(self, grace_s: float) -> bool:
        """Claim no more; give what is under way `grace_s` to end, and hand the rest back; False where the queue could
        not be told of all of it.
        """
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if not await self.worker.drain(grace_s):
            log.warning("signals under way were handed back to the queue")
        return not self.worker.untold

    async def close(self) -> None:
        """Let go of connections and helper processes."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for caller in self._callers[:-1]:
            await caller.retire([self.caller])
        await self.caller.close()
        await self.parser.close()
        if self._file is not None:
            self._file.close()

    def _build(self, config: LLMConfig, keys: Mapping[str, str | None], before: Caller | None) -> Caller:
        stores = _stores(config, self._room, self._clock)
        return build(config, self._clock, keys, stores=stores, run_id=self._run_id, before=before)

    def _work_by(self, config: LLMConfig, caller: Caller) -> tuple[LLMProcessor, Batcher]:
        """What rates by these settings, and what decides how many signals go into a request."""
        asker = Asker(config, self._formatter, self.parser, self._clock, forget=caller.forget)
        processor = LLMProcessor(
            config,
            self._formatter,
            self.parser,
            caller.backend,
            self._steady,
            rater=_rater(config, asker, caller, self._run_id),
            gate=_gate(config.selective, self._room, self._clock),
        )
        questions = asker.questions
        batcher = Batcher(
            config, self._clock, caller, questions.estimate, caller.most_tokens, questions.most_at_once
        )  # fmt: skip
        return processor, batcher

    async def _take_over(self, under_way: Sequence[asyncio.Task[None]], new: Sequence[str]) -> None:
        """See whether `new` models can be used; once what is under way has ended, let go of what it used."""
        caller = self.caller
        await caller.open()
        await self._check(new)
        if under_way:
            await asyncio.wait(under_way)
        while any(each is caller for each in self._callers[1:]):  # a later change may have been quicker
            old = self._callers.pop(0)
            await old.retire(self._callers)

    async def _check(self, models: Sequence[str]) -> None:
        """See whether these models can be used, and say who rates; nothing where there are none."""
        if not models:
            return
        caller = self.caller
        self._unchecked |= set(models)
        try:
            found = await caller.check(models)
        finally:
            self._unchecked -= set(models)
        self.checked = [each for each in self.checked if each[0] not in models] + found
        say_who_rates(_in_order(caller, self.checked))

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Have it done; `close` waits for nothing of it."""
        task = asyncio.create_task(work, name=name)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _keys(config: LLMConfig) -> Mapping[str, str | None]:
    """The keys that these settings name, by backend. Raises SettingsError where one cannot be read."""
    return {name: secret(variable) for name, variable in key_names(config).items()}


def _in_order(caller: Caller, checked: Sequence[tuple[str, Health]]) -> list[tuple[str, Health]]:
    """What is known of the models that are asked now, first choice first."""
    known = dict(checked)
    return [(model, known[model]) for model in caller.models if model in known]


def _stores(config: LLMConfig, room: StoreRoom, clock: Clock) -> Stores:
    """Quota, budget and kept replies in PostgreSQL, shared with every process that uses it."""

    def ledger(backend: str, address: str | None, key: str | None, limits: Limits) -> PostgresLedger:
        timing = Timing(
            call_s=config.backends.get(backend, BackendSettings()).timeout_seconds or config.timeout_seconds
        )
        return PostgresLedger(room.url, clock, backend, quota_id(backend, address, key), limits, timing=timing)

    return Stores(ledger, PostgresSpendingLedger(room.pool), PostgresReplies(room.pool, clock))


def _gate(settings: SelectiveSettings, room: StoreRoom, clock: Clock) -> SelectiveGate | None:
    """What keeps signals from a call; None where no rule is set."""
    rules = settings.every_n_bars, settings.min_strength, settings.cooldown_seconds, settings.indicator_tolerance
    return SelectiveGate(settings, LastVerdicts(room.pool), clock) if any(rules) else None


def _rater(config: LLMConfig, asker: Asker, caller: Caller, run_id: str) -> Rater:
    """The ensemble, one model several times, or the chain of the settings."""
    chain = ChainRater(asker, caller.backend, config.model, run_id)
    members = [Member(each.model, each.weight, caller.chain([each.model])) for each in config.ensemble.members]
    if not members and config.samples == 1:
        return chain
    return Panel(
        asker,
        members or [Member(config.model, 1.0, caller.backend)],
        quorum=config.ensemble.quorum,
        samples=config.samples,
        reserve=caller.reserve,
        otherwise=chain if members else None,
        run_id=run_id,
    )


def say_who_rates(checked: Sequence[tuple[str, Health]]) -> None:
    """One line for each model that cannot be used, and one that says which rates."""
    usable = [model for model, health in checked if health.usable]
    instead = f"{usable[0]} rates instead" if usable else "no other model can rate instead"
    for model, health in checked:
        if not health.usable:
            log.warning(f"{model} cannot be used: {health.detail}; {instead}")
    if usable:
        log.info(f"signals are rated by {usable[0]}")
