"""`audit verify`: whether the calls that were kept are those that were made."""

import sys
from pathlib import Path

from database.audit import verify
from database.engine import create_pool
from database.migrate import require_current
from llm_integration.audit_file import verify_file
from service.settings import Settings
from service.store_room import reach_database


async def verify_trail(settings: Settings, file: Path | None) -> int:
    """Print what was found in the database, or in an audit file; 1 where something is wrong."""
    if file is not None:
        calls, faults = verify_file(file)
        found = f"{file}: {calls} calls"
    else:
        async with reach_database(settings.database) as url:
            await require_current(url)
            pool = await create_pool(url, settings.database)
            try:
                result = await verify(pool)
            finally:
                await pool.close()
        faults = list(result.faults)
        found = f"{result.calls} calls in {result.chains} chain{'' if result.chains == 1 else 's'}"
        if result.pruned:
            found += f", {result.pruned} more were deleted by age"
    for fault in faults:
        sys.stdout.write(f"FAIL  {fault}\n")
    sys.stdout.write(f"{'FAIL' if faults else 'ok  '}  {found}\n")
    return 1 if faults else 0
