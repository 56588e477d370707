"""What a budget is kept in: how much was spent and is reserved, by day, month and run.

What counts against a limit is what calls cost, and the worst case of those that are under way or whose outcome is not
known: a reservation is counted from the moment it is made, and telling its outcome corrects it. Whoever dies before
that leaves the worst case standing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from llm_integration.calling_config import BudgetSettings
from trading.clock import Clock
from trading.errors import TradentError

DAY, MONTH, RUN = "day", "month", "run"


class LedgerAway(TradentError):
    """The ledger cannot be reached just now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call in the ledger: the most it may cost, USD and tokens in and out. `taken_at` None is now."""

    id: UUID
    model: str
    usd: Decimal
    tokens: int
    taken_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an entry's call came to; None where that is not known, and the worst case stands."""

    id: UUID
    usd: Decimal | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Used:
    """What counts against the limits of one period."""

    usd: Decimal = Decimal(0)
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The most of each period, by its kind; absent is no limit."""

    usd: Mapping[str, Decimal] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: BudgetSettings) -> "Limits":
        """Those of `llm.budget`."""
        usd = {DAY: settings.daily_usd, MONTH: settings.monthly_usd, RUN: settings.run_usd}
        tokens = {DAY: settings.daily_tokens, MONTH: settings.monthly_tokens, RUN: settings.run_tokens}
        return cls(
            {kind: limit for kind, limit in usd.items() if limit is not None},
            {kind: limit for kind, limit in tokens.items() if limit is not None},
        )


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Standing:
    """What was used at `at`, the ledger's own time, by kind and name of period."""

    at: datetime
    used: Mapping[tuple[str, str], Used]


class SpendingLedger(Protocol):
    """Where it is kept. Raises LedgerAway from each of its calls where it cannot be reached."""

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        """Count all the entries or, where they do not fit into every limit, none; and how it stands after that.

        Entries already there are not counted again. After `lasts_s` an outcome is not expected any more.
        """
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Correct what the entries count. Those unknown, or settled already, stay as they are."""
        ...

    async def standing(self, run_id: str) -> Standing:
        """How it stands now."""
        ...


def period_names(at: datetime, run_id: str) -> dict[str, str]:
    """The day, month and run of a time, by kind: 2026-11-20, 2026-11, the run's id."""
    utc = at.astimezone(UTC)
    return {DAY: f"{utc:%Y-%m-%d}", MONTH: f"{utc:%Y-%m}", RUN: run_id}


def resets_at(kind: str, at: datetime) -> datetime | None:
    """When the period that `at` lies in is over; None for a run."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == DAY:
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1) if kind == MONTH else None


@dataclass(frozen=True, slots=True)
class Overrun:
    """The limit that a call does not fit into: its period's kind, `usd` or `tokens`, what is used, what is allowed."""

    kind: str
    unit: str
    used: Decimal | int
    allowed: Decimal | int


def overrun(used: Mapping[str, Used], limits: Limits, usd: Decimal, tokens: int) -> Overrun | None:
    """The first limit, days before months before runs, that so much more would pass; None where it fits."""
    for kind in (DAY, MONTH, RUN):
        so_far, most_usd, most_tokens = used.get(kind, Used()), limits.usd.get(kind), limits.tokens.get(kind)
        if most_usd is not None and so_far.usd + usd > most_usd:
            return Overrun(kind, "usd", so_far.usd, most_usd)
        if most_tokens is not None and so_far.tokens + tokens > most_tokens:
            return Overrun(kind, "tokens", so_far.tokens, most_tokens)
    return None


class MemorySpendingLedger:
    """A ledger that lasts as long as its process: for use without a database."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], Used] = {}
        self._open: dict[UUID, tuple[Entry, str]] = {}

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        """Count all of them or none, and how it stands after that."""
        new = [entry for entry in entries if entry.id not in self._open]
        before = await self.standing(run_id)
        used = {kind: so_far for (kind, _), so_far in before.used.items()}
        usd, tokens = sum((entry.usd for entry in new), Decimal(0)), sum(entry.tokens for entry in new)
        if overrun(used, limits, usd, tokens) is not None:
            return False, before
        for entry in new:
            dated = replace(entry, taken_at=entry.taken_at or before.at)
            self._open[entry.id] = dated, run_id
            self._add(dated, run_id, entry.usd, entry.tokens)
        return True, await self.standing(run_id)

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Correct what the entries count."""
        for outcome in outcomes:
            if outcome.id in self._open:
                entry, run_id = self._open.pop(outcome.id)
                usd = entry.usd if outcome.usd is None else outcome.usd
                tokens = entry.tokens if outcome.tokens is None else outcome.tokens
                self._add(entry, run_id, usd - entry.usd, tokens - entry.tokens)

    async def standing(self, run_id: str) -> Standing:
        """How it stands now."""
        now = self._clock.now()
        return Standing(now, {item: self._used.get(item, Used()) for item in period_names(now, run_id).items()})

    def _add(self, entry: Entry, run_id: str, usd: Decimal, tokens: int) -> None:
        for item in period_names(entry.taken_at or self._clock.now(), run_id).items():
            so_far = self._used.get(item, Used())
            self._used[item] = Used(so_far.usd + usd, so_far.tokens + tokens)
