"""The audit trail in PostgreSQL: each process chains its calls by hash; chains are verified, and old calls deleted."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from database.partitions import LONG_S, AnyConnection
from llm_integration.audit_chain import Link, first_link, next_link, redacted

REMEMBERED = 4096
PAGE = 1000
DELETED_AT_ONCE = 5000

CHAINS = "SELECT chain, worker, last_seq, last_hash, pruned_seq, pruned_hash FROM llm_audit_chains ORDER BY started_at"
CHAINED = "SELECT coalesce(sum(last_seq - pruned_seq), 0)::bigint FROM llm_audit_chains"
CALLS = "SELECT * FROM llm_calls WHERE chain = $1 AND seq > $2 ORDER BY seq LIMIT $3"
ORPHANS = """
SELECT count(*) FROM llm_calls WHERE chain IS NOT NULL AND chain NOT IN (SELECT chain FROM llm_audit_chains)
"""
# A chain is cut before its first call that is young enough: what is left of it is whole.
CUT = """cut AS MATERIALIZED (
    SELECT chains.chain, coalesce(
        (SELECT min(seq) FROM llm_calls young
         WHERE young.chain = chains.chain AND young.finished_at >= clock_timestamp() - make_interval(days => $1)) - 1,
        chains.last_seq) AS seq
    FROM llm_audit_chains chains WHERE chains.pruned_seq < chains.last_seq
)"""
PRUNE = f"""
WITH {CUT}, old AS MATERIALIZED (
    SELECT call.chain, call.seq, call.hash FROM cut JOIN llm_calls call USING (chain)
    WHERE call.seq <= cut.seq ORDER BY call.chain, call.seq LIMIT $2
), deleted AS (
    DELETE FROM llm_calls call USING old WHERE call.chain = old.chain AND call.seq = old.seq
), pruned AS (
    UPDATE llm_audit_chains chains SET pruned_seq = last.seq, pruned_hash = last.hash
    FROM (SELECT DISTINCT ON (chain) chain, seq, hash FROM old ORDER BY chain, seq DESC) last
    WHERE chains.chain = last.chain AND chains.pruned_seq < last.seq
)
SELECT count(*) FROM old
"""
PRUNE_UNCHAINED = """
DELETE FROM llm_calls call USING (
    SELECT id, started_at FROM llm_calls
    WHERE chain IS NULL AND finished_at < clock_timestamp() - make_interval(days => $1) LIMIT $2) old
