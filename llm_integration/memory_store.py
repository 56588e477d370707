"""SignalMemoryStore: the signals this process knows of, and where each stands."""

import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from llm_integration.model import Claim, Result, TaskStatus
from trading.clock import Clock
from trading.model import Signal


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """A signal in memory. `claim` is there once this process holds its task, `result` once it is final.

    `changed_at` is monotonic seconds.
    """

    signal: Signal
    status: TaskStatus
    claim: Claim | None
    result: Result | None
    changed_at: float


class SignalMemoryStore:
    """Thread-safe, bounded; add, get and update cost the same however many signals there are.

    Every signal in it is in the journal or PostgreSQL as well, so the store may refuse or forget one without losing
    it: when `max_signals` is met it forgets the oldest finished one, and to make room for a claimed task the oldest
    that is merely pending; what it never forgets is a task this process holds.
    """

    def __init__(self, max_signals: int, clock: Clock) -> None:
        self._max_signals = max_signals
        self._clock = clock
        self._lock = threading.Lock()
        self._signals: dict[UUID, StoredSignal] = {}
        self._pending: OrderedDict[UUID, None] = OrderedDict()
        self._ready: OrderedDict[UUID, None] = OrderedDict()
        self._held: OrderedDict[UUID, None] = OrderedDict()
        self._finished: OrderedDict[UUID, None] = OrderedDict()
        self._ended: Counter[str] = Counter()
        self._ratings: Counter[int] = Counter()
        self._abstained = 0
        self._processing_ms = 0.0
        self._refused = 0

    def __len__(self) -> int:
        return len(self._signals)

    def add(self, signal: Signal) -> bool:
        """Take a new signal; False when it is known already or there is no room: it then stays in PostgreSQL."""
        with self._lock:
            if signal.id in self._signals:
                return False
            if len(self._signals) >= self._max_signals and not self._forget(self._finished):
                self._refused += 1
                return False
            self._put(StoredSignal(signal, TaskStatus.PENDING, None, None, self._clock.monotonic()))
            return True

    def get(self, signal_id: UUID) -> StoredSignal | None:
        """What is known of a signal; None when it is not in memory."""
        with self._lock:
            return self._signals.get(signal_id)

    def room(self) -> int:
        """How many more tasks may be held."""
        with self._lock:
            return self._max_signals - len(self._ready) - len(self._held)

    def hold(self, claim: Claim) -> bool:
        """This process holds the signal's task now: it is ready to be worked on. False when there is no room."""
        with self._lock:
            known = claim.signal.id in self._signals
            full = not known and len(self._signals) >= self._max_signals
            if full and not (self._forget(self._finished) or self._forget(self._pending)):
                return False
            now = self._clock.monotonic()
            self._put(StoredSignal(claim.signal, TaskStatus.PENDING, claim, None, now))
            return True

    def take(self, limit: int) -> list[Claim]:
        """Up to `limit` held tasks, oldest first, now processing."""
        with self._lock:
            taken: list[Claim] = []
            while self._ready and len(taken) < limit:
                entry = self._signals[next(iter(self._ready))]
                if entry.claim is None:
                    raise AssertionError("a ready signal has a claim")
                taken.append(entry.claim)
                self._put(replace(entry, status=TaskStatus.PROCESSING, changed_at=self._clock.monotonic()))
            return taken

    def update(self, signal_id: UUID, result: Result) -> bool:
        """The signal's result is final; False when the signal is not in memory."""
        with self._lock:
            self._ended[result.status] += 1
            self._processing_ms += result.processing_ms
            if result.verdict is not None and result.verdict.rating is not None:
                self._ratings[result.verdict.rating] += 1
            self._abstained += result.abstention is not None
            entry = self._signals.get(signal_id)
            if entry is None:
                return False
            self._put(StoredSignal(entry.signal, result.status, None, result, self._clock.monotonic()))
            return True

    def drop(self, signal_id: UUID) -> None:
        """Forget a signal whose task is not ours any more."""
        with self._lock:
            self._remove(signal_id)

    def waiting(self) -> int:
        """How many held tasks nobody works on yet."""
        with self._lock:
            return len(self._ready)

    def claims(self, *, ready_only: bool = False) -> Sequence[Claim]:
        """The tasks this process holds."""
        with self._lock:
            ids = list(self._ready) if ready_only else [*self._held, *self._ready]
            return [claim for claim in (self._signals[signal_id].claim for signal_id in ids) if claim is not None]

    def clean(self, older_than_s: float) -> int:
        """Forget signals that were final more than `older_than_s` ago; how many."""
        with self._lock:
            limit = self._clock.monotonic() - older_than_s
            old = [
                signal_id for signal_id in self._finished if self._signals[signal_id].changed_at < limit
            ]  # oldest first
            for signal_id in old:
                self._remove(signal_id)
            return len(old)

    def get_stats(self) -> dict[str, Any]:
        """Counts by state, how they ended since the start, average processing time, ratings, memory use.

        `in_memory` counts what is held now; `processed`, `failed`, `ratings` count since the process started.
        """
        with self._lock:
            processed = sum(self._ended.values())
            sample = next(iter(self._signals.values()), None)
            return {
                "in_memory": {
                    "total": len(self._signals), "pending": len(self._pending) + len(self._ready),
                    "processing": len(self._held), "finished": len(self._finished),
                },
                "pending": len(self._pending) + len(self._ready),
                "processing": len(self._held),
                "processed": processed,
                "completed": self._ended[TaskStatus.COMPLETED],
                "failed": self._ended[TaskStatus.FAILED],
                "expired": self._ended[TaskStatus.EXPIRED],
                "skipped": self._ended[TaskStatus.SKIPPED],
                "abstained": self._abstained,
                "average_processing_ms": round(self._processing_ms / processed, 3) if processed else None,
                "rating_distribution": {rating: self._ratings[rating] for rating in range(1, 6)},
                "refused_for_room": self._refused,
                "memory_bytes": len(self._signals) * _size(sample.signal) if sample is not None else 0,
            }  # fmt: skip

    def _put(self, entry: StoredSignal) -> None:
        signal_id = entry.signal.id
        self._remove(signal_id)
        self._signals[signal_id] = entry
        self._queue_of(entry)[signal_id] = None

    def _queue_of(self, entry: StoredSignal) -> OrderedDict[UUID, None]:
        if entry.status.final:
            return self._finished
        if entry.status is TaskStatus.PROCESSING:
            return self._held
        return self._pending if entry.claim is None else self._ready

    def _remove(self, signal_id: UUID) -> None:
        entry = self._signals.pop(signal_id, None)
        if entry is not None:
            self._queue_of(entry).pop(signal_id, None)

    def _forget(self, queue: OrderedDict[UUID, None]) -> bool:
        if not queue:
            return False
        self._remove(next(iter(queue)))
        return True


def _size(signal: Signal) -> int:
    """Roughly what one signal takes in memory, bytes: the sample stands for all."""
    bars = signal.snapshot.bars
    per_bar = sys.getsizeof(bars[0]) + 5 * sys.getsizeof(1.0) + sys.getsizeof(bars[0].open_time) if bars else 0
    fixed = sys.getsizeof(signal) + sys.getsizeof(signal.snapshot.indicators)
    return fixed + len(bars) * per_bar + len(signal.snapshot.indicators) * sys.getsizeof(1.0)
