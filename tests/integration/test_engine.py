"""Talking to PostgreSQL: every wait has a limit, and every way of losing the server is known as such."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from database.embedded import EmbeddedPostgres
from database.embedded_process import find_postmaster
from database.engine import (
    Pool,
    connect,
    connection_lost,
    create_engine,
    create_pool,
    explained,
    needs_a_person,
    worth_retrying,
)
from database.settings import DatabaseSettings
from tests import postgres
from tests.daemon import Look
from trading.errors import StorageError

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database."""
    opened = await create_pool(database, size=2)
    yield opened
    opened.terminate()


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedPostgres]:
    """A server that the test may do violence to."""
    folder = postgres.make_folder()
    server = EmbeddedPostgres(folder)
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_connections_speak_utc_and_give_their_name(pool: Pool) -> None:
    row = await pool.fetchrow(
        "SELECT current_setting('TimeZone'), current_setting('jit'), current_setting('application_name')"
    )
    assert tuple(row or ()) == ("UTC", "off", "tradent")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_every_spelling_of_the_url_is_taken(database: str, scheme: str) -> None:
    connection = await connect(database.replace("postgresql", scheme, 1))
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(StorageError, match=r"mysql://me:\*\*\*@localhost/x is no database URL"):
        await create_pool("mysql://me:s3cret@localhost/x")


@pytest.mark.parametrize(
    "given", [" postgresql://me:s3cret@h/d", "host=h user=me password=s3cret", "jdbc:x://a:s3cret@h"]
)
async def test_what_has_not_the_form_of_a_url_is_not_told(given: str) -> None:
    """Nobody knows where in it a password is."""
    with pytest.raises(StorageError) as raised:
        await create_pool(given)
    assert str(raised.value).startswith("what was given is no database URL")


async def test_a_pool_can_be_made_while_the_server_is_away_and_says_so_on_use(tmp_path: Path) -> None:
    pool = await create_pool(f"postgresql://tradent@/tradent?host={tmp_path}")
    with pytest.raises(OSError) as caught:
        await pool.fetchval("SELECT 1")
    assert connection_lost(caught.value)
    pool.terminate()


async def test_a_pool_works_again_once_the_server_is_back(own_server: EmbeddedPostgres) -> None:
    url = own_server.url
    assert url is not None
    pool = await create_pool(url)
    assert await pool.fetchval("SELECT 1") == 1
    await own_server.stop()
    with pytest.raises(Exception) as caught:
        await pool.fetchval("SELECT 1")
    assert connection_lost(caught.value)
    await own_server.start()
    assert await pool.fetchval("SELECT 1") == 1
    pool.terminate()


async def test_waiting_for_a_free_connection_has_a_limit(database: str) -> None:
    pool = await create_pool(database, DatabaseSettings(acquire_timeout_seconds=2.0), size=1)
    async with pool.acquire():
        with pytest.raises(TimeoutError):
            await pool.fetchval("SELECT 1")
    assert await pool.fetchval("SELECT 1") == 1
    pool.terminate()


async def test_a_statement_has_a_limit(database: str) -> None:
    pool = await create_pool(database, DatabaseSettings(command_timeout_seconds=1))
    with pytest.raises(TimeoutError) as caught:
        await pool.execute("SELECT pg_sleep(60)")
    assert connection_lost(caught.value)
    pool.terminate()


async def test_connecting_to_a_server_that_never_answers_has_a_limit() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    with pytest.raises(TimeoutError) as caught:
        await connect(f"postgresql://tradent@127.0.0.1:{port}/tradent", DatabaseSettings(connect_timeout_seconds=0.05))
    assert connection_lost(caught.value)
    mute.close()


