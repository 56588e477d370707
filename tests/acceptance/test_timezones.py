"""The time zone of the host and of PostgreSQL changes no byte of the files."""

from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.world import FAST, finished, require_agreement, settings
from tests.daemon import Daemon, Look


async def test_time_zones_change_no_byte(database: str, tmp_path: Path) -> None:
    """Run half a world away, and written again in New York."""
    name = urlsplit(database).path.removeprefix("/")
    look = Look(database)
    await look.rows(f"ALTER DATABASE \"{name}\" SET timezone = 'Australia/Lord_Howe'")
    daemon = Daemon(tmp_path, settings(database, {**FAST, "bars": 120}), {"TZ": "Australia/Lord_Howe"})
    await finished(daemon)
    await require_agreement(daemon, look)
    before = {path.name: path.read_bytes() for path in daemon.csv.glob("*.csv")}
    await look.rows(f"ALTER DATABASE \"{name}\" SET timezone = 'America/New_York'")
    daemon.environment["TZ"] = "America/New_York"
    status, _, log = await daemon.do("export", "rebuild")
    assert status == 0, log
    assert len(before) == 2
    assert {path.name: path.read_bytes() for path in daemon.csv.glob("*.csv")} == before
