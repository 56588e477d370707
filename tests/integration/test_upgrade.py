"""Upgrading a database with everything in it: no row changes, and what people built on the tables goes on standing."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from database import migrate
from database.engine import Connection, connect

BEFORE = "0008"

# Four streams of bars over three years and on into a future that only a simulated market knows; ids and transactions
# of several commits.
BARS = """
INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, volume, indicators,
                         received_at)
SELECT 'replay', 'S' || s, '1d', t, t + interval '1 day', 1.10, 2, 0.5, 1.5, nullif(s, 2), '{"rsi": 31.5}', t
FROM generate_series(1, 4) s,
     generate_series($1::timestamptz - interval '3 years', $1::timestamptz + interval '100 days', interval '1 day') t
ORDER BY t, s
"""
SIGNALS = """
INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot, created_at)
SELECT gen_random_uuid(), source, symbol, timeframe, close_time, 'ma_cross', 'long', 0.5, close, '{"bars": []}',
       close_time
FROM market_data WHERE id % 10 = 0
"""
TASKS = """
INSERT INTO llm_enhancement_tasks (signal_id, status, attempts, token)
SELECT id, (ARRAY['pending', 'processing', 'completed', 'failed'])[row_number() OVER () % 4 + 1], 1, 3 FROM signals
"""
RESULTS = """
INSERT INTO llm_analysis_results (signal_id, status, rating, attempts, finished_at, call_id)
SELECT signal_id, status, CASE status WHEN 'completed' THEN 4 END, 1, now(), gen_random_uuid()
FROM llm_enhancement_tasks WHERE status IN ('completed', 'failed')
"""
CALLS = """
INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, reply,
                       queue_wait_ms, latency_ms, started_at, finished_at, chain, seq, hash)
SELECT coalesce(r.call_id, gen_random_uuid()), ARRAY[s.id], 'rules', 'baseline', 1, 'abc', '[{"role": "user"}]', '{}',
       'yes', 0, 5, s.created_at, s.created_at, '00000000-0000-4000-8000-000000000001',
       row_number() OVER (ORDER BY s.created_at), 'h'
