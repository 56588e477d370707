"""The whole calling side put together over real servers that misbehave by a seed, and what must hold of it at the end.

async with ChainWorld(random.Random(7), quota=40) as world:
    await world.rate(make_signals(30))    # through worker, processor and chain, until each has ended
# leaving closes it and checks that nothing was lost, doubled, passed or left behind
"""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import psutil

from llm_integration.asking import Asker, ChainRater
from llm_integration.batching import Batcher
from llm_integration.calling.cache import MemoryReplies
from llm_integration.calling.compose import Caller, Stores, build
from llm_integration.calling.ledger import Ledger
from llm_integration.calling.ledger import Limits as QuotaLimits
from llm_integration.calling.spending_ledger import Entry, Limits, MemorySpendingLedger, Outcome, Standing
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import LLMProcessor, Postponed, Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Call, Claim, Result, TaskStatus
from llm_integration.panel import Member, Panel
from llm_integration.ports import ChatRequest
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from llm_integration.worker import LLMWorker
from tests.marketdata import make_signal
from tests.memory_queue import MemoryQueue
from tests.mischief import FAULTS, Fault, Mischief
from tests.servers import LlamaServer, OpenRouterServer
from tests.waiting import until
from trading.clock import Clock
from trading.model import Signal

WINDOW_S = 60.0
KEYS = {"openrouter": "sk-or-torture", "openai": "sk-torture"}
PAID = {"openrouter/test/a": {"input_per_million": 1, "output_per_million": 4}}


class HurriedClock:
    """The machine's clock, `speed` times as fast: waits of minutes in seconds, sockets as ever. It can be set ahead."""

    def __init__(self, speed: float = 200.0) -> None:
        self._speed = speed
        self._start = time.monotonic()
        self._ahead_s = 0.0
        self._day_ahead_s = 0.0

    def jump(self, seconds: float, of_day: float) -> None:
        """As after a suspended machine, or a clock that was set: so much later, and the time of day so much other."""
        self._ahead_s += seconds
        self._day_ahead_s += of_day

    def now(self) -> datetime:
        return datetime(2026, 1, 5, 9, 0, tzinfo=UTC) + timedelta(seconds=self.monotonic() + self._day_ahead_s)

    def monotonic(self) -> float:
        return (time.monotonic() - self._start) * self._speed + self._ahead_s

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(0.0, delay_s) / self._speed)


