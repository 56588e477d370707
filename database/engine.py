"""How the rest talks to PostgreSQL: a pool with a limit on every wait, and which errors pass by themselves."""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolAcquireContext
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from database.settings import SCHEMES, DatabaseSettings, redacted
from trading.errors import StorageError

if TYPE_CHECKING:
    Record: TypeAlias = asyncpg.Record
    Connection: TypeAlias = asyncpg.Connection[Record]
    AnyPool: TypeAlias = asyncpg.Pool[Record]
else:
    Record, Connection, AnyPool = asyncpg.Record, asyncpg.Connection, asyncpg.Pool
FAILURES: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What any use of PostgreSQL may raise; `connection_lost` and `worth_retrying` say what it means."""
CANCEL_S = 1.0
SERVER_SETTINGS = {"jit": "off", "TimeZone": "UTC", "plan_cache_mode": "force_custom_plan"}
"""Plans are made at each execution: one that is kept was made while tables were small, and reads them whole later."""

_LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
)
_PASSING = (
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.PostgresIOError,
)
_FOR_A_PERSON: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((asyncpg.InvalidAuthorizationSpecificationError,),
     "the server refuses user or password: mend database.url, or the server's pg_hba.conf"),
    ((asyncpg.InvalidCatalogNameError, asyncpg.DatabaseDroppedError),
     "there is no such database: restore it, or mend database.url"),
    ((asyncpg.TooManyConnectionsError,),
     "the server is out of connections: raise its max_connections, lower database.pool_size, or use pgbouncer"),
    ((asyncpg.ReadOnlySQLTransactionError,),
     "the server takes no writes: a standby, or default_transaction_read_only; database.url must name the primary"),
    ((asyncpg.DiskFullError,), "the server's disk is full: make room there, and it goes on by itself"),
    ((socket.gaierror,), "the host of database.url is not found: check its name, and DNS"),
    ((ssl.SSLError,), "no TLS with this server: check sslmode in database.url, and the certificates"),
)  # fmt: skip
_BY_ITSELF: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((asyncpg.CannotConnectNowError,), "the server is starting, stopping or recovering"),
    ((asyncpg.AdminShutdownError, asyncpg.CrashShutdownError), "the server was stopped, or has crashed"),
    (
        (asyncpg.QueryCanceledError,),
        "the server gave a statement up: see its statement_timeout, and what keeps it busy",
    ),
    ((asyncpg.ProtocolViolationError,), "where pgbouncer stands before it: its pool is full, or its server away"),
    ((ConnectionRefusedError, FileNotFoundError), "nothing listens there: check that the server runs"),
    ((TimeoutError,), "the server does not answer in time: check that it runs, and what keeps it busy"),
)
_MISUSE = ("pool is", "another operation is in progress", "released back to the pool", "is not a member of this pool")


class _Transaction(asyncpg.transaction.Transaction):
    """A transaction that ends with what went wrong in it, a cancellation above all, where it cannot be rolled back."""

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except FAILURES:
            if error is None:
                raise


class PooledConnection(Connection):
    """A connection that costs no round trip when it goes back to the pool.

    Session state therefore outlives a release: use SET LOCAL and pg_advisory_xact_lock, and LISTEN on a connection
    of your own. An open transaction is still rolled back.
    """

    def get_reset_query(self) -> str:
        return ""

    def transaction(self, **options: Any) -> "asyncpg.transaction.Transaction":
        return _Transaction(self, **{"isolation": None, "readonly": False, "deferrable": False, **options})

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        with self._ending_wrecks():
            return await super().execute(query, *args, timeout=timeout)

    async def _execute(self, *arguments: Any, **options: Any) -> Any:
        with self._ending_wrecks():
            return await super()._execute(*arguments, **options)  # type: ignore[misc] # not public, so not in the stubs

    @contextmanager
    def _ending_wrecks(self) -> Iterator[None]:
        """A server that dies in mid-operation can leave asyncpg waiting for the end of it: nobody else uses a pooled
        connection, so one that says so is a wreck, which would be handed out again and again.
        """
        try:
            yield
        except asyncpg.InterfaceError as error:
            if "another operation is in progress" not in str(error):
                raise
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError("the connection was left in mid-operation") from error

    async def _cancel(self, *arguments: Any) -> None:
        """As asyncpg's, which tells the server that a statement was given up; whatever follows waits until it confirms.

        A server that is frozen does not, and what gave the statement up is often being ended itself.
        """
        async with asyncio.timeout(CANCEL_S) as limit:
            await super()._cancel(*arguments)  # type: ignore[misc] # the stubs leave out what is not public
        if limit.expired() and not self.is_closed():
            self.terminate()


class Pool(AnyPool):
    """A pool whose `acquire` waits `acquire_timeout_s` where the caller names no limit."""

    __slots__ = ("_acquire_timeout_s",)

    def __init__(self, *args: Any, acquire_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acquire_timeout_s = acquire_timeout_s

    def acquire(self, *, timeout: float | None = None) -> "PoolAcquireContext[Record]":
        return super().acquire(timeout=self._acquire_timeout_s if timeout is None else timeout)


async def create_pool(
    url: str,
    settings: DatabaseSettings | None = None,
    *,
    size: int | None = None,
    application_name: str = "tradent",
) -> Pool:
    """A pool on `url`; `settings` gives its size and limits, `size` overrides the first.

    Connections are made when they are needed: this succeeds while the server is away, and acquiring fails then with
    an error for which `connection_lost` is true. JSON travels as text.
    """
    limits = settings or DatabaseSettings()
    pool = Pool(
        asyncpg_url(url),
        acquire_timeout_s=limits.acquire_timeout_seconds,
        min_size=0,
        max_size=size or limits.pool_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        loop=None,
        connection_class=PooledConnection,
        record_class=asyncpg.Record,
        **_connect_arguments(limits, application_name),
    )
    await pool
    return pool


async def connect(
    url: str, settings: DatabaseSettings | None = None, *, application_name: str = "tradent"
) -> Connection:
    """One connection outside any pool, with the same limits: for LISTEN, and for looking around."""
    limits = settings or DatabaseSettings()
    connection: Connection = await asyncpg.connect(asyncpg_url(url), **_connect_arguments(limits, application_name))
    return connection


def create_engine(url: str, settings: DatabaseSettings | None = None) -> AsyncEngine:
    """A SQLAlchemy engine that opens a connection per use: for migrations and for reading at leisure."""
    limits = settings or DatabaseSettings()

    async def dial() -> Connection:
        return await connect(url, limits, application_name="tradent-sqlalchemy")

    return create_async_engine(URL.create("postgresql+asyncpg"), async_creator=dial, poolclass=NullPool)


def asyncpg_url(url: str) -> str:
    """`url` as asyncpg reads it: SQLAlchemy's driver suffix goes. Raises StorageError where it is no database URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        # Passwords are found in what has a URL's form; where it has not, they could be anywhere.
        shown = redacted(url) if separator and scheme.isalnum() else "what was given"
        raise StorageError(f"{shown} is no database URL; expected postgresql://user:password@host/name")
    return f"postgresql://{rest}"


