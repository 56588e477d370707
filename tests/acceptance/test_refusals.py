"""What cannot work is refused in words, with an exit status that tells the cause apart, and without a traceback."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.proxy import Proxy

NOWHERE = "postgresql://me:hidden-word@127.0.0.1:1/nothing"


async def test_wrong_settings_are_told_line_by_line(tmp_path: Path) -> None:
    """Exit 78, one line per mistake and nothing else; nothing is started or made."""
    daemon = Daemon(tmp_path, {})
    daemon.write({"llm": {"batch_size": 0, "nope": 1, "model": "foo/bar"}, "service": {"port": "x"}})
    status, out, log = await daemon.do("run")
    assert (status, out) == (78, "")
    assert sorted(line.split(": ")[0] for line in log.splitlines()) == [
        "llm.batch_size = 0", "llm.model = 'foo/bar'", "llm.nope", "service.port = 'x'",
    ]  # fmt: skip
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("command", ["run", "check"])
async def test_beyond_the_loopback_no_daemon_starts_without_a_token(command: str, tmp_path: Path) -> None:
    """Exit 78, before anything is started or made, and the line says which variable is missing."""
    status, out, log = await Daemon(tmp_path, {"service": {"host": "0.0.0.0"}}).do(command)
    assert (status, out) == (78, "")
    assert "set TRADENT_ADMIN_TOKEN or TRADENT_READ_TOKEN, or listen on 127.0.0.1" in log
    assert len(log.splitlines()) == 1
    assert not (tmp_path / "output").exists()


async def test_a_database_that_stays_away_is_waited_for_and_told(tmp_path: Path) -> None:
    """Exit 69, in words, without the password; DATABASE_URL is what says where it is."""
    daemon = Daemon(tmp_path, {"database": {"start_timeout_seconds": 0.5}}, {"DATABASE_URL": NOWHERE})
    status, _, log = await daemon.do("run")
    waits, listens, ends = log.splitlines()
    assert status == 69
    assert "127.0.0.1:1/nothing cannot be reached; waiting for it" in waits
    assert "`status` is answered" in listens
    assert "127.0.0.1:1/nothing cannot be used" in ends
    assert "hidden-word" not in log


async def test_a_database_that_is_away_at_the_start_is_waited_for(database: str, tmp_path: Path) -> None:
    """Said once, and again when it is there; `status` answers meanwhile, and everything is done in the end."""
    async with Proxy(database) as proxy:
        await proxy.cut()
        daemon = Daemon(tmp_path, settings(proxy.url))
        async with daemon.start("--until-idle") as running:
            await running.said("waiting for it")
            await running.said("`status` is answered at")
            port = running.log.partition("`status` is answered at http://127.0.0.1:")[2].split()[0]
            _, told, _ = await daemon.do("status", "--json", "--set", f"service.port={port}")
            vitals = json.loads(told)
            assert (vitals["phase"], vitals["postgresql_away"]) == ("starting", True)
            await proxy.mend()
            assert await running.ended() == 0
    assert running.log.count("waiting for it") == running.log.count("the database can be reached") == 1
    assert await require_agreement(daemon, Look(database))


async def test_waiting_for_a_database_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """SIGTERM: exit 0, as there was nothing to hand back."""
    daemon = Daemon(tmp_path, {}, {"DATABASE_URL": NOWHERE})
    async with daemon.start() as running:
        await running.said("waiting for it")
        running.send(signal.SIGTERM)
        assert await running.ended() == 0


async def test_a_wrong_password_is_told_at_once(database: str, tmp_path: Path) -> None:
    """Nothing that passes: exit 69 without a wait."""
    wrong = re.sub(r"//(\w+):\w+@", r"//\1:wrong@", database)
    status, _, log = await Daemon(tmp_path, settings(wrong)).do("run")
    assert (status, len(log.splitlines())) == (69, 1)


async def test_no_migrate_refuses_a_database_without_tables(empty_database: str, tmp_path: Path) -> None:
    """Exit 69, and the database stays as it was."""
    daemon = Daemon(tmp_path, settings(empty_database))
    status, _, log = await daemon.do("run", "--no-migrate")
    assert status == 69
    assert "lacks" in log
    assert "--no-migrate" in log
    assert await Look(empty_database).value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_a_second_daemon_on_one_journal_is_refused(database: str, tmp_path: Path) -> None:
    """Exit 69, with the first one's process id; the first is not disturbed."""
    daemon = Daemon(tmp_path, settings(database, {**FAST, "speed": 100.0}))
    async with daemon.start() as first:
        await Look(database).until("SELECT count(*) > 0 FROM market_data")
        status, _, log = await daemon.do("run")
        assert status == 69
        assert str(first.pid) in log
        assert len(log.splitlines()) == 1
        assert "journal" in log


async def test_a_second_daemon_on_one_data_directory_is_refused(own_folder: Path) -> None:
    """Exit 69, with the first one's process id; the first is not disturbed."""
    daemon = Daemon(own_folder, {"trading": {"feed": {**FAST, "speed": 100.0}}})
    async with daemon.start() as first:
        await first.said("rated by")
        status, _, log = await daemon.do("run")
        assert (status, len(log.splitlines())) == (69, 1)
        assert f"process {first.pid} already runs" in log
        first.send(signal.SIGTERM)
        assert await first.ended() == 0


@pytest.mark.parametrize("path", ["nowhere/at/all", "empty", "notes.csv"])
async def test_a_feed_without_bars_ends_the_run_in_words(database: str, tmp_path: Path, path: str) -> None:
    """Exit 66, one line that names the path, no traceback."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.csv").write_text("what,a,day\n1,2,3\n")
    daemon = Daemon(tmp_path, settings(database, {"type": "replay", "path": path}))
    status, _, log = await daemon.do("run", "--until-idle")
    assert status == 66
    assert path in log.splitlines()[-1]
    assert "Traceback" not in log


async def test_a_taken_port_costs_the_status_and_nothing_else(database: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = Daemon(tmp_path, settings(database, service={"port": port}))
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    assert [line for line in running.log.splitlines() if "WARNING" in line and f":{port}: the port is taken" in line]


async def test_a_folder_that_cannot_be_written_is_told(database: str, tmp_path: Path) -> None:
    """A journal that cannot be made ends the start in words: exit 69."""
    (tmp_path / "output").write_text("a file where a folder should be")
    daemon = Daemon(tmp_path, settings(database))
    status, _, log = await daemon.do("run")
    assert status == 69
    assert "Traceback" not in log
    assert os.fspath(Path("output") / "journal") in log.splitlines()[-1]