class CheckedSpending(MemorySpendingLedger):
    """A ledger that notes each time a limit was passed by a reservation, and what is still open.

    It settles nothing while `settling` is not set.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.passed: list[str] = []
        self.reserved = 0
        self.settling = asyncio.Event()
        self.settling.set()

    @property
    def open(self) -> int:
        """How many reservations were never settled."""
        return len(self._open)

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        await asyncio.sleep(0)
        fits, standing = await super().reserve(run_id, entries, limits, lasts_s)
        self.reserved += fits
        for (kind, name), used in standing.used.items():
            most = limits.usd.get(kind)
            if fits and most is not None and used.usd > most:
                self.passed.append(f"{kind} {name}: {used.usd} of {most}")
        return fits, standing

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        await asyncio.sleep(0)
        await self.settling.wait()
        await super().settle(outcomes)


def no_shared_quota(backend: str, address: str | None, key: str | None, limits: QuotaLimits) -> Ledger:
    raise AssertionError("the quota of a process needs no shared ledger")


class CheckedProcessor:
    """The processor, and what each of its outcomes must be."""

    def __init__(self, processor: LLMProcessor) -> None:
        self._processor = processor
        self.wrong: list[str] = []

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        processed = await self._processor.process(claims)
        if [id(claim) for claim, _, _ in processed] != [id(claim) for claim in claims]:
            self.wrong.append("the outcomes are not those of the claims, in their order")
        results = [outcome for _, outcome, _ in processed if isinstance(outcome, Result)]
        self._compare(results, [call for _, _, calls in processed for call in calls], len(claims))
        self.wrong += [f"{o.delay} until the next try" for _, o, _ in processed if _is_absurd(o)]
        return processed

    def _compare(self, results: Sequence[Result], calls: Sequence[Call], claims: int) -> None:
        """Where every share is known they add up to what the calls came to."""
        for name in ("prompt_tokens", "completion_tokens", "cost_usd"):
            shares = [getattr(result, name) for result in results]
            whole = [getattr(call, name) for call in calls if getattr(call, name) is not None]
            if len(shares) == claims and None not in shares and sum(shares) != sum(whole):
                self.wrong.append(f"{name}: the shares come to {sum(shares)}, the calls to {sum(whole)}")


def _is_absurd(outcome: Result | Postponed) -> bool:
    return isinstance(outcome, Postponed) and outcome.delay > timedelta(days=2)


class ChainWorld:
    """Two servers and a local one, the whole chain to them, and a queue; leaving it closes it and checks all."""

    def __init__(
        self,
        chance: random.Random,
        *,
        quota: int = 60,
        faults: float = 0.4,
        clock: Clock | None = None,
        stores: Stores | None = None,
        queue: Any = None,
        panel: bool = False,
        samples: int = 1,
        window_s: float = WINDOW_S,
        kinds: Sequence[Fault] | None = None,
        **llm: Any,
    ) -> None:
        self.clock: Clock = clock or HurriedClock()
        self.spending = CheckedSpending(self.clock)
        self.quota = quota
        self._stores = stores or Stores(no_shared_quota, self.spending, MemoryReplies(self.clock))
        self._own_stores = stores is None
        self.paid = Mischief(chance, faults, self.clock, kinds or FAULTS)
        self.other = Mischief(chance, faults, self.clock, kinds or FAULTS)
        self.local = Mischief(chance, faults / 2, self.clock, FAULTS)
        self.queue = queue or MemoryQueue(self.clock)
        self._llm = {"quota_scope": "process", "samples": samples, **llm}
        self._panel = panel
        self._window_s = window_s
        self._stack = AsyncExitStack()
        self.complaints: list[str] = []
        self.calls: list[Call] = []
        self.caller: Caller

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(str(context)))
        listed = [{"id": "test/a"}, {"id": "test/b"}]
        openrouter = await self._stack.enter_async_context(OpenRouterServer((), self.paid, models=listed))
        openai = await self._stack.enter_async_context(OpenRouterServer((), self.other, models=[{"id": "test/c"}]))
        llama = await self._stack.enter_async_context(LlamaServer((), self.local))
        self.servers = [openrouter, openai, llama]
        before = asyncio.all_tasks()
        self.known = before
        members = [
            {"model": "openrouter/test/a", "weight": 2},
            {"model": "openai/test/c"},
            {"model": "llama_cpp/local"},
        ]
        self.config = LLMConfig.model_validate({
            "model": "openrouter/test/a",
            "fallback_models": ["openrouter/test/b", "openai/test/c", "llama_cpp/local"],
            "ensemble": {"members": members if self._panel else []},
            "prices": {**PAID, "openrouter/test/b": {"input_per_million": 0, "output_per_million": 0}},
            "backends": {
                "openrouter": {"base_url": openrouter.base_url, "requests_per_minute": self.quota},
                "openai": {"base_url": openai.base_url, "requests_per_minute": self.quota},
                "llama_cpp": {"base_url": llama.base_url},
            },
            "timeout_seconds": 0.4, "max_tokens": 256, "hedge_after_seconds": 20, "hedge_urgency": 0.2,
            "budget": {"daily_usd": "0.05"}, "poll_interval": 1, "max_batch_signals": 8, "max_concurrency": 16,
            "lookback_periods": 5, **self._llm,
        })  # fmt: skip
        self.caller = build(self.config, self.clock, KEYS, stores=self._stores, run_id="torture")
        self.formatter = SignalFormatter(self.config.lookback_periods, ["rsi"])
        self.parser = LLMResponseParser()
        self.asker = Asker(self.config, self.formatter, self.parser, self.clock, forget=self.caller.forget)
        self.processor = CheckedProcessor(
            LLMProcessor(self.config, self.formatter, self.parser, self.caller.backend, self.clock, rater=self._rater())
        )
        await self.caller.open()
        return self

    def _rater(self) -> Panel | ChainRater:
        chain = ChainRater(self.asker, self.caller.backend, self.config.model, "torture")
        members = [
            Member(each.model, each.weight, self.caller.chain([each.model])) for each in self.config.ensemble.members
        ]
        if not members and self.config.samples == 1:
            return chain
        return Panel(
            self.asker, members or [Member(self.config.model, 1.0, self.caller.backend)], quorum=0.5,
            samples=self.config.samples, reserve=self.caller.reserve, otherwise=chain if members else None,
            run_id="torture",
        )  # fmt: skip

    def worker(self) -> LLMWorker:
        """A worker on the queue."""
        batcher = Batcher(
            self.config, self.clock, self.caller, self.asker.questions.estimate, self.caller.most_tokens,
            self.asker.questions.most_at_once,
        )  # fmt: skip
        return LLMWorker(
            self.config, SignalMemoryStore(1000, self.clock), self.queue, self.processor, self.clock, batcher=batcher
        )

    def request(self, signals: Sequence[Signal], deadline_s: float = 300.0, **fields: Any) -> ChatRequest:
        """A request about signals, as the processor would make it; `fields` go on top."""
        asked = self.asker.questions.request(
            signals, self.asker.questions.about(signals), self.caller.backend, self.config.model,
            deadline=self.clock.monotonic() + deadline_s, sample=0, run_id="torture", priority=0,
            record=self.calls.append,
        )  # fmt: skip
        return replace(asked, **fields)

    def claims(self, signals: Sequence[Signal]) -> list[Claim]:
        """As a queue would hand them out."""
        return [Claim(signal, 1, 1, self.clock.now()) for signal in signals]

    async def rate(self, signals: Sequence[Signal]) -> None:
        """Put them into the queue of this process, and work until each that is there has ended."""
        queue: MemoryQueue = self.queue
        queue.put(signals)
        worker = self.worker()
        running = asyncio.create_task(worker.run())
        try:
            await until(lambda: running.done() or len(queue.results) >= len(queue.tasks))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await worker.drain(10.0)
        if not running.cancelled():
            running.result()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self.caller.close()
            await self.parser.close()
            self.left = self.left_behind()
            if self._own_stores and self.config.quota_scope == "process":
                await self.clock.sleep(WINDOW_S + 1)
        finally:
            await self._stack.aclose()
        if exc[0] is None:
            self._check()

    def left_behind(self) -> list[str]:
        """Tasks and connections of the chain that are still there."""
        tasks = {task for task in asyncio.all_tasks() - self.known if task is not asyncio.current_task()}
        names = [str(task) for task in tasks if not _is_a_servers(task)]
        ports = {urlsplit(server.base_url).port for server in self.servers}
        open_ones = psutil.Process().net_connections("tcp")
        return names + [str(one) for one in open_ones if one.raddr and one.raddr.port in ports and _is_up(one.status)]

    def _check(self) -> None:
        gc.collect()
        found = list(self.complaints)
        found += self.left
        found += self.processor.wrong
        found += self.spending.passed
        if self._own_stores and self.spending.open:
            found.append(f"{self.spending.open} reservations were never settled")
        for name, usage in self.caller.limits().items():
            if usage.waiting:
                found.append(f"{usage.waiting} still wait for the quota of {name}")
            if self.config.quota_scope == "process" and usage.requests:
                found.append(f"{usage.requests} places in the quota of {name} were never let go of")
        for name, seen in (("openrouter", self.paid), ("openai", self.other)):
            most = seen.most_in_a_window(self._window_s)
            if most > self.quota:
                found.append(f"{name} saw {most} requests in {self._window_s:g} s, {self.quota} are allowed")
        if isinstance(self.queue, MemoryQueue):
            found += _in_queue(self.queue)
        assert not found, "\n".join(found)


def _is_a_servers(task: "asyncio.Task[Any]") -> bool:
    """Whether it belongs to a server or a proxy of the tests."""
    return any(name in str(task.get_coro()) for name in ("RequestHandler.", "Proxy."))


def _is_up(status: str) -> bool:
    return status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)


def _in_queue(queue: MemoryQueue) -> list[str]:
    found = []
    counts = Counter(call.id for call in queue.calls)
    found += [f"call {call_id} is there {count} times" for call_id, count in counts.items() if count > 1]
    for task in queue.tasks.values():
        final = task.status not in (TaskStatus.PENDING, TaskStatus.PROCESSING)
        if len(task.results) != int(final):
            found.append(f"{task.signal.id} is {task.status} and has {len(task.results)} results")
        found += [f"{result.error}" for result in task.results if _is_a_crash(result)]
    return found


def _is_a_crash(result: Result) -> bool:
    """Whether a signal ended by something unforeseen rather than by what a model did."""
    head = (result.error or "").partition(":")[0]
    return head.endswith(("Error", "Exception")) and " " not in head


def make_signals(count: int, chance: random.Random | None = None) -> list[Signal]:
    """Different ones, some urgent."""
    chance = chance or random.Random(0)
    return [
        replace(make_signal(number, chance.choice(["BTC/USDT", "ETH/USDT"])), strength=chance.random())
        for number in range(count)
    ]


def unique(calls: Sequence[Call]) -> set[UUID]:
    """The ids of calls."""
    return {call.id for call in calls}