async def test_a_transaction_left_open_is_rolled_back_on_release(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("CREATE TABLE left_open (n int)")
    assert await pool.fetchval("SELECT to_regclass('left_open')") is None


async def test_json_travels_as_text(pool: Pool) -> None:
    assert await pool.fetchval("SELECT $1::jsonb", '{"a":1}') == '{"a": 1}'


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
async def test_whatever_a_dying_server_does_to_us_counts_as_a_lost_connection(
    own_server: EmbeddedPostgres, how: signal.Signals
) -> None:
    """Statements, transactions, copies, LISTEN and connects under way while the server ends, and right after it."""
    url = own_server.url
    assert url is not None
    settings = DatabaseSettings(connect_timeout_seconds=5, command_timeout_seconds=5)
    pool = await create_pool(url, settings, size=12)
    await pool.execute("CREATE TABLE written (n int)")
    caught: list[BaseException] = []
    busy = asyncio.Event()

    async def query() -> None:
        while True:
            await pool.fetch("SELECT generate_series(1, 500)")
            busy.set()

    async def write() -> None:
        while True:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO written SELECT generate_series(1, 10)")

    async def copy() -> None:
        while True:
            async with pool.acquire() as connection:
                await connection.copy_records_to_table("written", records=[(n,) for n in range(1000)])

    async def sleep() -> None:
        await pool.execute("SELECT pg_sleep(600)")

    async def dial() -> None:
        while True:
            await (await connect(url, settings)).close()

    async def until_it_fails(work: object) -> None:
        try:
            await work()  # type: ignore[operator]
        except Exception as error:
            caught.append(error)

    workers = [asyncio.create_task(until_it_fails(work)) for work in (query, write, copy, sleep, dial) * 2]
    await busy.wait()
    postmaster = find_postmaster(own_server.directory / "data")
    assert postmaster is not None
    os.kill(postmaster.pid, how)
    await asyncio.wait_for(asyncio.gather(*workers), 60)
    for _ in range(12):
        await until_it_fails(lambda: pool.fetchval("SELECT 1"))
    assert [repr(error) for error in caught if not connection_lost(error)] == []
    await own_server.start()
    async with asyncio.timeout(60):
        while not await _all_work(pool, 12):
            pass
    pool.terminate()


async def _all_work(pool: Pool, count: int) -> bool:
    """Whether `count` connections of the pool can be in use at once; broken ones are replaced as they are met."""
    async with AsyncExitStack() as stack:
        try:
            held = [await stack.enter_async_context(pool.acquire()) for _ in range(count)]
            return [await connection.fetchval("SELECT 1") for connection in held] == [1] * count
        except Exception as error:
            assert connection_lost(error)
            return False


async def test_a_backend_ended_by_an_administrator_counts_as_a_lost_connection(pool: Pool) -> None:
    async with pool.acquire() as victim:
        pid = victim.get_server_pid()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as caught:
            await asyncio.gather(
                victim.execute("SELECT pg_sleep(600)"), pool.execute("SELECT pg_terminate_backend($1)", pid)
            )
    assert connection_lost(caught.value)


async def test_using_a_closed_connection_counts_as_a_lost_connection(database: str) -> None:
    connection = await connect(database)
    await connection.close()
    with pytest.raises(asyncpg.InterfaceError) as caught:
        await connection.execute("SELECT 1")
    assert connection_lost(caught.value)


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        ("SELEC 1", ()),
        ("SELECT 1 / 0", ()),
        ("SELECT * FROM nowhere", ()),
        ("SELECT $1::int", ("text",)),
        ("SELECT $1::int", ()),
        ("INSERT INTO csv_streams (source) VALUES (NULL)", ()),
        ("INSERT INTO llm_enhancement_tasks (signal_id) VALUES (gen_random_uuid())", ()),
    ],
)
async def test_a_mistake_of_ours_is_no_lost_connection(pool: Pool, statement: str, arguments: tuple[object]) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
        await pool.execute(statement, *arguments)
    assert not connection_lost(caught.value)
    assert not worth_retrying(caught.value)


async def test_misuse_of_a_connection_is_no_lost_connection(database: str) -> None:
    connection = await connect(database)
    with pytest.raises(asyncpg.InterfaceError, match="another operation") as caught:
        await asyncio.gather(connection.execute("SELECT pg_sleep(0.1)"), connection.execute("SELECT 1"))
    assert not connection_lost(caught.value)
    await connection.close()


async def test_a_pooled_connection_that_is_stuck_in_an_operation_is_not_handed_out_again(pool: Pool) -> None:
    """As a server that dies can leave one; made here by an operation that nobody ends."""
    async with pool.acquire() as connection:
        stuck = asyncio.create_task(connection.fetch("SELECT pg_sleep(600)"))
        await asyncio.sleep(0.2)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError) as caught:
            await connection.fetchval("SELECT 1")
        await asyncio.wait([stuck])
    assert connection_lost(caught.value)
    assert [await pool.fetchval("SELECT 1") for _ in range(3)] == [1, 1, 1]


