"""`run`: the daemon itself, behind the live view on a terminal."""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import io
import logging
import sys

from service import exit_codes, view
from service.commands.command import Command, Given
from service.daemon import Daemon, Role
from service.logs import RecentLines, set_up_logging
from service.rules import require_rules
from service.secrets import secrets_of
from service.settings import Settings
from trading.errors import TradentError

log = logging.getLogger(__name__)

COLLECTIONS = (5_000, 10, 10)
"""How many objects more there must be before each generation is looked through: full collections, which hold the loop
up, come a seventh as often as by default. Memory stays bounded: what dies young goes with the next 5 000, what had
grown old once half a million more have come, or a quarter more than there were, whichever is more.
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--role", choices=[role.value for role in Role], default="all", help="which part of the work to do"
    )
    parser.add_argument("--until-idle", action="store_true", help="end once a finite feed is through and all is rated")
    parser.add_argument(
        "--no-migrate", action="store_true", help="refuse to start where the database is not up to date"
    )
    parser.add_argument("--plain", action="store_true", help="log lines in place of the live view, also in a terminal")


def _do(given: Given) -> int:
    """Run the daemon until it is stopped, or idle; 75 where a stop left something to the next start."""
    settings = given.settings()
    require_rules(settings)
    formatter = set_up_logging(settings.service.log_level, secrets_of(settings))
    if given.role == Role.WORKER.value and settings.database.embedded and not given.until_idle:
        log.warning(
            "this worker's PostgreSQL is its own, where no other process stores signals; name theirs in database.url"
        )
    daemon = Daemon(
        settings,
        Role(given.role),
        until_idle=given.until_idle,
        may_migrate=not given.no_migrate,
        read_settings=lambda: Settings.load(given.config, given.set),
    )
    lines = None
    if not given.plain and sys.stdout.isatty():
        lines = RecentLines()
        lines.setFormatter(formatter)
    with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # stderr may be no file
        faulthandler.enable()  # systemd's watchdog ends what stands still by SIGABRT: then this says where it stood
    gc.freeze()  # modules stay: a full collection that looks through them as well holds the loop up for 80 ms
    gc.set_threshold(*COLLECTIONS)
    try:
        asyncio.run(daemon.run() if lines is None else view.run_with_view(daemon, lines))
    except TradentError:
        raise
    except Exception as fault:
        log.critical("ended by a fault of the program; please report it with these lines", exc_info=fault)
        return exit_codes.FAULT
    return exit_codes.UNFINISHED if daemon.left_behind else exit_codes.OK


COMMAND = Command(_do, _options)