FROM signals s LEFT JOIN llm_analysis_results r ON r.signal_id = s.id
"""
REST = """
INSERT INTO csv_cursors (export_id, file, xid, row_id, byte_offset, row_count, header)
VALUES (gen_random_uuid(), 'llm_signals.csv', '7', 7, 700, 7, 'a,b');
INSERT INTO csv_closed (export_id, file, number, name, day, header, xid, row_id, streams, byte_count, row_count, crc)
SELECT export_id, file, 1, 'llm_signals-2026-11-20.csv.gz', '2026-11-20', 'a,b', '5', 5, '[]', 500, 5, 1
FROM csv_cursors;
INSERT INTO csv_streams (export_id, source, symbol, timeframe, open_time)
SELECT export_id, 'replay', 'S1', '1d', now() FROM csv_cursors;
INSERT INTO llm_quotas (id, backend) VALUES ('q', 'openrouter');
INSERT INTO llm_quota_members (quota_id, member, heard_at, share_start, share_end) VALUES ('q', 'm', now(), 0, 1);
INSERT INTO llm_budget_periods (kind, period, usd) VALUES ('day', '2026-11-20', 1.5);
INSERT INTO llm_budget_reservations (id, model, run_id, taken_at, expires_at, usd, tokens)
VALUES (gen_random_uuid(), 'a/b', 'r', now(), now(), 0.5, 10);
INSERT INTO llm_prices (backend, model, input_usd, output_usd, request_usd, source)
VALUES ('a', 'b', 1, 2, 3, 'config');
INSERT INTO llm_replies (key, reply, expires_at) VALUES ('k', '{}', now());
INSERT INTO llm_audit_chains (chain, worker, last_seq, last_hash)
SELECT chain, 'w', max(seq), 'h' FROM llm_calls GROUP BY chain;
"""
COLUMNS = """
SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attname) AS names
FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND relname <> 'alembic_version'
GROUP BY relname
"""
CONTENT = """
SELECT count(*), md5(string_agg(md5(to_jsonb(t)::text), '' ORDER BY md5(to_jsonb(t)::text))) FROM (SELECT {} FROM {}) t
"""
Content = dict[tuple[str, str], tuple[int, str]]


def this_month() -> datetime:
    return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
async def old(empty_database: str) -> AsyncIterator[tuple[str, Connection]]:
    """A database at the revision before, with rows in every table; its URL and a connection."""
    await migrate.migrate(empty_database, BEFORE)
    connection = await connect(empty_database)
    await connection.execute(BARS.replace("$1::timestamptz", f"'{this_month().isoformat()}'::timestamptz"))
    for statement in (SIGNALS, TASKS, RESULTS, CALLS, REST):
        await connection.execute(statement)
    yield empty_database, connection
    await connection.close()


async def content(connection: Connection, of: Content | None = None) -> Content:
    """Of every table and its columns the number of rows, and a hash over them; of those that are in `of`, if given."""
    columns = of or [tuple(row) for row in await connection.fetch(COLUMNS)]
    return {
        (table, names): tuple(await connection.fetchrow(CONTENT.format(names, table)) or ()) for table, names in columns
    }


async def test_an_upgrade_changes_no_row_and_the_way_back_neither(old: tuple[str, Connection]) -> None:
    """Of what was there; later versions may have added columns."""
    url, connection = old
    before = await content(connection)
    assert {table for (table, _), (rows, _) in before.items() if not rows} == {"llm_quota_entries"}

    await migrate.migrate(url)

    assert await content(connection, before) == before
    await migrate.downgrade(url, BEFORE)
    assert await content(connection) == before


async def test_rows_up_to_this_month_stay_where_they_are_and_later_ones_find_their_month(
    old: tuple[str, Connection],
) -> None:
    url, connection = old
    file = await connection.fetchval("SELECT pg_relation_filenode('market_data')")
    next_month = (this_month() + timedelta(days=32)).replace(day=1)

    await migrate.migrate(url)

    assert await connection.fetchval("SELECT pg_relation_filenode('market_data_earlier')") == file
    assert await connection.fetchval("SELECT max(open_time) < $1 FROM market_data_earlier", next_month)
    assert await connection.fetchval("SELECT count(*) FROM market_data_later") > 0
    later = f"market_data_{next_month:%Y_%m}"
    assert await connection.fetchval(f"SELECT count(*) FROM {later}") > 4 * 27


async def test_numbers_of_rows_go_on_after_an_upgrade_and_after_the_way_back(old: tuple[str, Connection]) -> None:
    url, connection = old
    another = """INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close,
                                          indicators, received_at)
                 VALUES ('x', $1, '1m', now(), now(), 1, 1, 1, 1, '{}', now()) RETURNING id"""
    last = await connection.fetchval("SELECT max(id) FROM market_data")

    await migrate.migrate(url)
    assert await connection.fetchval(another, "a") == last + 1
    await migrate.downgrade(url, BEFORE)
    assert await connection.fetchval(another, "b") == last + 2


async def test_views_and_grants_of_users_go_on_with_the_new_tables(old: tuple[str, Connection]) -> None:
    url, connection = old
    await connection.execute("CREATE VIEW my_bars AS SELECT symbol, close FROM market_data WHERE close > 1")
    await connection.execute("CREATE VIEW my_count AS SELECT count(*) AS n FROM my_bars")
    await connection.execute("GRANT SELECT ON market_data, llm_calls, v_model_usage TO PUBLIC")
    counted = await connection.fetchval("SELECT n FROM my_count")
    usage = await connection.fetchval("SELECT sum(calls) FROM v_model_usage")

    await migrate.migrate(url)

    await connection.execute("DELETE FROM market_data WHERE id = (SELECT max(id) FROM market_data)")
    assert await connection.fetchval("SELECT n FROM my_count") == counted - 1
    assert await connection.fetchval("SELECT sum(calls) FROM v_model_usage") == usage
    granted = await connection.fetch(
        "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC'"
    )
    assert {row[0] for row in granted} >= {"market_data", "llm_calls", "v_model_usage"}
