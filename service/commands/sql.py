"""`sql`: psql on the database, its URL, or where PostgreSQL's programs lie."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import orjson

from database.backup import program
from database.embedded import EmbeddedPostgres
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.ending import stop_signals
from service.settings import Settings
from service.store_room import reach_database, without_password


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", metavar="QUERY", help="only answer this query")
    parser.add_argument("--programs", action="store_true", help="only print where psql and pg_dump lie")
    parser.add_argument("--print", action="store_true", help="only print the URL, password included")
    add_json(parser, "with --print or --programs: as JSON")
    parser.set_defaults(refuse=parser.error)


def _do(given: Given) -> int:
    if given.json and not (given.print or given.programs):
        given.refuse("--json belongs to sql --print and sql --programs")
    settings = given.settings("WARNING")
    if given.programs:
        _print("programs", str(Path(program("psql")).parent), as_json=given.json)
        return exit_codes.OK
    return asyncio.run(_sql(settings, given))


def _print(name: str, value: str, *, as_json: bool) -> None:
    sys.stdout.write((orjson.dumps({name: value}).decode() if as_json else value) + "\n")


async def _sql(settings: Settings, given: Given) -> int:
    own = EmbeddedPostgres(settings.database.data_directory) if settings.database.embedded else None
    ends_with_us = own is not None and own.url is None
    async with reach_database(settings.database) as url:
        if given.print:
            tcp = None if own is None else own.tcp_url
            _print("url", tcp or url, as_json=given.json)  # by TCP, as not every program knows Unix sockets
            if ends_with_us:
                sys.stderr.write("no daemon runs, so PostgreSQL ends with this command; start one, and ask again\n")
            return exit_codes.OK
        psql, asked = program("psql"), [] if given.query is None else ["--command", given.query]
        address, password = without_password(url)
        environment = os.environ if password is None else {**os.environ, "PGPASSWORD": password}
        with stop_signals(_leave_to_psql):
            process = await asyncio.create_subprocess_exec(psql, *asked, address, env=environment)
            return await process.wait()


def _leave_to_psql() -> None:
    """Ctrl-C ends a query, not psql."""


COMMAND = Command(_do, _options)
