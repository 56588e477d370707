"""`backup`: everything in PostgreSQL as one file, beside a running daemon too."""

import argparse
import asyncio
import sys
from pathlib import Path

import orjson

from database.backup import Address, Content, back_up
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.progress import progress
from service.settings import Settings
from service.store_room import reach_database, without_password

NAMES = {"market_data": "bars", "signals": "signals", "llm_analysis_results": "results", "llm_calls": "calls"}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write; not there yet")
    add_json(parser, "what is in it as JSON")


def _do(given: Given) -> int:
    file: Path = given.file
    content = asyncio.run(_write(given.settings("WARNING"), file))
    size = file.stat().st_size
    if given.json:
        sys.stdout.write(orjson.dumps({"file": str(file), "bytes": size, **as_plain(content)}).decode() + "\n")
    else:
        sys.stdout.write(f"{file}: {size / 2**20:.1f} MiB; {said(content)}\n")
    return exit_codes.OK


async def _write(settings: Settings, file: Path) -> Content:
    """Back up, with the embedded server started for it where no daemon runs."""
    async with reach_database(settings.database) as url:
        with progress("backing up", 1.0, "") as told:
            return await back_up(address(url), file, told)


def address(url: str) -> Address:
    """The database as pg_dump and pg_restore are told it."""
    shown, password = without_password(url)
    return Address(url, shown, password)


def as_plain(content: Content) -> dict[str, object]:
    """What is in a file, for JSON."""
    return {"rows": {NAMES[table]: count for table, count in content.rows.items()}, "revision": content.revision}


def said(content: Content) -> str:
    """How much of what is in a file."""
    rows = ", ".join(f"{count} {NAMES[table]}" for table, count in content.rows.items())
    return f"{rows}; at migration {content.revision}"


COMMAND = Command(_do, _options)