def _connect_arguments(limits: DatabaseSettings, application_name: str) -> dict[str, Any]:
    return {
        "timeout": limits.connect_timeout_seconds,
        "command_timeout": limits.command_timeout_seconds,
        "server_settings": {**SERVER_SETTINGS, "application_name": application_name},
    }


def database_error(error: BaseException) -> BaseException:
    """asyncpg's own error inside one that SQLAlchemy has wrapped; any other error as it is."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return error


def connection_lost(error: BaseException) -> bool:
    """Whether `error` means that the server is away, full or restarting: the same statement may work later.

    Covers every way asyncpg tells: refused or broken sockets, time-outs, shutdown and crash notices, its own protocol
    confusion after a crash, and "connection is closed". False for mistakes in statements, values or use.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(connection_lost(each) for each in error.exceptions)
    error = database_error(error)
    if isinstance(error, asyncpg.OutdatedSchemaCacheError | asyncpg.TargetServerAttributeNotMatched):
        return False
    if isinstance(error, _LOST):
        return True
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return "clos" in str(error) and not any(misuse in str(error) for misuse in _MISUSE)
    return False


def needs_a_person(error: BaseException) -> bool:
    """Whether it will not pass by itself: a password, a name, a disk or a setting has to be mended."""
    return _advice(database_error(error), _FOR_A_PERSON) is not None


def explained(error: BaseException) -> str:
    """What the error says, and what to do about it."""
    error = database_error(error)
    advice = _advice(error, _FOR_A_PERSON) or _advice(error, _BY_ITSELF)
    said = str(error) or type(error).__name__
    return f"{said}; {advice}" if advice else said


def _advice(error: BaseException, known: Sequence[tuple[tuple[type[Exception], ...], str]]) -> str | None:
    return next((advice for kinds, advice in known if isinstance(error, kinds)), None)


def worth_retrying(error: BaseException) -> bool:
    """Whether the same statement may succeed later: a lost connection, or a server that is short of something.

    Short of disk or memory, a deadlock, a lock or statement time-out. False: the statement itself is at fault.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(worth_retrying(each) for each in error.exceptions)
    error = database_error(error)
    return connection_lost(error) or isinstance(error, (*_PASSING, asyncpg.OutdatedSchemaCacheError))
