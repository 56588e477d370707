"""The recorder: takes bars and signals from the trading loop without making it wait, and ships them at once."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from database.engine import FAILURES, worth_retrying
from database.journal import Journal
from database.records import encode_record, lane_of, received_at, refused_for_content, split_records
from trading.clock import Clock, SteadyClock
from trading.errors import TradentError
from trading.fault_points import passing
from trading.model import Bar, Signal

log = logging.getLogger(__name__)

BATCH = 100
BACKLOG_BATCH = 500
BACKLOG_BYTES = 1_000_000
LANES = 2
ONE_LANE_S = 60.0
LONG_HELD_S = 10.0
RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TASK_CHANNEL = "tradent_tasks"
NOT_SHIPPED: tuple[type[Exception], ...] = (*FAILURES, UnicodeDecodeError)

SHIP = """
WITH given AS MATERIALIZED (
    SELECT * FROM ROWS FROM (json_to_recordset($1::json) AS (
        source text, symbol text, timeframe text, open_time timestamptz, close_time timestamptz, open numeric,
        high numeric, low numeric, close numeric, volume numeric, indicators jsonb, received_at timestamptz))
    WITH ORDINALITY AS bar(source, symbol, timeframe, open_time, close_time, open, high, low, close, volume,
                           indicators, received_at, place)
), newest AS MATERIALIZED (
    SELECT stream.*, (
        SELECT max(bar.open_time) FROM market_data bar
        WHERE (bar.source, bar.symbol, bar.timeframe) = (stream.source, stream.symbol, stream.timeframe)
          AND bar.open_time >= stream.earliest) AS open_time
    FROM (SELECT source, symbol, timeframe, min(open_time) AS earliest FROM given GROUP BY 1, 2, 3) stream
), placed AS MATERIALIZED (
    SELECT given.*, greatest(newest.open_time, max(given.open_time) OVER earlier) AS before
    FROM given LEFT JOIN newest USING (source, symbol, timeframe)
    WINDOW earlier AS (PARTITION BY source, symbol, timeframe ORDER BY place
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), bars AS (
    INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, volume,
                             indicators, received_at)
    SELECT source, symbol, timeframe, open_time, close_time, open, high, low, close, volume, indicators,
           now() - greatest($6 - received_at, interval '0')
    FROM placed WHERE before IS NULL OR open_time > before ORDER BY place
    ON CONFLICT (source, symbol, timeframe, open_time) DO NOTHING
    RETURNING 1
), stored AS (
    INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, origin, snapshot,
                         created_at)
    SELECT s.id, s.source, s.symbol, s.timeframe, s.close_time, s.strategy, s.side, s.strength, s.price,
           coalesce(s.origin, 'loop'), s.snapshot::jsonb, now() - greatest($6 - s.created_at, interval '0')
    FROM ROWS FROM (
        json_to_recordset($2::json) AS (
            id uuid, source text, symbol text, timeframe text, close_time timestamptz, strategy text, side text,
            strength float8, price numeric, origin text, created_at timestamptz),
        unnest($3::text[])
    ) AS s(id, source, symbol, timeframe, close_time, strategy, side, strength, price, origin, created_at, snapshot)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), tasks AS (
    INSERT INTO llm_enhancement_tasks (signal_id, created_at, run_at, expires_at)
    SELECT id, created_at, created_at, created_at + $4::interval FROM stored WHERE $5
    RETURNING 1
)
SELECT (SELECT count(*) FROM bars) AS bars, (SELECT count(*) FROM stored) AS signals,
       (SELECT count(*) FROM tasks) AS tasks,
       (SELECT count(*) FROM placed WHERE open_time < before AND (
           SELECT bar.open_time FROM market_data bar
           WHERE (bar.source, bar.symbol, bar.timeframe, bar.open_time)
               = (placed.source, placed.symbol, placed.timeframe, placed.open_time)) IS NULL) AS late,
       CASE WHEN $5 AND EXISTS (SELECT FROM stored) THEN pg_notify('tradent_tasks', '') END