async def test_a_pool_that_was_closed_is_no_lost_connection(database: str) -> None:
    pool = await create_pool(database)
    await pool.close()
    with pytest.raises(asyncpg.InterfaceError) as caught:
        await pool.execute("SELECT 1")
    assert not connection_lost(caught.value)


async def test_a_group_of_errors_is_lost_only_if_all_of_them_are(pool: Pool) -> None:
    assert connection_lost(ExceptionGroup("both", [OSError(), TimeoutError()]))
    assert not connection_lost(ExceptionGroup("one", [OSError(), ValueError()]))


@pytest.mark.parametrize(
    "error",
    [asyncpg.DiskFullError("x"), asyncpg.DeadlockDetectedError("x"), asyncpg.LockNotAvailableError("x"),
     asyncpg.QueryCanceledError("x"), asyncpg.SerializationError("x"), asyncpg.OutOfMemoryError("x")],
)  # fmt: skip
def test_a_server_short_of_something_is_worth_another_try_but_not_lost(error: Exception) -> None:
    assert worth_retrying(error)
    assert not connection_lost(error)


@pytest.mark.parametrize(
    ("error", "advice", "person"),
    [(asyncpg.TooManyConnectionsError("sorry, too many clients already"), "max_connections", True),
     (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"), "must name the primary", True),
     (asyncpg.DiskFullError("could not extend file"), "make room", True),
     (socket.gaierror(-2, "Name or service not known"), "DNS", True),
     (ssl.SSLError(1, "certificate verify failed"), "sslmode", True),
     (asyncpg.CannotConnectNowError("the database system is starting up"), "starting", False),
     (asyncpg.AdminShutdownError("terminating connection"), "stopped", False),
     (asyncpg.QueryCanceledError("canceling statement"), "statement_timeout", False),
     (asyncpg.ProtocolViolationError("query_wait_timeout"), "pgbouncer", False),
     (asyncpg.ProtocolViolationError("server login has been failing, try again later (server_login_retry)"),
      "pgbouncer", False),
     (ConnectionRefusedError("refused"), "check that the server runs", False),
     (TimeoutError(), "TimeoutError; the server does not answer in time", False)],
)  # fmt: skip
def test_what_passes_or_has_to_be_mended_is_tried_again_and_told_with_what_to_do(
    error: Exception, advice: str, person: bool
) -> None:
    assert worth_retrying(error)
    assert advice in explained(error)
    assert needs_a_person(error) is person


async def test_a_refused_password_and_a_missing_database_are_told_as_what_a_person_has_to_mend(database: str) -> None:
    parts = urlsplit(database)
    wrong = parts._replace(netloc=parts.netloc.replace(parts.password or "-", "wrong")).geturl()
    missing = postgres.named(database, "nowhere")
    for url, advice in ((wrong, "refuses user or password"), (missing, "there is no such database")):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connect(url)
        assert advice in explained(caught.value)
        assert needs_a_person(caught.value)


async def test_an_error_that_sqlalchemy_wrapped_is_judged_by_what_is_inside(database: str) -> None:
    engine = create_engine(database)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert connection_lost(caught.value)
        await connection.invalidate()
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as mistake:
            await connection.execute(text("SELECT 1 / 0"))
        assert not connection_lost(mistake.value)
    await engine.dispose()


@posix
async def test_a_statement_given_up_on_a_frozen_server_holds_nobody_up(database: str, pool: Pool) -> None:
    """Its cancellation ends, and that of its transaction, though the server never confirms it; the pool goes on."""
    async with pool.acquire() as connection:
        backend = await connection.fetchval("SELECT pg_backend_pid()")

    async def sleep() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_sleep(600)")

    work = asyncio.create_task(sleep())
    sleeps = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {backend} AND wait_event = 'PgSleep'"
    await Look(database).until(sleeps)
    os.kill(backend, signal.SIGSTOP)
    try:
        work.cancel()
        await asyncio.wait([work], timeout=180)
        assert work.cancelled()
        assert await pool.fetchval("SELECT 1") == 1
    finally:
        os.kill(backend, signal.SIGCONT)
