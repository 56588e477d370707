"""A quota that all processes on one database and one key share: a Ledger kept in PostgreSQL.

Every ask is one statement, `llm_quota_ask`, under one lock per quota and on the database's clock; only durations cross.
It carries what became of earlier places, so that the log is as this process knows it, and a place is taken by whoever
is next in line only. While PostgreSQL is away a process keeps to its share, which overlaps with nobody else's, for the
time in which nobody else can have a part of it.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID, uuid4

from database.engine import FAILURES, Connection, Record
from database.quota_line import QuotaLine, leave, quota_id, tidy
from database.quota_times import CutOff, ServerTime, Timing
from database.takeover import worker_name
from llm_integration.calling.ledger import Forecast, Limits, MemoryLedger, Share, Used
from llm_integration.calling.window import Entry
from trading.clock import Clock

__all__ = ["PostgresLedger", "Timing", "quota_id"]
log = logging.getLogger(__name__)

ASK = "SELECT * FROM llm_quota_ask($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22)"
SOONEST_S = 0.001


class PostgresLedger:
    """A Ledger for the quota that goes by `quota`; `member` is this process among its members."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        backend: str,
        quota: str,
        limits: Limits,
        *,
        timing: Timing | None = None,
        member: str | None = None,
    ) -> None:
        self.limits = limits
        self.changed: Callable[[], None] = lambda: None
        self._clock = clock
        self._backend = backend
        self._quota = quota
        self._timing = timing = timing or Timing()
        self._member = member or worker_name()
        self._own = MemoryLedger(clock, limits, Share(0.0, 0.0))
        self._ids: dict[Entry, UUID] = {}
        self._untold: dict[UUID, tuple[Entry | None]] = {}
        self._refusal: tuple[float, float] | None = None
        self._wanted: tuple[int, ...] = (1,)
        self._told_at = -math.inf
        self._answer: Record | None = None
        self._answered_at = -math.inf
        self._cut_off = CutOff(timing, timing.call_s + limits.window_s)
        self._time: ServerTime | None = None
        self._away = False
        self._line = QuotaLine(url, timing.ask_s)
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def blocked_until(self) -> float:
        return self._own.blocked_until

    async def open(self) -> None:
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._beat(), name=f"quota beat {self._backend}"),
            loop.create_task(self._tell(), name=f"quota teller {self._backend}"),
        ]
        with contextlib.suppress(*FAILURES):
            await self._line.run(lambda line: tidy(line, self._quota, self._member))
        await self._ask([], [1])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks and not self._away and await self._ask([], [1]) is not None:
            with contextlib.suppress(*FAILURES):
                await self._line.run(lambda line: leave(line, self._quota, [self._member]))
        self._line.drop()

    async def take(self, sizes: Sequence[int]) -> list[Entry] | float:
        await self.open()
        if not self._away:
            ids = [uuid4() for _ in sizes]
            answer = await self._ask(ids, sizes)
            if answer is not None:
                if not answer["granted"]:
                    return self._wait(sizes)
                entries = [Entry(tokens, self._clock.monotonic()) for tokens in sizes]
                for entry, number in zip(entries, ids, strict=True):
                    self._own.add(entry)
                    self._ids[entry] = number
                return entries
            # Whether they were granted is not known: should they have been, they are given back.
            self._untold.update(dict.fromkeys(ids, (None,)))
        return await self._take_of_share(sizes)

    async def look(self, tokens: int) -> float:
        await self.open()
        if not self._away and await self._ask([], [tokens]) is not None:
            return self._wait([tokens])
        at = max(self._clock.monotonic(), await self._own.look(tokens))
        return self._cut_off.usable_at(at, alone=self._alone)

    def settle(self, entry: Entry, used_tokens: int | None, headers_at: float | None) -> None:
        self._own.settle(entry, used_tokens, headers_at)
        self._untold[self._ids[entry]] = (entry,)
        self._has_news()

    def give_back(self, entry: Entry) -> None:
        self._own.give_back(entry)
        self._untold[self._ids.pop(entry)] = (None,)
        self._has_news()

    def refused(self, entry: Entry, retry_after_s: float | None) -> bool:
        first = self._own.refused(entry, retry_after_s)
        reserved_at, until = self._refusal or (-math.inf, -math.inf)
        asked_until = -math.inf if retry_after_s is None else self._clock.monotonic() + retry_after_s
        self._refusal = max(reserved_at, entry.reserved_at), max(until, asked_until)
        self._has_news()
        return first

    def seed(self, entries: Iterable[tuple[float, int]]) -> None:
        """Nothing: the database remembers."""

    def limit(self, limits: Limits) -> None:
        self.limits = limits
        self._own.limit(limits)
        self._has_news()

    def used(self) -> Used:
        answer = self._answer
        if self._away or answer is None:
            return self._own.used()
        return Used(
            answer["used_requests"], answer["used_tokens"], answer["now_requests"] or 0, answer["now_tokens"] or 0
        )

    def room(self, tokens: int) -> int | None:
        if self.limits.none:
            return None
        now, answer = self._clock.monotonic(), self._answer
        if self._away:
            return self._own.room(tokens) if self._cut_off.usable_at(now, alone=self._alone) <= now else 0
        if answer is None or self.blocked_until > now:
            return 0
        by_tokens = None if answer["room_tokens"] is None or not tokens else answer["room_tokens"] // tokens
        room = min((left for left in (answer["room_requests"], by_tokens) if left is not None), default=None)
        soon = answer["again_s"] is not None and self._answered_at + answer["again_s"] <= now
        return None if room is None else max(0, int(room), int(soon and not answer["granted"]))

    def forecast(self) -> Forecast:
        if self._away or self._answer is None:
            return self._own.forecast()
        now, limits = self._clock.monotonic(), self.limits
        surely_at, asked = self._answered_at + self._answer["surely_s"], (len(self._wanted), sum(self._wanted))
        pairs = ((limits.requests, limits.window_s), (limits.short_requests, limits.short_window_s))

        def earliest(places: int, tokens: int) -> float:
            first = max(now, surely_at) if places >= asked[0] and tokens >= asked[1] else now
            return max(first + ((places - 1) // limit * length_s if limit else 0) for limit, length_s in pairs)

        return earliest

    @property
    def _alone(self) -> bool:
        """Whether all of the quota is this process's share."""
        return self._own.share == Share()

    async def _take_of_share(self, sizes: Sequence[int]) -> list[Entry] | float:
        now = self._clock.monotonic()
        at = self._cut_off.usable_at(now, alone=self._alone)
        if at > now:
            return at
        taken = await self._own.take(sizes)
        if not isinstance(taken, float):
            for entry in taken:
                self._ids[entry] = uuid4()
                self._untold[self._ids[entry]] = (entry,)
        return taken

    def _wait(self, sizes: Sequence[int]) -> float:
        """When to ask again for what was just not to be had."""
        self._wanted = tuple(sizes)
        again_s = self._answer["again_s"] if self._answer is not None else None
        self._told_at = math.inf if again_s is None else self._answered_at + again_s
        return self._told_at if not again_s else max(self._told_at, self._clock.monotonic() + SOONEST_S)

    def _has_news(self) -> None:
        self._news.set()
        if self._away:
            self.changed()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._timing.beat_s)
            if self._away:
                await self._come_back()
            else:
                self._news.set()

    async def _tell(self) -> None:
        """Bring news to the database as they come, and hear what has become possible meanwhile."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._away and await self._ask([], self._wanted) is not None:
                self._notice_room()

    def _notice_room(self) -> None:
        """Others may have given room back before the moment that was told."""
        again_s = self._answer["again_s"] if self._answer is not None else None
        if again_s is not None and self._answered_at + again_s < self._told_at - SOONEST_S:
            self._told_at = -math.inf
            self.changed()

    async def _come_back(self) -> None:
        """Try the database again; all that this process has used is entered before anybody relies on the log."""
        if await self._ask([], self._wanted) is not None:
            self._away = False
            log.info("PostgreSQL answers again; the quota of %s is shared with all processes", self._backend)
            self.changed()

    async def _ask(self, ids: Sequence[UUID], sizes: Sequence[int]) -> Record | None:
        """The answer of `llm_quota_ask`; None where there is none in time: from then on the share is used."""
        told: dict[UUID, tuple[Entry | None]] = {}
        refusal: tuple[float, float] | None = None
        held = self._own.share

        self._forget()

        async def ask(line: Connection) -> Record | None:
            nonlocal told, refusal, held
            told, refusal, held = dict(self._untold), self._refusal, self._own.share
            answer, set_s = await self._send(line, self._words(told, refusal, ids, sizes), None)
            if answer["granted"] is None:
                answer, _ = await self._send(line, self._words(told, refusal, ids, sizes), set_s)
            if answer["granted"] is None:
                raise TimeoutError("the clock of PostgreSQL jumps, or its answers come too late")
            return answer

        try:
            answer = await self._line.run(ask)
        except FAILURES as error:
            self._lost(error)
            return None
        assert answer is not None
        for number, state in told.items():
            if self._untold.get(number) is state:
                del self._untold[number]
        if self._refusal is refusal:
            self._refusal = None
        self._adopt(answer)
        return answer

    async def _send(self, line: Connection, words: list[object], set_s: float | None) -> tuple[Record, float | None]:
        """The answer to one statement, and by how much the server's clock was set since the one before.

        The statement does nothing, and grants null, where that was set or it comes late; `set_s` tells it by how much.
        """
        before, sent_at = self._time, self._clock.monotonic()
        self._cut_off.sent_at = sent_at
        expected, epoch = (None, None) if before is None else (before.at_least(sent_at), before.epoch)
        answer = await line.fetchrow(ASK, *words, expected, self._timing.ask_s, epoch, set_s)
        assert answer is not None
        done = answer["granted"] is not None
        if done:
            self._cut_off.heard_after = sent_at
        known = answer["epoch"] if done or epoch is None else epoch
        self._time = ServerTime(answer["now_at"], self._clock.monotonic(), known)
        ahead_s = 0.0 if expected is None else (answer["now_at"] - expected).total_seconds()
        return answer, ahead_s if abs(ahead_s) > 2 * self._timing.ask_s else None

    def _words(
        self,
        told: dict[UUID, tuple[Entry | None]],
        refusal: tuple[float, float] | None,
        ids: Sequence[UUID],
        sizes: Sequence[int],
    ) -> list[object]:
        now, limits, timing, held = self._clock.monotonic(), self.limits, self._timing, self._own.share
        entries = [entry for (entry,) in told.values()]
        refused_s = None if refusal is None else now - refusal[0]
        retry_after_s = None if refusal is None or refusal[1] == -math.inf else max(0.0, refusal[1] - now)
        return [
            self._quota, self._backend, self._member, [held.start, held.end],
            list(told), [entry.tokens if entry else 0 for entry in entries],
            [now - entry.reserved_at if entry else 0.0 for entry in entries],
            [now - entry.counted_at if entry and entry.counted_at is not None else None for entry in entries],
            [entry is None for entry in entries],
            refused_s, retry_after_s, list(ids), list(sizes),
            [limits.requests, limits.tokens, limits.short_requests, limits.short_tokens],
            [limits.window_s, limits.short_window_s],
            self._cut_off.lease_s, timing.silent_s, timing.expelled_s,
        ]  # fmt: skip

    def _adopt(self, answer: Record) -> None:
        now = self._clock.monotonic()
        self._answer, self._answered_at = answer, now
        self._own.share = Share(answer["own_start"], answer["own_end"])
        if self._refusal is None:
            throttle = self._own.throttle
            throttle.blocked_until = -math.inf if answer["blocked_s"] is None else now + answer["blocked_s"]
            throttle.steps = answer["off_steps"]
            throttle.shrunk_at = -math.inf if answer["shrunk_s"] is None else now - answer["shrunk_s"]

    def _lost(self, error: BaseException) -> None:
        if self._away:
            return
        self._away = True
        # A crash may have lost what was told last: all that counts is told again.
        self._untold.update({number: (entry,) for entry, number in self._ids.items()})
        share, limits = self._own.share, self.limits
        log.warning(
            "PostgreSQL does not answer; %s keeps to this process's share of its quota%s: %s requests and %s tokens",
            self._backend, self._share_time(),
            share.of(limits.requests) if limits.requests else "any number of",
            share.of(limits.tokens) if limits.tokens else "any number of",
            extra={"error": str(error) or type(error).__name__},
        )  # fmt: skip
        self.changed()

    def _share_time(self) -> str:
        now = self._clock.monotonic()
        at = self._cut_off.usable_at(now, alone=self._alone)
        if at == math.inf:
            return ", none of which is sure to be free before it answers again"
        free = f"from {at - now:.0f} " if at > now else ""
        return f", {free}{'to' if free else 'for'} {max(0.0, self._cut_off.ends_at - now):.0f} s from now on"

    def _forget(self) -> None:
        """Let go of what counts no more."""
        self._own.used()
        since = self._clock.monotonic() - self.limits.window_s
        for entry in [entry for entry in self._ids if entry.counted_at is not None and entry.counted_at <= since]:
            self._untold.pop(self._ids.pop(entry), None)
