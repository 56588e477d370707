"""`audit verify`: whether the calls that were kept are those that were made; 1 where they are not."""

import argparse
import asyncio
import sys
from pathlib import Path

import orjson

from database.audit import CHAINED, verify
from database.engine import create_pool
from database.migrate import require_current
from llm_integration.audit_file import verify_file
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.progress import progress
from service.settings import Settings
from service.store_room import reach_database


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["verify"], help="follow the chains of hashes over all calls")
    parser.add_argument("--file", type=Path, metavar="FILE", help="an audit file, not the database")
    add_json(parser)


def _do(given: Given) -> int:
    return asyncio.run(_verify(given.settings("WARNING"), given.file, as_json=given.json))


async def _verify(settings: Settings, file: Path | None, *, as_json: bool) -> int:
    """Print what was found in the database, or in an audit file."""
    if file is not None:
        calls, faults = verify_file(file)
        facts: dict[str, object] = {"calls": calls}
        found = f"{file}: {calls} calls"
    else:
        async with reach_database(settings.database) as url:
            await require_current(url)
            pool = await create_pool(url, settings.database)
            try:
                with progress("verifying", await pool.fetchval(CHAINED), "calls") as told:
                    result = await verify(pool, told)
            finally:
                await pool.close()
        faults = list(result.faults)
        facts = {"calls": result.calls, "chains": result.chains, "pruned": result.pruned}
        found = f"{result.calls} calls in {result.chains} chain{'' if result.chains == 1 else 's'}"
        if result.pruned:
            found += f", {result.pruned} more were deleted by age"
    if as_json:
        sys.stdout.write(orjson.dumps({"ok": not faults, **facts, "faults": faults}).decode() + "\n")
        return exit_codes.FAILED if faults else exit_codes.OK
    for fault in faults:
        sys.stdout.write(f"FAIL  {fault}\n")
    sys.stdout.write(f"{'FAIL' if faults else 'ok  '}  {found}\n")
    return exit_codes.FAILED if faults else exit_codes.OK


COMMAND = Command(_do, _options)