WHERE call.id = old.id AND call.started_at = old.started_at
"""
PRUNE_TABLES = f"""
WITH {CUT}, old AS MATERIALIZED (
    {{tables}}
), kept AS (
    SELECT FROM old WHERE finished_at >= clock_timestamp() - make_interval(days => $1)
    UNION ALL
    SELECT FROM old JOIN cut USING (chain) WHERE old.seq > cut.seq
), pruned AS (
    UPDATE llm_audit_chains chains SET pruned_seq = last.seq, pruned_hash = last.hash
    FROM (SELECT DISTINCT ON (chain) chain, seq, hash FROM old ORDER BY chain, seq DESC) last
    WHERE chains.chain = last.chain AND chains.pruned_seq < last.seq AND NOT EXISTS (SELECT FROM kept)
)
SELECT NOT EXISTS (SELECT FROM kept)
"""


def untold(calls: int) -> None:
    """Nobody wants to know how far it is."""


class CallChain:
    """This process's chain of calls. What is linked counts once it is committed: `advance` says so."""

    def __init__(self, redact: str = "nothing") -> None:
        self.id = uuid4()
        self._redact = redact
        self._link = first_link(str(self.id))
        self._stored: OrderedDict[UUID, None] = OrderedDict()

    def link(self, records: Sequence[bytes]) -> tuple[list[bytes], Link]:
        """Calls, given as JSON, with their places in the chain; and the place of the last. Known ones are left out."""
        linked: list[bytes] = []
        link, seen = self._link, set()
        for line in records:
            record = redacted(orjson.loads(line), self._redact)
            call_id = UUID(record["id"])
            if call_id in self._stored or call_id in seen:
                continue
            seen.add(call_id)
            link = next_link(link, record)
            linked.append(orjson.dumps({**record, "chain": str(self.id), "seq": link.number, "hash": link.hash}))
        return linked, link

    def advance(self, linked: Sequence[bytes], link: Link) -> None:
        """These are stored: the chain goes on from here."""
        self._link = link
        for line in linked:
            self._stored[UUID(orjson.loads(line)["id"])] = None
        while len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found: chains and calls looked at, calls deleted by age, and faults, a sentence each."""

    chains: int
    calls: int
    pruned: int
    faults: Sequence[str]


async def verify(pool: asyncpg.Pool, told: Callable[[int], None] = untold, most_faults: int = 20) -> Verified:
    """Follow every chain through `llm_calls`; each call's content and place must be those of its writing.

    All is read as it stood at one moment: a daemon beside goes on writing. `told` hears how many calls were followed.
    """
    faults: list[str] = []
    calls = pruned = 0
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        chains = await connection.fetch(CHAINS)
        for chain in chains:
            pruned += chain["pruned_seq"]
            async for fault in _follow(connection, chain):
                if fault is None:
                    calls += 1
                    told(calls)
                elif len(faults) < most_faults:
                    faults.append(fault)
        orphans = await connection.fetchval(ORPHANS)
    if orphans:
        faults.append(f"{orphans} calls stand in chains that nothing is known of")
    return Verified(len(chains), calls, pruned, faults)


async def _follow(connection: AnyConnection, chain: asyncpg.Record) -> AsyncIterator[str | None]:
    """A None for each call that is as it was written, a sentence for each fault."""
    name = f"chain {chain['chain']} of {chain['worker']}"
    start = first_link(str(chain["chain"]))
    before = Link(chain["pruned_seq"], chain["pruned_hash"] or start.hash)
    while rows := await connection.fetch(CALLS, chain["chain"], before.number, PAGE):
        for row in rows:
            missing = row["seq"] - before.number - 1
            if missing:
                yield f"{name}: {missing} calls are missing before call {row['seq']}, {row['id']}"
            elif next_link(before, _record(row)).hash != row["hash"]:
                yield f"{name}: call {row['seq']}, {row['id']}, is not as it was written"
            else:
                yield None
            before = Link(row["seq"], row["hash"])
    if before.number < chain["last_seq"]:
        yield f"{name}: its last {chain['last_seq'] - before.number} calls are missing"
    elif before.hash != chain["last_hash"] and before.number:
        yield f"{name}: its last call, {before.number}, is not the one that was written"


async def prune(pool: asyncpg.Pool, keep_days: int) -> int:
    """Delete calls that ended more than `keep_days` days ago, a few thousand at a time; how many."""
    deleted: int = 0
    while True:
        chained: int = await pool.fetchval(PRUNE, keep_days, DELETED_AT_ONCE)
        unchained = int((await pool.execute(PRUNE_UNCHAINED, keep_days, DELETED_AT_ONCE)).split()[-1])
        deleted += chained + unchained
        if chained < DELETED_AT_ONCE and unchained < DELETED_AT_ONCE:
            return deleted


async def pruned_with(connection: AnyConnection, tables: Sequence[str], keep_days: int) -> bool:
    """Note in the chains that all calls in `tables`, partitions of `llm_calls`, are gone; False when one has to stay.

    It has to while it is young, or stands behind a young one in its chain.
    """
    calls = " UNION ALL ".join(f"SELECT chain, seq, hash, finished_at FROM {table}" for table in tables)
    noted: bool = await connection.fetchval(PRUNE_TABLES.format(tables=calls), keep_days, timeout=LONG_S)
    return noted


def _record(row: asyncpg.Record) -> dict[str, Any]:
    """A row as it was hashed: its JSON columns read."""
    record = dict(row)
    for name in ("messages", "parameters", "parsed"):
        record[name] = None if record[name] is None else orjson.loads(record[name])
    return record
