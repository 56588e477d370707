"""What each command does; each returns the exit status."""

import argparse
import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

from database.backup import program
from database.embedded import EmbeddedPostgres
from llm_integration.calling.compose import key_names
from llm_integration.settings_sources import secret
from service import view
from service.audit_command import verify_trail
from service.backup_command import read_backup, write_backup
from service.check import check_backends, check_everything
from service.daemon import Daemon, Role
from service.ending import stop_signals
from service.export_command import export_files
from service.logs import RecentLines, set_up_logging
from service.settings import Settings, require_rules
from service.status import fetch_status
from service.store_room import reach_database, without_password
from trading.errors import TradentError

log = logging.getLogger(__name__)

EXIT_FAULT, EXIT_UNFINISHED = 70, 75


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Run the daemon until it is stopped, or idle; 75 where a stop left something to the next start."""
    require_rules(settings)
    formatter = set_up_logging(settings.service.log_level, secrets_of(settings))
    daemon = Daemon(settings, Role(given.role), until_idle=given.until_idle, may_migrate=not given.no_migrate)
    lines = None
    if not given.plain and sys.stdout.isatty():
        lines = RecentLines()
        lines.setFormatter(formatter)
    gc.freeze()  # modules stay: a full collection that looks through them as well holds the loop up for 80 ms
    try:
        asyncio.run(daemon.run() if lines is None else view.run_with_view(daemon, lines))
    except TradentError:
        raise
    except Exception as fault:
        log.critical("ended by a fault of the program; please report it with these lines", exc_info=fault)
        return EXIT_FAULT
    return EXIT_UNFINISHED if daemon.left_behind else 0


def check(settings: Settings, given: argparse.Namespace) -> int:
    """Say what works and what does not; 1 when something does not."""
    set_up_logging("ERROR", secrets_of(settings))
    if given.backends:
        return asyncio.run(check_backends(settings, paid=given.paid, as_json=given.json))
    return asyncio.run(check_everything(settings))


def status(settings: Settings, given: argparse.Namespace) -> int:
    """Ask the running daemon; 1 when none answers."""
    answer = asyncio.run(fetch_status(settings.service.host, settings.service.port))
    if given.json:
        sys.stdout.write(answer.decode() + "\n")
    else:
        view.show_status(answer)
    return 0


def export(settings: Settings, given: argparse.Namespace) -> int:
    """Bring the CSV files level with the database, compare the two, or make the files again."""
    set_up_logging("WARNING", secrets_of(settings))
    return export_files(settings, given.action)


def sql(settings: Settings, given: argparse.Namespace) -> int:
    """Open psql on the database; say its URL, or where PostgreSQL's programs lie, where that is asked for."""
    if given.programs:
        sys.stdout.write(f"{Path(program('psql')).parent}\n")
        return 0
    set_up_logging("WARNING", secrets_of(settings))
    return asyncio.run(_sql(settings, only_print=given.print))


def audit(settings: Settings, given: argparse.Namespace) -> int:
    """See whether the calls that were kept are those that were made; 1 where they are not."""
    set_up_logging("WARNING", secrets_of(settings))
    return asyncio.run(verify_trail(settings, given.file))


def backup(settings: Settings, given: argparse.Namespace) -> int:
    """Write everything in PostgreSQL to a file."""
    set_up_logging("WARNING", secrets_of(settings))
    asyncio.run(write_backup(settings, given.file))
    return 0


def restore(settings: Settings, given: argparse.Namespace) -> int:
    """Bring such a file into an empty database."""
    set_up_logging("WARNING", secrets_of(settings))
    asyncio.run(read_backup(settings, given.file))
    return 0


def secrets_of(settings: Settings) -> list[str]:
    """Every secret this process may come to know: none of them is ever logged."""
    keys = [secret(name) for name in key_names(settings.llm).values()]
    password = None if settings.database.embedded else without_password(settings.database.url)[1]
    return [value for value in (*keys, password) if value]


async def _sql(settings: Settings, *, only_print: bool) -> int:
    async with reach_database(settings.database) as url:
        if only_print:
            tcp = EmbeddedPostgres(settings.database.data_directory).tcp_url if settings.database.embedded else None
            sys.stdout.write(f"{tcp or url}\n")  # by TCP, as not every program knows Unix sockets
            return 0
        psql = program("psql")
        address, password = without_password(url)
        environment = os.environ if password is None else {**os.environ, "PGPASSWORD": password}
        with stop_signals(_leave_to_psql):
            process = await asyncio.create_subprocess_exec(psql, address, env=environment)
            return await process.wait()


def _leave_to_psql() -> None:
    """Ctrl-C ends a query, not psql."""
