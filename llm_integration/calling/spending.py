"""What may be spent, over all models of a process: asked before each call that costs money, told after it.

While the ledger is away, calls go by the last figures known of it and what this process has taken since: never open.
What was taken then is written down once the ledger is back.
"""

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from llm_integration.calling.budget_notices import BudgetNotices
from llm_integration.calling.spending_ledger import (
    DAY,
    MONTH,
    NO_LIMITS,
    RUN,
    Entry,
    LedgerAway,
    Limits,
    Outcome,
    SpendingLedger,
    Standing,
    Used,
    overrun,
    period_names,
    resets_at,
)
from llm_integration.calling_config import BudgetSettings
from llm_integration.errors import BudgetExceeded, BudgetUnknown
from trading.clock import Clock

_log = logging.getLogger(__name__)
T = TypeVar("T")
_NAMES = {DAY: "daily", MONTH: "monthly", RUN: "run"}
_MOST_UNWRITTEN = 10_000
_LATE_S = 600.0
_OVERTAKEN = timedelta(seconds=5)


@dataclass(slots=True, eq=False)
class Held:
    """What was reserved for a call. `written`: it is in the ledger; `used`: a call goes on it; `closed`: it is over."""

    entry: Entry
    run_id: str
    written: bool = True
    used: bool = False
    closed: bool = False


