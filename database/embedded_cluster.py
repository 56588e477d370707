"""The cluster on disk: making it, its role's password, and what a crash left behind."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from database.embedded_files import DATABASE, ROLE, replace_text
from database.embedded_process import Account, find_orphans, run
from trading.errors import StorageError

NOBODYS_PID = 2**31 - 2
ORPHAN_LIMIT_S = 10.0
RIGHTS = (
    f"ALTER ROLE {ROLE} CREATEROLE",
    f"GRANT pg_monitor TO {ROLE}",
    f"GRANT pg_read_all_data TO {ROLE} WITH ADMIN OPTION",
)


async def make_cluster(programs: Path, account: Account, data: Path, password: str, *, timeout_s: float) -> None:
    """Make a cluster with our role and database, beside its place, and move it there whole.

    A start that is killed leaves no half of a cluster, only a folder that the next start clears away. The superuser
    `postgres` has no password and can log in to nothing; our role owns the database, and may make others and roles that
    read all of it.
    """
    for left in data.parent.glob("making-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="making-", dir=data.parent))
    account.own(fresh)
    command = [
        programs / "initdb", "-D", fresh, "-U", "postgres", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8", "--data-checksums", "--auth=reject", "--no-instructions",
    ]  # fmt: skip
    ran = await run(account, command, timeout_s=timeout_s)
    if ran.code != 0:
        raise StorageError(f"initdb failed in {fresh}: {ran.output}")
    await _single_user(
        programs,
        account,
        fresh,
        [
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
            *RIGHTS,
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        ],
        timeout_s=timeout_s,
    )
    _move(fresh, data)


async def set_password(programs: Path, account: Account, data: Path, password: str, *, timeout_s: float) -> None:
    """Give our role another password, and the rights that one of an earlier version lacks, while no server runs."""
    statements = [f"ALTER ROLE {ROLE} PASSWORD '{password}'", *RIGHTS]
    await _single_user(programs, account, data, statements, timeout_s=timeout_s)


async def _single_user(
    programs: Path, account: Account, data: Path, statements: list[str], *, timeout_s: float
) -> None:
    command = [
        programs / "postgres", "--single", "-D", data, "-c", "exit_on_error=on", "-c", "logging_collector=off",
        "-c", "log_min_error_statement=panic", "postgres",
    ]  # fmt: skip
    ran = await run(account, command, timeout_s=timeout_s, stdin="\n".join(statements) + "\n")
    if ran.code != 0:
        raise StorageError(f"the database could not be set up in {data}: {ran.output}")


def disown_postmaster_file(data: Path) -> None:
    """Make a stale postmaster.pid name a process that cannot exist.

    PostgreSQL refuses to start while the named pid lives, even as a zombie or as somebody else's process. The file
    itself stays: its shared memory key is how PostgreSQL sees that orphans of a killed server are still at work.
    """
    path = data / "postmaster.pid"
    try:
        _, newline, rest = path.read_text().partition("\n")
    except FileNotFoundError:
        return
    replace_text(path, f"{NOBODYS_PID}{newline}{rest}")


async def end_orphans(data: Path) -> None:
    """End what a killed postmaster left at work on `data`: the server cannot start beside it."""
    if sys.platform == "win32":
        return
    deadline = time.monotonic() + ORPHAN_LIMIT_S
    how = signal.SIGQUIT
    while orphans := await asyncio.to_thread(find_orphans, data):
        if time.monotonic() > deadline:
            if how == signal.SIGKILL:
                raise StorageError(f"processes {orphans} of a killed PostgreSQL still work on {data}; end them")
            how, deadline = signal.SIGKILL, time.monotonic() + ORPHAN_LIMIT_S
        for pid in orphans:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
        await asyncio.sleep(0.1)


def _move(fresh: Path, place: Path) -> None:
    """Rename within a folder, and make it last."""
    fresh.rename(place)
    if sys.platform == "win32":
        return
    handle = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
