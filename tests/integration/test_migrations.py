"""The schema: built by migrations, described by tables.py, generated as SQL, readable by people."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from database import migrate, schema_sql
from database.embedded_process import find_programs
from database.engine import connect, create_engine
from database.tables import Xid8, metadata
from tests import postgres
from trading.errors import StorageError

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def _program(*argv: object) -> str:
    """What one of PostgreSQL's programs printed; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *map(str, argv), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def _dump(url: str, *options: str) -> list[str]:
    """The schema as pg_dump tells it, without what differs from run to run."""
    dumped = await _program(find_programs() / "pg_dump", "--schema-only", "--no-owner", *options, url)
    return [line for line in dumped.splitlines() if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))]


async def _rows(url: str, query: str) -> list[asyncpg.Record]:
    connection = await connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_an_empty_database_comes_to_head_and_stays_there(empty_database: str) -> None:
    assert await migrate.current(empty_database) is None
    applied = await migrate.migrate(empty_database)
    assert applied[-1] == migrate.head()
    assert await migrate.current(empty_database) == migrate.head()
    assert await migrate.migrate(empty_database) == []


async def test_what_is_pending_is_told_without_applying_it(empty_database: str) -> None:
    pending = await migrate.pending(empty_database)
    with pytest.raises(StorageError, match=f"lacks {len(pending)} migration"):
        await migrate.require_current(empty_database)
    assert await _rows(empty_database, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
    await migrate.migrate(empty_database)
    await migrate.require_current(empty_database)


async def test_processes_that_migrate_at_once_do_it_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate.migrate(empty_database) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(await _all_revisions(empty_database))]


async def _all_revisions(url: str) -> list[str]:
    await migrate.downgrade(url)
    return await migrate.pending(url)


async def test_a_table_that_another_session_keeps_too_long_is_named_as_the_cause(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "50ms")
    await migrate.downgrade(database, "0014")
    other = await connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE llm_calls IN ROW EXCLUSIVE MODE")
        with pytest.raises(StorageError, match="another session has kept a table"):
            await migrate.migrate(database)
    await other.close()


async def test_a_database_newer_than_the_program_is_refused(database: str) -> None:
    connection = await connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    for look in (migrate.migrate, migrate.current, migrate.pending):
        with pytest.raises(StorageError, match=r"9999.*newer version"):
            await look(database)


async def test_a_server_that_is_away_is_no_fault_of_the_schema(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await migrate.migrate(f"postgresql://tradent@/tradent?host={tmp_path}")


async def test_the_way_down_and_up_again_leaves_the_same_schema(database: str) -> None:
    before = await _dump(database)
    await migrate.downgrade(database)
    assert await _rows(database, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                                 "AND relname NOT LIKE 'alembic_version%'") == []  # fmt: skip
    await migrate.migrate(database)
    assert await _dump(database) == before


async def test_migrations_build_exactly_what_tables_py_describes(database: str, empty_database: str) -> None:
    engine = create_engine(empty_database)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    tables = [option for table in metadata.tables for option in ("--table", table)]
    assert await _dump(database, *tables) == await _dump(empty_database, *tables)


async def test_alembic_finds_nothing_left_to_migrate(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)

    def differences(connection: Connection) -> list[object]:
        partitions = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or name not in partitions,
        }
        context = MigrationContext.configure(connection, opts=options)
        found: list[object] = compare_metadata(context, metadata)
        return found

    engine = create_engine(database)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_every_table_view_and_column_carries_a_comment(database: str) -> None:
    bare = await _rows(
        database,
        """SELECT c.relname, a.attname FROM pg_class c
           LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
             AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)""",
    )
    assert [tuple(row) for row in bare] == []


def test_the_sql_file_is_what_the_migrations_generate() -> None:
    assert schema_sql.FILE.read_text(encoding="utf-8") == schema_sql.schema_sql(), (
        "renew it: python -m database.schema_sql --write"
    )


async def test_the_sql_file_alone_gives_the_migrated_schema(database: str, empty_database: str) -> None:
    await _program(
        find_programs() / "psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-d", empty_database, "-f", schema_sql.FILE
    )
    assert await _dump(empty_database) == await _dump(database)
    assert await migrate.current(empty_database) == migrate.head()
    assert await migrate.migrate(empty_database) == []


