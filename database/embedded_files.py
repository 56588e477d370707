"""The files of the embedded PostgreSQL that we write: its settings, who may log in, its password, its owner's lock."""

import contextlib
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path

from trading.errors import StorageError

ROLE = "tradent"
DATABASE = "tradent"
SOCKET_PATH_MAX = 103
MEMORY = "shared_buffers = 64MB\nwork_mem = 8MB\nmaintenance_work_mem = 64MB\nmax_connections = 100\n"

ROUTINE = ("skipping missing", "redirecting log", "Future log", "starting PostgreSQL", "listening on", "is shut down")

LOGIN = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""

SETTINGS = f"""\
# Written anew at every start. Settings of your own go into ../custom.conf, which is read last.
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0700
{MEMORY}\
io_method = sync
huge_pages = off
max_parallel_workers_per_gather = 0
jit = off

fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = 256MB
min_wal_size = 64MB
checkpoint_timeout = 5min
wal_compression = on

autovacuum_naptime = 15s
autovacuum_vacuum_cost_delay = 1ms
idle_in_transaction_session_timeout = 10min

logging_collector = on
log_directory = '../log'
log_filename = 'server-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_min_messages = warning
log_min_error_statement = panic
log_line_prefix = '%m [%p] %a '
log_timezone = UTC
timezone = UTC
lc_messages = 'C'
password_encryption = 'scram-sha-256'
"""


def write_settings(data: Path, sockets: Path, port: int) -> None:
    """Settings and login rules for the next start; a socket folder that the system cannot use is left out."""
    folder = socket_folder(sockets)
    value = str(folder).replace("'", "''") if folder else ""
    settings = f"{SETTINGS}port = {port}\nunix_socket_directories = '{value}'\ninclude_if_exists = '../custom.conf'\n"
    replace_text(data / "postgresql.conf", settings)
    replace_text(data / "pg_hba.conf", LOGIN)


def socket_folder(sockets: Path) -> Path | None:
    """The folder, where the system has Unix sockets and takes a path this long (and asyncpg a comma-free one)."""
    longest = len(os.fsencode(sockets / ".s.PGSQL.65535"))
    usable = sys.platform != "win32" and longest <= SOCKET_PATH_MAX and not set(str(sockets)) & set(",\"'")
    return sockets if usable else None


def replace_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write a file whole or not at all; its owner stays that of the file it replaces.

    It is handed over only where it must be: a service's sandbox may refuse that call whatever it is for.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        before = path.stat() if path.exists() else path.parent.stat()
        now = fresh.stat()
        if sys.platform != "win32" and (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            os.chown(fresh, before.st_uid, before.st_gid)
        fresh.chmod(mode if mode is not None else 0o600)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def keep_password(path: Path) -> str:
    """The password in the file; a fresh one on first use, readable by its owner only."""
    if not path.exists():
        replace_text(path, secrets.token_hex(24) + "\n", mode=0o600)
    password = path.read_text(encoding="utf-8").strip()
    if not password:
        raise StorageError(f"{path} is empty; put the password of the role {ROLE} there, or remove the whole folder")
    return password


def choose_port(data: Path) -> int:
    """The port of the last start while it is free, so that addresses people wrote down stay true; else any free one."""
    last = 0
    settings = data / "postgresql.conf"
    if settings.exists():
        for line in settings.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" = ")
            if key == "port" and value.isdigit():
                last = int(value)
    for port in (last, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StorageError("no TCP port can be opened on 127.0.0.1; is the loopback interface up?")


def last_complaint(logs: Path, since: float) -> str:
    """What the server's logs said last that was not routine, as one line; written after `since`, in epoch seconds."""
    lines: list[str] = []
    for path in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime):
        if path.stat().st_mtime >= since - 1:
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    complaints = [line.strip() for line in lines if not any(words in line for words in ROUTINE)]
    return " / ".join((complaints or lines)[-5:])


class OwnerLock:
    """Says which process answers for the server; the system lets go of it when that process dies.

    A forked child closes its copy at once, or it would hold the lock for a parent that was killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> None:
        """Take the lock. Raises StorageError with the owner's pid while another process has it."""
        if self.held:
            return
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle)
        except OSError:
            os.close(handle)
            raise StorageError(
                f"process {self.holder()} already runs the database in {self.path.parent}; stop it first, "
                "give this one another database.data_directory, or share one server by database.url"
            ) from None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.release)
        self._handle = handle
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())

    def holder(self) -> str:
        """The process id that holds it, or did last; "unknown" where none is told."""
        try:
            return self.path.read_text(errors="replace").split("\n")[0].strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        """Lock a byte far behind the text, as Windows lets nobody read what is locked."""
        os.lseek(handle, 4096, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
