"""`doctor`: what it finds where things are well, and where they are not."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from database.migrate import migrate
from service.cli import run_command
from service.commands.command import Given
from service.doctor_daemon import Heard, daemon_findings
from service.doctor_host import clock_kept, unit_finding
from service.doctor_places import disk_findings, journal_findings
from service.findings import Finding, Level
from service.settings import ServiceSettings, Settings
from service.version import VERSION

Told = pytest.CaptureFixture[str]


class Said(NamedTuple):
    """How `doctor --json` ended, and what it found."""

    status: int
    ok: bool
    findings: dict[str, dict[str, Any]]
    text: str


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told) -> Callable[..., Said]:
    """Runs it in an empty folder, by these settings."""
    for name in list(os.environ):
        if name.startswith(("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY", "OPENROUTER")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str, **sections: Any) -> Said:
        whole = {"llm": {"model": "rules/baseline", "fallback_models": []}, "service": {"port": 1}, **sections}
        (tmp_path / "config.json").write_text(json.dumps(whole))
        status = run_command(["doctor", "--json", *arguments])
        told = capsys.readouterr()
        assert told.err == ""
        found = json.loads(told.out)
        return Said(status, found["ok"], {one["check"]: one for one in found["findings"]}, told.out)

    return run


def test_without_a_daemon_all_is_well_where_it_could_start(doctor: Callable[..., Said], database: str) -> None:
    """A daemon that does not run is a note, with how to start it; the exit status is 0."""
    said = doctor(database={"url": database})
    assert (said.status, said.ok) == (0, True)
    assert said.findings["daemon"]["level"] == "note"
    assert "start one with `run`" in said.findings["daemon"]["detail"]
    for check in ("program", "settings", "database", "journal", "csv", "rules/baseline", "disk"):
        assert said.findings[check]["level"] == "ok", check


def test_wrong_settings_are_found_like_anything_else(doctor: Callable[..., Said]) -> None:
    said = doctor(llm={"batch_size": 0})
    assert (said.status, said.ok) == (1, False)
    assert said.findings["settings"]["detail"].startswith("llm.batch_size = 0: ")
    assert "program" in said.findings
    assert "database" not in said.findings


def test_a_database_that_is_away_does_not_end_the_look(doctor: Callable[..., Said]) -> None:
    said = doctor(database={"url": "postgresql://me:hidden-word@127.0.0.1:1/db"})
    assert said.status == 1
    assert said.findings["database"]["level"] == "fail"
    assert said.findings["rules/baseline"]["level"] == "ok"
    assert "hidden-word" not in said.text


def test_secrets_are_named_and_never_shown(
    doctor: Callable[..., Said], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "TRADENT_READ_TOKEN").write_text("a-token-to-read-with")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.setenv("OPENROUTER_API_KEY", "the-key-itself")
    said = doctor(database={"url": database}, llm={"model": "openrouter/a", "backends": {"openrouter": UNREACHABLE}})
    assert said.findings["secrets"]["detail"] == (
        "in this environment: OPENROUTER_API_KEY; among the credentials: TRADENT_READ_TOKEN; "
        "not set here: TRADENT_SIGNAL_TOKEN, TRADENT_ADMIN_TOKEN"
    )
    assert "the-key-itself" not in said.text
    assert "a-token-to-read-with" not in said.text


def test_an_address_beyond_the_loopback_without_a_token_is_wrong(doctor: Callable[..., Said], database: str) -> None:
    said = doctor(database={"url": database}, service={"host": "0.0.0.0", "port": 1})
    assert said.status == 1
    assert "TRADENT_ADMIN_TOKEN" in said.findings["access"]["detail"]


def test_folders_that_cannot_be_written_are_found(doctor: Callable[..., Said], database: str, tmp_path: Path) -> None:
    """A file stands where each folder should be."""
    for name in ("journal", "csv"):
        (tmp_path / name).write_text("")
    said = doctor(
        database={"url": database, "journal_directory": "journal"},
        llm={"model": "rules/baseline", "csv_output_directory": "csv"},
    )
    assert said.status == 1
    assert said.findings["journal"]["detail"].startswith("journal cannot be written")
    assert said.findings["csv"]["detail"].startswith("csv cannot be written")


def test_what_waits_in_the_journal_and_what_was_set_aside_is_told(tmp_path: Path) -> None:
    (tmp_path / "set-aside").mkdir()
    (tmp_path / "set-aside" / "refused-1.bin").write_bytes(b"x")
    (tmp_path / "000000000001.journal").write_bytes(b"x" * 1500)
    settings = Given(config=written(tmp_path, database={"journal_directory": str(tmp_path)}), set=[]).settings()
    waiting, aside = journal_findings(settings, running=False)
    assert (waiting.level, waiting.detail.startswith("1.5 kB in")) == (Level.OK, True)
    assert (aside.level, aside.detail.startswith("1 records that could not be stored")) == (Level.NOTE, True)


@pytest.mark.parametrize(("free", "level"), [(1 << 20, Level.FAIL), (1 << 31, Level.NOTE), (1 << 40, Level.OK)])
def test_a_disk_is_judged_by_what_is_left_on_it(
    free: int, level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free, total=1 << 41))
    settings = Given(config=written(tmp_path), set=[]).settings()
    assert [finding.level for finding in disk_findings(settings)] == [level]


@pytest.mark.parametrize(
    ("said", "level", "part"),
    [
        ("LoadState=not-found\nActiveState=inactive\n", Level.OK, "there is no tradent.service"),
        ("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=2\n", Level.OK, "restarted 2 times"),
        (
            "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\nNeedDaemonReload=yes\n",
            Level.NOTE,
            "systemctl daemon-reload",
        ),
        ("LoadState=loaded\nActiveState=inactive\nSubState=dead\n", Level.NOTE, "systemctl start"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog\n", Level.FAIL, "watchdog; `journal"),
    ],
)
async def test_the_unit_is_judged_by_what_systemctl_says(
    said: str, level: Level, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = await unit_finding(systemd=True)
    assert (found.level, part in found.detail) == (level, True), found


async def test_the_clock_is_looked_at_without_asking_anybody() -> None:
    assert (await clock_kept()).level in (Level.OK, Level.NOTE)


@pytest.fixture
async def answering() -> AsyncIterator[Callable[[dict[str, Any], dict[str, Any]], Any]]:
    """A server that answers /status and /readyz so."""
    runners = []

    async def start(status: dict[str, Any], ready: dict[str, Any] | None) -> ServiceSettings:
        async def tell_status(request: web.Request) -> web.Response:
            return web.json_response(status)

        async def tell_ready(request: web.Request) -> web.Response:
            if ready is None:
                raise web.HTTPNotFound
            return web.json_response(ready, status=200 if ready["ready"] else 503)

        app = web.Application()
        app.add_routes([web.get("/status", tell_status), web.get("/readyz", tell_ready)])
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return ServiceSettings(port=runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_what_the_daemon_lacks_is_told_in_its_own_words(answering: Any) -> None:
    status = {"version": VERSION, "phase": "running", "started_at": "2026-01-31T10:15:00.5+00:00"}
    checks = [{"check": "feed", "ok": False, "detail": "no bar for 90 s"}, {"check": "disk", "ok": True, "detail": "x"}]
    settings = Settings(service=await answering(status, {"ready": False, "checks": checks}))
    heard = Heard()
    found = [finding async for finding in daemon_findings(settings, heard)]
    assert heard.anything
    assert found == [
        Finding("daemon", Level.OK, "running since 2026-01-31T10:15:00Z"),
        Finding("daemon, feed", Level.FAIL, "no bar for 90 s"),
        Finding("daemon, by its own checks", Level.OK, "disk: in order"),
    ]


async def test_a_daemon_of_another_version_is_noted(answering: Any) -> None:
    settings = Settings(service=await answering({"version": "0.0.1", "phase": "running"}, {"ready": True}))
    found = [finding async for finding in daemon_findings(settings, Heard())]
    assert (found[0].level, "in version 0.0.1; restart it" in found[0].detail) == (Level.NOTE, True)


def test_migrations_that_are_due_are_told(doctor: Callable[..., Said], empty_database: str) -> None:
    said = doctor(database={"url": empty_database})
    assert "migrations are due" in said.findings["database"]["detail"]
    asyncio.run(migrate(empty_database))
    assert "up to date" in doctor(database={"url": empty_database}).findings["database"]["detail"]


UNREACHABLE = {"base_url": "http://127.0.0.1:1"}


def written(folder: Path, **sections: Any) -> Path:
    """A settings file with these sections."""
    file = folder / "config.json"
    file.write_text(json.dumps(sections))
    return file


async def test_a_daemon_of_an_earlier_version_that_tells_no_checks_is_to_be_restarted(answering: Any) -> None:
    status = {"version": "0.0.9", "phase": "running", "started_at": "2026-01-31T10:15:00.5+00:00"}
    settings = Settings(service=await answering(status, None))
    (found,) = [finding async for finding in daemon_findings(settings, Heard())]
    assert (found.level, "in version 0.0.9; restart it" in found.detail) == (Level.NOTE, True)
