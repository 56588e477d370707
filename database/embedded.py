"""EmbeddedPostgres: a PostgreSQL of our own, started beside the daemon and outliving its crashes.

The server is nobody's child: a daemon that is killed leaves it running, and the next one takes it over. Layout of the
folder: `data` (the cluster), `socket`, `log`, `password`, `owner.lock`, and `custom.conf` where the operator wrote one.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote

import asyncpg

from database.embedded_cluster import disown_postmaster_file, end_orphans, make_cluster, set_password
from database.embedded_files import (
    DATABASE,
    ROLE,
    OwnerLock,
    choose_port,
    keep_password,
    last_complaint,
    replace_text,
    socket_folder,
    write_settings,
)
from database.embedded_process import (
    POSTGRES_MAJOR,
    WINDOWS,
    Account,
    Postmaster,
    choose_account,
    find_postmaster,
    find_programs,
    run,
)
from trading.errors import StorageError

log = logging.getLogger(__name__)

POLL_S = 0.05
SUPERVISE_S = 1.0
START_ATTEMPTS = 3


class EmbeddedPostgres:
    """Supervises the server in `directory`.

    One process owns it at a time; others may look (`running`, `url`) while it does. `start_timeout_s` bounds the wait
    for crash recovery, `stop_timeout_s` that for a clean shutdown, after which the server is ended at once; what it
    had committed is safe either way.
    """

    def __init__(self, directory: Path, *, start_timeout_s: float = 600.0, stop_timeout_s: float = 30.0) -> None:
        self.directory = Path(directory).absolute()
        self._data = self.directory / "data"
        self._password_file = self.directory / "password"
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._port: int | None = None
        self._lock = OwnerLock(self.directory / "owner.lock")

    @property
    def running(self) -> bool:
        """Whether a server runs on this folder and answers, whoever owns it."""
        postmaster = find_postmaster(self._data)
        return postmaster is not None and postmaster.status == "ready"

    @property
    def url(self) -> str | None:
        """Where the running server listens, password included; None when none runs. Prefers its Unix socket."""
        postmaster = find_postmaster(self._data)
        return None if postmaster is None else self._url(postmaster, tcp=False)

    @property
    def tcp_url(self) -> str | None:
        """The same on 127.0.0.1, for programs that know no Unix sockets."""
        postmaster = find_postmaster(self._data)
        return None if postmaster is None else self._url(postmaster, tcp=True)

    async def start(self) -> str:
        """Start the server, or take over the one a killed daemon left, and return its URL.

        Makes the cluster on first use. Raises StorageError, with what the server said, when it does not come up, and
        when another process owns it.
        """
        try:
            programs = find_programs()
            self._make_folder()
            self._lock.acquire()
            return await self._start(programs)
        except OSError as error:
            self._lock.release()
            raise StorageError(f"the embedded database in {self.directory} cannot be started: {error}") from error
        except BaseException:
            self._lock.release()
            raise

    async def supervise(self) -> None:
        """Bring the server back, at the same address, whenever it ends; runs until it is cancelled.

        For a task beside the daemon's others. PostgreSQL itself recovers from a backend that crashes; this is for the
        day when the whole of it is killed.
        """
        said = ""
        while self._lock.held:
            await asyncio.sleep(SUPERVISE_S)
            if find_postmaster(self._data) is not None:
                continue
            try:
                if not said:
                    log.error("the PostgreSQL in %s has ended unasked; starting it again", self.directory)
                await self._start(find_programs())
                said = ""
            except (StorageError, OSError) as error:
                if str(error) != said:
                    log.error("%s; trying again every %.0f s", error, SUPERVISE_S)
                said = str(error)

    async def stop(self) -> None:
        """End the server if we own it: fast shutdown, then, past the limit, at once."""
        if not self._lock.held:
            return
        try:
            await self._stop()
        finally:
            self._lock.release()

    async def _start(self, programs: Path) -> str:
        self._check_version()
        account = await choose_account(programs, self.directory, self._owner())
        await self._wait_until_not_stopping()
        if find_postmaster(self._data) is None:
            await self._prepare(programs, account)
            await self._launch(programs, account)
        else:
            log.info("taking over the PostgreSQL that runs in %s", self.directory)
        return await self._wait_until_ready()

    async def _prepare(self, programs: Path, account: Account) -> None:
        """Make the cluster on first use; give the role a new password when its file has been removed."""
        started = time.monotonic()
        kept = self._password_file.exists()
        password = keep_password(self._password_file)
        if not self._data.exists():
            await make_cluster(programs, account, self._data, password, timeout_s=self._start_timeout_s)
            log.info("made a PostgreSQL %s in %s in %.1f s", POSTGRES_MAJOR, self.directory, time.monotonic() - started)
            return
        await end_orphans(self._data)
        disown_postmaster_file(self._data)
        if not kept:
            await set_password(programs, account, self._data, password, timeout_s=self._start_timeout_s)
            log.warning("the password file was gone; the role %s has a new password", ROLE)

    def _make_folder(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not WINDOWS and self.directory.stat().st_uid == os.geteuid():
            self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def _owner(self) -> int | None:
        return self._data.stat().st_uid if self._data.exists() else None

    def _check_version(self) -> None:
        try:
            found = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            if self._data.exists():
                raise StorageError(
                    f"{self._data} is no PostgreSQL data directory; move it away, or set database.data_directory"
                ) from None
            return
        if found != str(POSTGRES_MAJOR):
            raise StorageError(
                f"{self._data} was made by PostgreSQL {found}, and this program brings {POSTGRES_MAJOR}; dump it with "
                f"pg_dump {found} and restore it into a fresh folder, or set database.url to a server of yours"
            )

    async def _launch(self, programs: Path, account: Account) -> None:
        sockets, logs = self.directory / "socket", self.directory / "log"
        for folder in (sockets, logs):
            folder.mkdir(mode=0o700, exist_ok=True)
            account.own(folder)
        for stale in sockets.iterdir():
            stale.unlink()
        start_log = logs / "start.log"
        began = time.time()
        for _ in range(START_ATTEMPTS):
            port = self._port or choose_port(self._data)
            write_settings(self._data, sockets, port)
            replace_text(start_log, "")
            started = time.monotonic()
            reporter = asyncio.create_task(self._report_recovery(), name="postgres-recovery-reporter")
            try:
                command = [
                    programs / "pg_ctl", "start", "-w", "-t", str(int(self._start_timeout_s) + 1),
                    "-D", self._data, "-l", start_log,
                ]  # fmt: skip
                ran = await run(account, command, timeout_s=self._start_timeout_s + 10)
            finally:
                reporter.cancel()
            if ran.code == 0:
                log.info("PostgreSQL is up in %.2f s", time.monotonic() - started)
                return
            if find_postmaster(self._data) is not None:
                return
            if self._port is not None or choose_port(self._data) == port:
                break
        said = last_complaint(logs, since=began) or ran.output
        raise StorageError(f"PostgreSQL did not start in {self.directory}: {said} (log: {logs})")

    async def _report_recovery(self) -> None:
        for waited in range(10, 1 << 31, 10):
            await asyncio.sleep(10)
            log.warning("PostgreSQL is recovering in %s; %s s so far, please let it", self.directory, waited)

    async def _wait_until_not_stopping(self) -> None:
        """Let a server that is on its way down end; adopting it would be adopting a dying one."""
        deadline = time.monotonic() + self._stop_timeout_s
        while (postmaster := find_postmaster(self._data)) is not None and postmaster.status == "stopping":
            if time.monotonic() > deadline:
                raise StorageError(
                    f"PostgreSQL (process {postmaster.pid}) in {self.directory} does not finish stopping"
                )
            await asyncio.sleep(POLL_S)

    async def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + self._start_timeout_s
        said: object = "it has not opened its socket"
        while (postmaster := find_postmaster(self._data)) is not None:
            if postmaster.status == "ready":
                url = self._url(postmaster, tcp=False)
                try:
                    connection = await asyncpg.connect(url, timeout=10)
                except asyncpg.InvalidPasswordError as error:
                    raise StorageError(
                        f"PostgreSQL refuses the password in {self._password_file} ({error}); "
                        f"put that of the role {ROLE} there"
                    ) from error
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    said = error
                else:
                    await connection.close()
                    self._port = postmaster.port
                    return url
            if time.monotonic() > deadline:
                raise StorageError(
                    f"PostgreSQL (process {postmaster.pid}) in {self.directory} is not ready after "
                    f"{self._start_timeout_s:.0f} s ({postmaster.status}; {said}). It goes on recovering by itself: "
                    "start again later, or raise database.start_timeout_seconds"
                )
            await asyncio.sleep(POLL_S)
        raise StorageError(f"PostgreSQL ended while it was starting; see {self.directory / 'log'}")

    async def _stop(self) -> None:
        for how, limit_s in (("fast", self._stop_timeout_s), ("immediate", 5.0)):
            postmaster = find_postmaster(self._data)
            if postmaster is None:
                return
            await self._signal(postmaster, how)
            deadline = time.monotonic() + limit_s
            while running := find_postmaster(self._data) is not None:
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(POLL_S)
            if running:
                log.warning("PostgreSQL in %s did not end by %s shutdown in %.0f s", self.directory, how, limit_s)

    async def _signal(self, postmaster: Postmaster, how: str) -> None:
        if sys.platform == "win32":
            stop = [find_programs() / "pg_ctl", "stop", "-W", "-m", how, "-D", self._data]
            await run(Account(), stop, timeout_s=30)
            return
        try:
            os.kill(postmaster.pid, signal.SIGINT if how == "fast" else signal.SIGQUIT)
        except ProcessLookupError:
            return

    def _url(self, postmaster: Postmaster, *, tcp: bool) -> str:
        password = self._password_file.read_text(encoding="utf-8").strip()
        folder = socket_folder(postmaster.socket) if postmaster.socket else None
        if folder is not None and not tcp:
            return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(folder))}&port={postmaster.port}"
        return f"postgresql://{ROLE}:{password}@{postmaster.host or '127.0.0.1'}:{postmaster.port}/{DATABASE}"