class Spending:
    """The budget of `settings`, kept in `ledger`; `run_id` is whose it is where a request names no run.

    The ledger is waited for `wait_s`, and left alone for `away_s` when it did not answer. `share_left` goes by figures
    no older than `fresh_s` while it is asked. One line is logged when a limit is reached; one when calls pass again,
    in a new period or `quiet_s` after the last refusal.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        ledger: SpendingLedger,
        clock: Clock,
        run_id: str,
        *,
        wait_s: float = 1.0,
        away_s: float = 5.0,
        fresh_s: float = 3.0,
        quiet_s: float = 600.0,
    ) -> None:
        self.run_id = run_id
        self.limits = Limits.of(settings)
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._wait_s = wait_s
        self._away_s = away_s
        self._fresh_s = fresh_s
        self._notices = BudgetNotices(clock, skips=self.skips, quiet_s=quiet_s)
        self._known: dict[tuple[str, str], Used] = {}
        self._ahead: timedelta | None = None
        self._learned_at: datetime | None = None
        self._looked_at = -math.inf
        self._ask_from = -math.inf
        self._unwritten: list[Held] = []
        self._untold: list[Outcome] = []
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None

    def change(self, settings: BudgetSettings) -> None:
        """These limits hold from now on; what was spent stays spent."""
        if settings == self._settings:
            return
        self._settings = settings
        self.limits = Limits.of(settings)
        self._notices.change(skips=self.skips)

    @property
    def limited(self) -> bool:
        """Whether any limit is set; where none is, nothing is reserved."""
        return bool(self.limits.usd or self.limits.tokens)

    async def reserve(self, entries: Sequence[Entry], run_id: str | None, lasts_s: float) -> list[Held]:
        """All of the entries or none; hand each back by `settle` or `keep`. Raises BudgetExceeded and BudgetUnknown."""
        run = run_id or self.run_id
        sent: asyncio.Task[tuple[bool, Standing]] | None = None
        passed = None
        if self._clock.monotonic() >= self._ask_from:
            try:
                await self._catch_up()
                sent = self._begin(self._ledger.reserve(run, entries, self.limits, lasts_s))
                passed, standing = await self._ended(sent)
                self._learn(standing)
            except asyncio.CancelledError:
                self._undo(entries, sent)
                raise
            except LedgerAway as away:
                self._leave_alone(away)
        if passed is None:
            return self._decide_alone(run, entries, sent)
        if not passed:
            raise self._refusal(run, entries)
        now = self._now()
        self._notices.passed(now)
        return [Held(replace(entry, taken_at=now), run) for entry in entries]

    async def settle(self, held: Held, usd: Decimal | None, tokens: int | None) -> None:
        """The call ended and came to so much; None where that is not known: the worst case stands."""
        self.keep(held, usd, tokens)
        await self.tell()

    async def tell(self) -> None:
        """Tell the ledger what it was not told yet, if it is there."""
        if self._clock.monotonic() >= self._ask_from:
            try:
                await self._catch_up()
            except LedgerAway as away:
                self._leave_alone(away)

    def keep(self, held: Held, usd: Decimal | None = None, tokens: int | None = None) -> None:
        """As `settle`, without waiting: the ledger is told along with what comes next."""
        if held.closed:
            return
        held.closed = True
        self._untold.append(Outcome(held.entry.id, usd, tokens))
        more_usd = Decimal(0) if usd is None else usd - held.entry.usd
        more_tokens = 0 if tokens is None else tokens - held.entry.tokens
        if not held.written:
            return
        for item in period_names(held.entry.taken_at or self._now(), held.run_id).items():
            if item in self._known:
                known = self._known[item]
                self._known[item] = Used(known.usd + more_usd, known.tokens + more_tokens)

    def share_left(self) -> float | None:
        """The share of `daily_usd` that is left, 0 to 1; None where none is set, or nothing is known yet.

        Asks nobody: where the figures have become old, newer ones are fetched meanwhile.
        """
        limit = self.limits.usd.get(DAY)
        if limit is None:
            return None
        now = self._clock.monotonic()
        if now - self._looked_at > self._fresh_s and now >= self._ask_from and self._looking is None:
            self._looked_at = now
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="budget figures")
        if self._ahead is None:
            return None
        used = self._used(self.run_id)[DAY].usd
        return max(0.0, min(1.0, float(1 - used / limit))) if limit else 0.0

    @property
    def refuses(self) -> str | None:
        """Why calls that cost money are refused at present; None where they are not, as far as is known."""
        return self._notices.at(self._now())

    @property
    def skips(self) -> bool:
        """Whether a signal is skipped where its model's call is refused, in place of asking one that costs nothing."""
        return self._settings.at_limit == "skip"

    async def refresh(self) -> None:
        """Learn what is used, so that there is something to go by should the ledger be away later."""
        if not self.limited:
            return
        try:
            await self._catch_up()
            self._learn(await self._bounded(self._ledger.standing(self.run_id)))
        except LedgerAway as away:
            self._leave_alone(away)

    async def close(self) -> None:
        """Tell the ledger what it was not told yet, if it is there."""
        if self._looking is not None:
            self._looking.cancel()
        if self.limited:
            self._ask_from = -math.inf
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=self._wait_s)
            try:
                await self._catch_up()
            except LedgerAway as away:
                _log.warning("what the last calls cost is not in the budget: %s", away)
        for task in self._tasks:
            task.cancel()

    def _decide_alone(self, run: str, entries: Sequence[Entry], sent: asyncio.Task[Any] | None) -> list[Held]:
        unknown = self._ahead is None or len(self._unwritten) >= _MOST_UNWRITTEN
        if unknown or overrun(self._used(run), self.limits, *_sum(entries)) is not None:
            self._undo(entries, sent)
            if not unknown:
                raise self._refusal(run, entries)
            raise BudgetUnknown("what has been spent is not known; models that cost money wait for the database")
        now = self._now()
        held = [Held(replace(entry, taken_at=now), run, written=False) for entry in entries]
        self._unwritten += held
        return held

    def _undo(self, entries: Sequence[Entry], sent: asyncio.Task[Any] | None) -> None:
        """Whatever of it reaches the ledger all the same is to count nothing. It is told once nothing can come later:
        a ledger does not know what it is told of before that.
        """
        outcomes = [Outcome(entry.id, Decimal(0), 0) for entry in entries]
        if sent is not None:
            sent.add_done_callback(lambda _: self._untold.extend(outcomes))

    def _refusal(self, run: str, entries: Sequence[Entry]) -> BudgetExceeded:
        usd, tokens = _sum(entries)
        found = overrun(self._used(run), self.limits, usd, tokens)
        if found is None:  # what another call gave back came between
            return BudgetExceeded("other calls have just taken what is left of the budget", skip=self.skips)
        limit, more = f"llm.budget.{_NAMES[found.kind]}_{found.unit}", usd if found.unit == "usd" else tokens
        now = self._now()
        at = resets_at(found.kind, now)
        said = f"{limit}: {_said(found.used)} of {_said(found.allowed)} are spent or reserved"
        anew = f"at {at:%Y-%m-%d %H:%M} UTC" if at else "with the next run"
        self._notices.refused(limit, at, now, f"{said}, it starts anew {anew}")
        return BudgetExceeded(
            f"{said}, and this call may take {_said(more)}; it starts anew {anew}",
            retry_after_s=(at - now).total_seconds() if at else None,
            limit=limit,
            used=found.used,
            allowed=found.allowed,
            resets_at=at,
            skip=self.skips,
        )

    def _used(self, run: str) -> dict[str, Used]:
        """What is used by all that is known: the ledger's last figures, and what it was not told of."""
        names = period_names(self._now(), run)
        used = {kind: self._known.get((kind, name), Used()) for kind, name in names.items()}
        outcomes = {outcome.id: outcome for outcome in self._untold} if self._unwritten else {}
        for held in self._unwritten:
            told = outcomes.get(held.entry.id)
            usd = held.entry.usd if told is None or told.usd is None else told.usd
            tokens = held.entry.tokens if told is None or told.tokens is None else told.tokens
            for kind, name in period_names(held.entry.taken_at or self._now(), held.run_id).items():
                if names[kind] == name:
                    used[kind] = Used(used[kind].usd + usd, used[kind].tokens + tokens)
        return used

    def _learn(self, standing: Standing) -> None:
        """Take the ledger's figures over; an answer that was overtaken on its way tells nothing new."""
        self._looked_at = self._clock.monotonic()
        if self._learned_at is not None and timedelta() < self._learned_at - standing.at < _OVERTAKEN:
            return
        names = period_names(standing.at, "")
        kept = {item: used for item, used in self._known.items() if item[0] == RUN or names[item[0]] == item[1]}
        self._known = {**kept, **standing.used}
        self._learned_at, self._ahead = standing.at, standing.at - self._clock.now()

    def _now(self) -> datetime:
        """The time by the ledger's clock, as far as it is known."""
        return self._clock.now().astimezone(UTC) + (self._ahead or timedelta())

    async def _look(self) -> None:
        try:
            await self.refresh()
        finally:
            self._looking = None

    async def _catch_up(self) -> None:
        """Write down what was taken while the ledger was away, then what calls came to; one round trip of each."""
        if not self._unwritten and not self._untold:
            return
        async with self._writing:
            if self._clock.monotonic() < self._ask_from:
                raise LedgerAway("it did not answer a moment ago")
            for run in dict.fromkeys(held.run_id for held in self._unwritten):
                ours = [held for held in self._unwritten if held.run_id == run]
                entries = [held.entry for held in ours]
                _, standing = await self._bounded(self._ledger.reserve(run, entries, NO_LIMITS, _LATE_S))
                for held in ours:
                    held.written = True
                self._unwritten = [held for held in self._unwritten if not held.written]
                self._learn(standing)
            unwritten = {held.entry.id for held in self._unwritten}
            telling = [outcome for outcome in self._untold if outcome.id not in unwritten]
            if telling:
                await self._bounded(self._ledger.settle(telling))
                told = {outcome.id for outcome in telling}
                self._untold = [outcome for outcome in self._untold if outcome.id not in told]

    def _leave_alone(self, away: LedgerAway) -> None:
        self._ask_from = self._clock.monotonic() + self._away_s
        _log.debug("budgets go by the last figures known: %s", away)

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, waited for `wait_s` at most, however long its cancellation takes. Raises LedgerAway."""
        return await self._ended(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name="budget")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _ended(self, task: asyncio.Task[T]) -> T:
        try:
            done, _ = await asyncio.wait([task], timeout=self._wait_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise LedgerAway(f"it did not answer within {self._wait_s:g} s")
        return task.result()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def _sum(entries: Sequence[Entry]) -> tuple[Decimal, int]:
    return sum((entry.usd for entry in entries), Decimal(0)), sum(entry.tokens for entry in entries)


def _said(amount: Decimal | int) -> str:
    return f"{amount:,} tokens" if isinstance(amount, int) else f"${amount:.4f}"