async def test_constraints_refuse_what_no_signal_or_result_can_be(database: str) -> None:
    connection = await connect(database)
    signal = await _add_signal(connection)
    for statement in (
        "UPDATE signals SET side = 'sideways'",
        "UPDATE signals SET strength = 1.5",
        "UPDATE llm_enhancement_tasks SET status = 'lost'",
        f"INSERT INTO llm_analysis_results (signal_id, status, rating, attempts, processing_ms, finished_at) "
        f"VALUES ('{signal}', 'completed', 6, 1, 1, now())",
        f"INSERT INTO llm_analysis_results (signal_id, status, attempts, processing_ms, finished_at) "
        f"VALUES ('{signal}', 'pending', 1, 1, now())",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(statement)
    await connection.close()


async def _add_signal(connection: "asyncpg.Connection[asyncpg.Record]", strategy: str = "ma_cross") -> UUID:
    """A long signal on a bar that closed at START, made 2 s later, its task pending."""
    signal = uuid4()
    await connection.execute(
        """INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,
                                created_at)
           VALUES ($1, 'simulated', 'BTC/USD', '1m', $2::timestamptz, $3, 'long', 0.5, 100.25,
                   '{"indicators": {"rsi": 31.5}}', $2::timestamptz + interval '2 s')""",
        signal, START, strategy,
    )  # fmt: skip
    await connection.execute("INSERT INTO llm_enhancement_tasks (signal_id) VALUES ($1)", signal)
    return signal


async def _add_call(connection: "asyncpg.Connection[asyncpg.Record]", *signals: UUID, cost: str | None) -> UUID:
    call = uuid4()
    await connection.execute(
        """INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, reply,
                                  prompt_tokens, completion_tokens, cost_usd, queue_wait_ms, latency_ms, started_at,
                                  finished_at, http_status)
           VALUES ($1, $2, 'openrouter', 'google/gemini', 1, 'abc', '[]', '{}', 'yes', 100, 20, $3, 0, 800,
                   $4::timestamptz, $4::timestamptz + interval '800 ms', 200)""",
        call, list(signals), None if cost is None else Decimal(cost), START,
    )  # fmt: skip
    return call


async def test_a_rated_signal_is_one_row_with_its_rating_and_waits(database: str) -> None:
    connection = await connect(database)
    signal = await _add_signal(connection)
    await connection.execute(
        """INSERT INTO llm_analysis_results (signal_id, status, rating, confidence, action, attempts, processing_ms,
                                             finished_at, cost_usd)
           VALUES ($1, 'completed', 4, 0.8, 'enter_long', 1, 900, $2::timestamptz + interval '5 s', 0.01)""",
        signal, START,
    )  # fmt: skip
    (row,) = await connection.fetch("SELECT * FROM v_enhanced_signals")
    assert (row["signal_id"], row["status"], row["rating"], row["action"]) == (signal, "completed", 4, "enter_long")
    assert (row["close_to_rating_s"], row["signal_to_rating_s"]) == (5.0, 3.0)
    assert row["indicators"] == '{"rsi": 31.5}'
    await connection.close()


async def test_a_pending_signal_is_there_with_its_rating_open(database: str) -> None:
    connection = await connect(database)
    await _add_signal(connection)
    (row,) = await connection.fetch("SELECT * FROM v_enhanced_signals")
    assert (row["status"], row["rating"], row["rated_at"], row["signal_to_rating_s"]) == ("pending", None, None, None)
    await connection.close()


async def test_a_call_about_several_signals_is_a_row_for_each_and_shares_its_cost(database: str) -> None:
    connection = await connect(database)
    signals = [await _add_signal(connection, strategy) for strategy in ("a", "b")]
    await _add_call(connection, *signals, cost="0.03")
    rows = await connection.fetch("SELECT signal_id, signals_in_call, cost_share_usd FROM v_signal_calls")
    assert {row["signal_id"] for row in rows} == set(signals)
    assert [(row["signals_in_call"], row["cost_share_usd"]) for row in rows] == [(2, Decimal("0.015"))] * 2
    await connection.close()


async def test_the_queue_is_counted_by_state_with_its_oldest(database: str) -> None:
    connection = await connect(database)
    signals = [await _add_signal(connection, strategy) for strategy in "abc"]
    await connection.execute(
        "UPDATE llm_enhancement_tasks SET status = 'processing', lease_expires_at = now() - interval '1 s' "
        "WHERE signal_id = $1",
        signals[0],
    )
    rows = {row["status"]: row for row in await connection.fetch("SELECT * FROM v_queue")}
    assert (rows["pending"]["tasks"], rows["pending"]["due"], rows["processing"]["lease_expired"]) == (2, 2, 1)
    assert rows["pending"]["oldest_age_s"] >= 0
    await connection.close()


async def test_usage_sums_a_models_day_and_says_what_it_could_not_price(database: str) -> None:
    connection = await connect(database)
    signal = await _add_signal(connection)
    await _add_call(connection, signal, cost="0.03")
    await _add_call(connection, signal, cost=None)
    (row,) = await connection.fetch("SELECT * FROM v_model_usage")
    assert (row["day"], row["calls"], row["cost_usd"], row["calls_of_unknown_cost"]) == (
        START.date(), 2, Decimal("0.03"), 1,
    )  # fmt: skip
    assert (row["prompt_tokens"], row["completion_tokens"], row["latency_p50_ms"]) == (200, 40, 800.0)
    await connection.close()


async def test_a_migrated_copy_is_what_tests_get(postgres_url: str, database: str) -> None:
    assert database != postgres_url
    assert await migrate.current(database) == await migrate.current(postgres.named(postgres_url, postgres.TEMPLATE))
