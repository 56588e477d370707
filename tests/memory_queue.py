"""The queue's twin in memory: the same rules of tokens, leases and attempts, on an injected clock."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from llm_integration.model import Call, Claim, Result, TaskStatus
from trading.clock import Clock
from trading.model import Signal


@dataclass
class Task:
    """A row of the queue; times are monotonic seconds."""

    signal: Signal
    created_at: datetime
    priority: int = 0
    status: TaskStatus = TaskStatus.PENDING
    run_at: float = 0.0
    attempts: int = 0
    deaths: int = 0
    begun: bool = False
    begun_at: datetime | None = None
    token: int = 0
    lease_until: float = 0.0
    error: str | None = None
    results: list[Result] = field(default_factory=list)


class MemoryQueue:
    """Counts what it is asked, keeps every call, and is `away` when a test says so."""

    failures: tuple[type[Exception], ...] = ()

    def __init__(self, clock: Clock, *, max_attempts: int = 3, lease: timedelta = timedelta(seconds=60)) -> None:
        self.lease = lease
        self.tasks: dict[UUID, Task] = {}
        self.calls: list[Call] = []
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.claim_limits: list[int] = []
        self.extended: list[int] = []
        self.refuse: dict[UUID, int] = {}
        self._clock = clock
        self._most_deaths = max(2, max_attempts)

    def explain(self, error: BaseException, /) -> str:
        return str(error)

    def needs_a_person(self, error: BaseException, /) -> bool:
        return False

    def put(self, signals: Iterable[Signal], priority: int = 0) -> None:
        """Tasks due now."""
        for signal in signals:
            self.tasks[signal.id] = Task(signal, self._clock.now(), priority, run_at=self._clock.monotonic())

    def count(self, status: TaskStatus) -> int:
        return sum(task.status is status for task in self.tasks.values())

    @property
    def results(self) -> list[Result]:
        """Every result stored; one for each task that is final."""
        return [result for task in self.tasks.values() for result in task.results]

    async def claim(self, limit: int) -> Sequence[Claim]:
        self.claim_limits.append(limit)
        await self._reach()
        now = self._clock.monotonic()
        due = [task for task in self.tasks.values() if task.status is TaskStatus.PENDING and task.run_at <= now]
        claims = []
        for task in sorted(due, key=lambda task: (-task.priority, task.run_at))[:limit]:
            task.status, task.lease_until = TaskStatus.PROCESSING, now + self.lease.total_seconds()
            task.begun = False
            task.token += 1
            attempt, suspect = task.attempts - task.deaths + 1, task.deaths + 1 >= self._most_deaths
            claims.append(Claim(task.signal, task.token, attempt, task.created_at, task.priority, suspect))
        return claims

    async def begin(self, claims: Sequence[Claim]) -> set[UUID]:
        await self._reach()
        ours = [task for task in map(self._ours, claims) if task is not None]
        for task in ours:
            task.attempts += not task.begun
            task.begun, task.begun_at, task.status = True, self._clock.now(), TaskStatus.PROCESSING
            task.lease_until = self._clock.monotonic() + self.lease.total_seconds()
        return {task.signal.id for task in ours}

    async def complete(self, claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        await self._reach()
        if self.refuse.get(claim.signal.id, 0) > 0:
            self.refuse[claim.signal.id] -= 1
            raise ValueError("the row is refused")
        self.calls += calls
        task = self._ours(claim)
        if task is None:
            return False
        task.status = result.status
        task.results.append(result)
        return True

    async def retry(self, claim: Claim, delay: timedelta, error: str, calls: Sequence[Call]) -> bool:
        await self._reach()
        self.calls += calls
        task = self._ours(claim)
        if task is None:
            return False
        task.status, task.error = TaskStatus.PENDING, error
        task.run_at = self._clock.monotonic() + delay.total_seconds()
        task.token += 1
        return True

    async def now(self) -> datetime:
        await self._reach()
        return self._clock.now()

    async def bring_forward(self, limit: int, begun_before: datetime) -> int:
        await self._reach()
        now = self._clock.monotonic()
        waiting = [task for task in self.tasks.values() if task.status is TaskStatus.PENDING and task.run_at > now]
        old = [task for task in waiting if task.begun_at is not None and task.begun_at < begun_before]
        found = sorted(old, key=lambda task: (-task.priority, task.run_at))[:limit]
        for task in found:
            task.run_at = now
        return len(found)

    async def extend(self, claims: Sequence[Claim]) -> set[UUID]:
        await self._reach()
        self.extended.append(len(claims))
        ours = [task for task in map(self._ours, claims) if task is not None]
        for task in ours:
            task.deaths -= task.status is TaskStatus.PENDING and task.begun
            task.status = TaskStatus.PROCESSING
            task.lease_until = self._clock.monotonic() + self.lease.total_seconds()
        return {task.signal.id for task in ours}

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._reach()
        for claim in claims:
            task = self._ours(claim)
            if task is not None and task.status is TaskStatus.PROCESSING:
                task.status = TaskStatus.PENDING
                task.token += 1
                task.attempts -= task.begun
                task.begun = False

    async def sweep(self) -> int:
        await self._reach()
        lapsed = [
            task
            for task in self.tasks.values()
            if task.status is TaskStatus.PROCESSING and task.lease_until < self._clock.monotonic()
        ]
        for task in lapsed:
            task.deaths += task.begun
            over = task.begun and task.deaths >= self._most_deaths
            task.status = TaskStatus.FAILED if over else TaskStatus.PENDING
        return len(lapsed)

    async def _reach(self) -> None:
        await self.gate.wait()
        if self.away:
            raise ConnectionError("PostgreSQL is away")

    def _ours(self, claim: Claim) -> Task | None:
        task = self.tasks[claim.signal.id]
        return task if task.token == claim.token and not task.status.final else None
