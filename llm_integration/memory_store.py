"""SignalMemoryStore: the signals this process knows of, and where each stands."""

import heapq
import itertools
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from llm_integration.histogram import Histogram
from llm_integration.model import Claim, DecisionKind, Result, TaskStatus
from llm_integration.urgency import strength_step
from trading.clock import Clock
from trading.model import Bar, Signal

_REFERENCE = 8
_FLOAT = sys.getsizeof(1.0)
_BAR = (
    sys.getsizeof(Bar("", "1m", datetime.now(UTC), 1.0, 1.0, 1.0, 1.0, 1.0, ""))
    + sys.getsizeof(datetime.now(UTC)) + 5 * _FLOAT + _REFERENCE
)  # fmt: skip
_ENTRY = 640
_INDICATOR = 2 * _REFERENCE + _FLOAT + 3 * _REFERENCE
_STEP_S = 30.0
_STALE = 64
AGE_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_Place = tuple[int, float, int, UUID]


class StoredSignal(NamedTuple):
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

    Held tasks are taken in the order of their priority, then of their age, to which each step of a signal's strength
    adds 30 s, as it does where requests wait for the quota: a strong signal goes first, and no weak one waits for ever.
    Suspects among them are kept apart, to be taken one by one.
    """

    def __init__(self, max_signals: int, clock: Clock) -> None:
        self._max_signals = max_signals
        self._clock = clock
        self._lock = threading.Lock()
        self._signals: dict[UUID, StoredSignal] = {}
        self._pending: OrderedDict[UUID, None] = OrderedDict()
        self._ready: OrderedDict[UUID, None] = OrderedDict()
        self._suspects: OrderedDict[UUID, None] = OrderedDict()
        self._places: dict[UUID, _Place] = {}
        self._order: list[_Place] = []
        self._numbers = itertools.count()
        self._held: OrderedDict[UUID, None] = OrderedDict()
        self._finished: OrderedDict[UUID, None] = OrderedDict()
        self._bytes = 0
        self._ended: Counter[str] = Counter()
        self._ratings: Counter[int] = Counter()
        self._decisions: Counter[DecisionKind] = Counter()
        self._abstained = 0
        self._processing_ms = 0.0
        self._timed = 0
        self._refused = 0
        self.ages_s = Histogram(AGE_BOUNDS_S)
        """How old signals were, from their making to the result, when that was final; of those rated here."""

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
            entry = StoredSignal(signal, TaskStatus.PENDING, None, None, self._clock.monotonic())
            self._signals[signal.id] = entry
            self._pending[signal.id] = None
            self._bytes += _size(entry)
            return True

    def get(self, signal_id: UUID) -> StoredSignal | None:
        """What is known of a signal; None when it is not in memory."""
        with self._lock:
            return self._signals.get(signal_id)

    def room(self) -> int:
        """How many more tasks may be held."""
        with self._lock:
            return self._max_signals - len(self._ready) - len(self._suspects) - len(self._held)

    def hold(self, claim: Claim) -> bool:
        """This process holds the signal's task now: it is ready to be worked on. False when there is no room."""
        with self._lock:
            known = claim.signal.id in self._signals
            full = not known and len(self._signals) >= self._max_signals
            if full and not (self._forget(self._finished) or self._forget(self._pending)):
                return False
            self._put(StoredSignal(claim.signal, TaskStatus.PENDING, claim, None, self._clock.monotonic()))
            return True

    def take(self, limit: int) -> list[Claim]:
        """Up to `limit` held tasks, most urgent first, now processing."""
        with self._lock:
            taken: list[Claim] = []
            while self._ready and len(taken) < limit:
                place = heapq.heappop(self._order)
                if self._places.get(place[-1]) == place:
                    taken.append(self._begin(place[-1]))
            return taken

    def take_suspect(self) -> Claim | None:
        """The suspect that has been held longest, now processing; None where there is none."""
        with self._lock:
            return self._begin(next(iter(self._suspects))) if self._suspects else None

    def first(self, limit: int) -> list[Claim]:
        """The tasks that `take` would give, left where they are."""
        with self._lock:
            places = heapq.nsmallest(limit, self._places.values())
            return [self._claim_of(signal_id) for _, _, _, signal_id in places]

    def take_late(self, created_before: datetime) -> list[Claim]:
        """The held tasks that nobody works on yet and that were created by then, now processing."""
        with self._lock:
            waiting = [*self._ready, *self._suspects]
            late = [signal_id for signal_id in waiting if self._claim_of(signal_id).created_at <= created_before]
            return [self._begin(signal_id) for signal_id in late]

    def oldest(self) -> datetime | None:
        """When the oldest of the held tasks that nobody works on yet was created; None where there is none."""
        with self._lock:
            waiting = itertools.chain(self._ready, self._suspects)
            return min((self._claim_of(signal_id).created_at for signal_id in waiting), default=None)

    def update(self, signal_id: UUID, result: Result) -> bool:
        """The signal's result is final; False when the signal is not in memory."""
        with self._lock:
            self._ended[result.status] += 1
            if result.processing_ms is not None:
                self._processing_ms += result.processing_ms
                self._timed += 1
            if result.verdict is not None and result.verdict.rating is not None:
                self._ratings[result.verdict.rating] += 1
            if result.decision is not None:
                self._decisions[result.decision.kind] += 1
            self._abstained += result.abstention is not None
            entry = self._signals.get(signal_id)
            if entry is None:
                return False
            if entry.claim is not None:
                self.ages_s.observe(max(0.0, (self._clock.now() - entry.claim.created_at).total_seconds()))
            self._put(StoredSignal(entry.signal, result.status, None, result, self._clock.monotonic()))
            return True

    def drop(self, claim: Claim) -> None:
        """Forget a task that is not ours any more; a newer claim of the same signal stays."""
        with self._lock:
            entry = self._signals.get(claim.signal.id)
            if entry is not None and entry.claim is not None and entry.claim.token == claim.token:
                self._remove(claim.signal.id)

    def put_back(self, claim: Claim) -> None:
        """The task waits for a later attempt, in nobody's hands."""
        with self._lock:
            entry = self._signals.get(claim.signal.id)
            if entry is not None and entry.claim is not None and entry.claim.token == claim.token:
                self._put(StoredSignal(claim.signal, TaskStatus.PENDING, None, None, self._clock.monotonic()))

    def waiting(self) -> int:
        """How many held tasks nobody works on yet, less the suspects."""
        with self._lock:
            return len(self._ready)

    def suspects(self) -> int:
        """How many of them are suspects."""
        with self._lock:
            return len(self._suspects)

    def claims(self, *, ready_only: bool = False) -> Sequence[Claim]:
        """The tasks this process holds."""
        with self._lock:
            ids = [*self._ready, *self._suspects, *(() if ready_only else self._held)]
            return [claim for claim in (self._signals[signal_id].claim for signal_id in ids) if claim is not None]

    def clean(self, older_than_s: float) -> int:
        """Forget signals that have been final, or pending in nobody's hands here, for longer; how many."""
        with self._lock:
            limit = self._clock.monotonic() - older_than_s
            before = len(self._signals)
            for queue in (self._finished, self._pending):
                while queue and self._signals[next(iter(queue))].changed_at < limit:
                    self._forget(queue)
            return before - len(self._signals)

    def get_stats(self) -> dict[str, Any]:
        """Counts by state, how they ended since the start, average processing time, ratings, memory use.

        `in_memory` counts what is held now; `processed`, `failed`, `ratings` count since the process started.
        `memory_bytes` is estimated, as if no two signals shared a bar.
        """
        with self._lock:
            processed = sum(self._ended.values())
            pending = len(self._pending) + len(self._ready) + len(self._suspects)
            return {
                "in_memory": {
                    "total": len(self._signals), "pending": pending, "processing": len(self._held),
                    "finished": len(self._finished),
                },
                "pending": pending,
                "processing": len(self._held),
                "processed": processed,
                "completed": self._ended[TaskStatus.COMPLETED],
                "failed": self._ended[TaskStatus.FAILED],
                "expired": self._ended[TaskStatus.EXPIRED],
                "skipped": self._ended[TaskStatus.SKIPPED],
                "abstained": self._abstained,
                "average_processing_ms": round(self._processing_ms / self._timed, 3) if self._timed else None,
                "rating_distribution": {rating: self._ratings[rating] for rating in range(1, 6)},
                "decisions": {kind.value: self._decisions[kind] for kind in DecisionKind},
                "refused_for_room": self._refused,
                "memory_bytes": self._bytes,
            }  # fmt: skip

    def _put(self, entry: StoredSignal) -> None:
        signal_id = entry.signal.id
        self._remove(signal_id)
        self._signals[signal_id] = entry
        queue = self._queue_of(entry)
        queue[signal_id] = None
        if queue is self._ready and entry.claim is not None:
            self._queue_up(entry.claim)
        self._bytes += _size(entry)

    def _queue_of(self, entry: StoredSignal) -> OrderedDict[UUID, None]:
        if entry.status.final:
            return self._finished
        if entry.status is TaskStatus.PROCESSING:
            return self._held
        if entry.claim is None:
            return self._pending
        return self._suspects if entry.claim.suspect else self._ready

    def _remove(self, signal_id: UUID) -> None:
        entry = self._signals.pop(signal_id, None)
        if entry is not None:
            self._queue_of(entry).pop(signal_id, None)
            self._places.pop(signal_id, None)
            self._bytes -= _size(entry)

    def _queue_up(self, claim: Claim) -> None:
        """Give a ready task its place; places of those that are not ready any more are left to be passed over."""
        due_s = claim.created_at.timestamp() - _STEP_S * strength_step(claim.signal.strength)
        place = -claim.priority, due_s, next(self._numbers), claim.signal.id
        self._places[claim.signal.id] = place
        if len(self._order) > 2 * len(self._places) + _STALE:
            self._order = sorted(self._places.values())
        else:
            heapq.heappush(self._order, place)

    def _begin(self, signal_id: UUID) -> Claim:
        entry = self._signals[signal_id]
        self._put(entry._replace(status=TaskStatus.PROCESSING, changed_at=self._clock.monotonic()))
        return self._claim_of(signal_id)

    def _claim_of(self, signal_id: UUID) -> Claim:
        claim = self._signals[signal_id].claim
        if claim is None:
            raise AssertionError("a ready signal has a claim")
        return claim

    def _forget(self, queue: OrderedDict[UUID, None]) -> bool:
        if not queue:
            return False
        self._remove(next(iter(queue)))
        return True


def _size(entry: StoredSignal) -> int:
    """Roughly what an entry takes in memory, bytes."""
    snapshot, result = entry.signal.snapshot, entry.result
    size = _ENTRY + len(snapshot.bars) * _BAR + len(snapshot.indicators) * _INDICATOR
    if result is not None and result.verdict is not None:
        size += len(result.verdict.rationale)
    return size