"""
"""Stores bars ($1) and signals ($2) with their snapshots ($3), and a task each that expires after $4 where $5 says so.

`$6` is now on the clock that the records were stamped with. Only ages come from it: what is stored is on PostgreSQL's
clock. `newest` looks no further back than what is given, so that of a partitioned table only its end is read;
and nothing of it is a join with a table, which a plan made while that was empty would have read from end to end.
"""


@dataclass(slots=True)
class Shipped:
    """What the recorder has brought into PostgreSQL so far, and what it waits for.

    `late` bars are older than the newest of their stream and not stored; `refused` records are set aside because
    PostgreSQL does not take what they hold.
    """

    bars: int = 0
    signals: int = 0
    already_there: int = 0
    late: int = 0
    refused: int = 0
    waiting_since: float | None = None


class Recorder:
    """Journals each bar with its signals, and ships the journal to PostgreSQL in order.

    Times that are stored are the database's: each record's age counts, as the host's monotonic clock measures it, so
    that neither a host whose clock is set nor one that is wrong makes a task early, late or expired.

    `rate` says whether signals get a task; `ttl` is how long a task may wait to be rated, None for ever.
    `on_shipped` is called after each commit that stored something, `on_committed` with the records of every commit.
    `steps` counts what was tried, whatever came of it.
    """

    def __init__(
        self,
        journal: Journal,
        pool: asyncpg.Pool,
        clock: Clock,
        *,
        rate: bool = True,
        ttl: timedelta | None = None,
        on_shipped: Callable[[], None] = lambda: None,
    ) -> None:
        self.shipped = Shipped()
        self.steps = 0
        self._journal = journal
        self._pool = pool
        self._clock = SteadyClock(clock)
        self._rate = rate
        self._ttl = ttl
        self._on_shipped = on_shipped
        self.on_committed: Callable[[Sequence[bytes]], None] | None = None
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._held_since: float | None = None
        self._said: set[str] = set()
        self._oldest: datetime | None = None
        self._failed_s: float | None = None

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        """Take a bar and its signals; returns once they are in the journal. Raises JournalFull."""
        self._journal.append(encode_record(bar, indicators, signals, self._clock.now()))
        passing("journal-appended")
        self._work.set()

    async def room(self) -> None:
        """Wait until the journal has plenty of room; for feeds that can be held up. Said where it takes long."""
        if self.has_room:
            return
        self._held_since = self._clock.monotonic()
        said = False
        try:
            while not self.has_room:
                self._room.clear()
                try:
                    async with asyncio.timeout(LONG_HELD_S):
                        await self._room.wait()
                except TimeoutError:
                    if not said:
                        log.warning(
                            "the market is held up as the journal has no room to spare; bars wait at their source"
                        )
                    said = True
        finally:
            if said:
                log.info("the market is held up no more", extra={"held_s": round(self.held_s, 1)})
            self._held_since = None

    @property
    def has_room(self) -> bool:
        """Whether a feed that can be held up need not be."""
        return self._journal.has_room

    @property
    def held_s(self) -> float:
        """For how long a feed has been held up; 0 where none is."""
        return 0.0 if self._held_since is None else self._clock.monotonic() - self._held_since

    @property
    def oldest_s(self) -> float:
        """How old the oldest record is that is not committed; 0 where all are."""
        if self._oldest is None or self.idle:
            return 0.0
        return max(0.0, (self._clock.now() - self._oldest).total_seconds())

    @property
    def away_s(self) -> float:
        """For how long PostgreSQL has taken nothing; 0 where it does."""
        since = self.shipped.waiting_since
        return 0.0 if since is None else self._clock.monotonic() - since

    @property
    def idle(self) -> bool:
        """Whether everything submitted is committed."""
        return not self._journal.pending_bytes

    async def run(self) -> None:
        """Ship until cancelled."""
        while True:
            if self.idle:
                self._work.clear()
                await self._work.wait()
            await self._ship_next()

    async def drain(self, timeout_s: float) -> bool:
        """Ship what is left, for at most `timeout_s`; False when some stays in the journal for the next start."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.idle:
                    await self._ship_next()
        except TimeoutError:
            return False
        return True

    async def _ship_next(self) -> None:
        lanes = LANES if self._journal.pending_bytes > BACKLOG_BYTES and not self._one_lane else 1
        self.steps += 1
        limit = BATCH if self._journal.pending_bytes <= BACKLOG_BYTES else lanes * BACKLOG_BATCH
        try:
            payloads, position = self._journal.read(limit)
        except OSError as error:
            self._say("read", "the journal cannot be read just now", error)
            await self._clock.sleep(RETRY_S[-1])
            return
        self._said.discard("read")
        if payloads:
            self._oldest = received_at(payloads[0])
            await self._ship_in_lanes(payloads, lanes)
            self._say_back()
        self._journal.commit(position)
        if self.has_room:
            self._room.set()

    @property
    def _one_lane(self) -> bool:
        """Whether something failed lately: as long as PostgreSQL is short of anything, one connection must do."""
        return self._failed_s is not None and self._clock.monotonic() - self._failed_s < ONE_LANE_S

    async def _ship_in_lanes(self, payloads: list[bytes], lanes: int) -> None:
        """All of them; on so many connections at once, each stream on one of them, so that its order is kept."""
        if lanes == 1:
            await self._ship(payloads)
            return
        parts: list[list[bytes]] = [[] for _ in range(lanes)]
        for payload in payloads:
            parts[lane_of(payload, lanes)].append(payload)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                if part:
                    group.create_task(self._ship(part), name="shipping")

    async def _ship(self, payloads: list[bytes]) -> None:
        for attempt in itertools.count():
            self.steps += 1
            try:
                await self._send(payloads)
            except NOT_SHIPPED as error:
                if refused_for_content(error):
                    await self._isolate(payloads, error)
                    return
                self._failed_s = self._clock.monotonic()
                self._say_away(error)
                await self._clock.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            else:
                return

    async def _send(self, payloads: list[bytes]) -> None:
        given = split_records(payloads)
        passing("before-shipping")
        row = await self._pool.fetchrow(
            SHIP, given.bars, given.signals, given.snapshots, self._ttl, self._rate, self._clock.now()
        )
        passing("shipped")
        if row is None:
            raise TradentError("PostgreSQL gave no answer to an insert")
        self.shipped.bars += row["bars"]
        self.shipped.signals += row["signals"]
        self.shipped.late += row["late"]
        self.shipped.already_there += given.bar_count + given.signal_count - row["bars"] - row["signals"] - row["late"]
        if row["late"]:
            log.warning(
                "bars older than the newest of their stream are not stored",
                extra={"count": row["late"], "since_start": self.shipped.late},
            )
        if self.on_committed is not None:
            self.on_committed(payloads)
        if row["bars"] or row["signals"]:
            self._on_shipped()

    async def _isolate(self, payloads: list[bytes], error: Exception) -> None:
        """PostgreSQL refuses the content of one of these: halve until it is alone, and set that one aside."""
        if len(payloads) == 1:
            self.shipped.refused += 1
            self._journal.set_aside(payloads[0], str(error))
            return
        middle = len(payloads) // 2
        await self._ship(payloads[:middle])
        await self._ship(payloads[middle:])

    def _say_away(self, error: BaseException) -> None:
        if self.shipped.waiting_since is None:
            self.shipped.waiting_since = self._clock.monotonic()
        if worth_retrying(error):
            self._say("away", "PostgreSQL cannot be reached; bars and signals wait in the journal", error)
        else:
            message = "PostgreSQL does not take the statement; bars and signals wait in the journal"
            self._say("statement", message, error, logging.ERROR)

    def _say(self, cause: str, message: str, error: BaseException, level: int = logging.WARNING) -> None:
        if cause not in self._said:
            self._said.add(cause)
            log.log(level, message, extra={"error": str(error) or type(error).__name__})

    def _say_back(self) -> None:
        self._said -= {"away", "statement"}
        since, self.shipped.waiting_since = self.shipped.waiting_since, None
        if since is not None:
            log.info("PostgreSQL is back", extra={"away_s": round(self._clock.monotonic() - since, 1)})
