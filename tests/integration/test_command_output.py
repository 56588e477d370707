"""What commands write where: JSON from each, a bar on a terminal alone, colours on a terminal alone."""

import argparse
import asyncio
import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from database.embedded import EmbeddedPostgres
from service.cli import COMMANDS, command_line, run_command
from service.commands import backup, sql
from tests.terminal import Screen

COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*[349][0-7](?:;[0-9]+)*m")
WITHOUT_JSON = {
    "run": "it logs",
    "completion": "it prints a script",
    "install-service": "it writes files",
}


def test_every_command_that_prints_something_has_json() -> None:
    parsers = next(
        action.choices for action in command_line()._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert set(parsers) == set(COMMANDS)
    without = {name for name, parser in parsers.items() if "--json" not in parser.format_help()}
    assert without <= set(WITHOUT_JSON)


Do = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def do(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    """Exit status, stdout and stderr of a command, in an empty folder and on the test's database."""
    for name in list(os.environ):
        if name.startswith(("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    llm = {"model": "rules/baseline", "fallback_models": []}
    (tmp_path / "config.json").write_text(json.dumps({"database": {"url": database}, "llm": llm}))

    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(run_command, arguments)
        return (status, *capsys.readouterr())

    return run


async def test_each_prints_one_json_object(do: Do, empty_database: str, tmp_path: Path) -> None:
    """And nothing else on either stream, where all is well."""
    (tmp_path / "audit.jsonl").write_text("")
    for arguments in (
        ("version",), ("sql", "--print"), ("sql", "--programs"), ("export",), ("export", "verify"),
        ("export", "rebuild"), ("audit", "verify"), ("audit", "verify", "--file", "audit.jsonl"),
        ("backup", "all.dump"), ("restore", "all.dump", "--set", f"database.url={empty_database}"), ("check",),
    ):  # fmt: skip
        status, out, log = await do(*arguments, "--json")
        assert (status, log) == (0, ""), (arguments, log)
        assert isinstance(json.loads(out), dict), (arguments, out)


async def test_a_difference_is_told_as_json_with_exit_status_1(do: Do, tmp_path: Path) -> None:
    assert (await do("export"))[0] == 0
    with (tmp_path / "output/llm_enhanced/llm_signals.csv").open("a", encoding="utf-8") as file:
        file.write("torn")
    status, out, _ = await do("export", "verify", "--json")
    told = json.loads(out)
    assert (status, told["same"]) == (1, False)
    assert "nobody's" in told["files"][0]["fault"]


class Ended(io.StringIO):
    """A standard output that takes nothing: a pipe that nobody reads any more, or a file on a full disk."""

    def __init__(self, fault: OSError) -> None:
        super().__init__()
        self._fault = fault

    def write(self, text: str) -> int:
        raise self._fault

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize(
    ("fault", "status"), [(BrokenPipeError(errno.EPIPE, "Broken pipe"), 141), (OSError(errno.ENOSPC, "full"), 1)]
)
async def test_an_output_that_takes_nothing_is_no_fault_of_the_database(
    fault: OSError, status: int, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever writes it: JSON, or what is laid out for a terminal."""
    for arguments in (("signals", "--json"), ("costs",), ("doctor",)):
        monkeypatch.setattr(sys, "stdout", Ended(fault))
        assert (await do(*arguments))[0] == status, arguments


async def test_help_that_cannot_be_written_is_not_done(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse writes it, and leaves it in the buffer."""
    output = io.StringIO()

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(output, "flush", full)
    monkeypatch.setattr(output, "fileno", lambda: os.open(os.devnull, os.O_WRONLY))
    monkeypatch.setattr(sys, "stdout", output)
    assert (await do("limits", "--help"))[0] == 1


async def test_what_is_wrong_with_the_file_of_a_backup_is_told_from_what_is_wrong_with_the_database(
    do: Do, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("x")
    status, _, said = await do("backup", "new", "--set", f"database.url={empty_database}")
    assert (status, "no tables of this program" in said) == (69, True)
    for arguments, words in (
        (("backup", "mine"), "is there already"),
        (("backup", "none/x"), "no folder"),
        (("restore", "none"), "no file"),
    ):
        status, _, said = await do(*arguments)
        assert (status, words in said) == (1, True), arguments


async def test_a_database_that_is_away_is_status_69_and_words(do: Do) -> None:
    """With its address, less the password, and what to do; doctor and check tell it like whatever else is wrong."""
    away = ("--set", "database.url=postgresql://me:hidden-word@127.0.0.1:1/nothing")
    for words in ("export", "export verify", "export rebuild", "audit verify", "signals", "costs", "backup new"):
        status, out, said = await do(*words.split(), *away)
        assert (status, out) == (69, ""), words
        assert said.count("\n") == 1
        assert "nothing listens there: check that the server runs" in said
        assert "hidden-word" not in said
    for words in ("doctor", "check"):
        status, out, said = await do(words, *away)
        assert (status, said) == (1, "")
        assert "FAIL  database: the database at postgresql://me:***@127.0.0.1:1/nothing" in out
        assert "nothing listens there: check that the server runs" in out


@pytest.mark.parametrize("runs", [True, False])
async def test_an_address_that_is_gone_with_the_command_is_said_to_be(
    runs: bool, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded PostgreSQL that no daemon runs is started for the look alone."""

    @contextlib.asynccontextmanager
    async def reach(_: object) -> AsyncIterator[str]:
        yield "postgresql:///socket"

    monkeypatch.setattr(sql, "reach_database", reach)
    monkeypatch.setattr(EmbeddedPostgres, "url", "postgresql:///socket" if runs else None)
    monkeypatch.setattr(EmbeddedPostgres, "tcp_url", "postgresql://127.0.0.1/tradent")
    status, out, said = await do("sql", "--print", "--set", "database.url=embedded")
    assert (status, out) == (0, "postgresql://127.0.0.1/tradent\n")
    assert ("ends with this command" in said) is not runs


async def test_no_colour_where_the_output_is_no_terminal(do: Do) -> None:
    status, out, log = await do("doctor", "--set", "llm.batch_size=0")
    assert (status, "\x1b" in out + log) == (1, False)


def test_on_a_terminal_there_is_a_bar_which_goes_away(database: str, tmp_path: Path) -> None:
    """Where the output is none, nothing is said of what is quick: the tests above see an empty stderr."""
    (tmp_path / "config.json").write_text(json.dumps({"database": {"url": database}}))
    screen = Screen(tmp_path, "backup", "x.dump")
    try:
        assert screen.end() == 0
        screen.assert_terminal_is_as_before()
    finally:
        screen.close()
    assert b"backing up" in screen.written
    assert "━".encode() in screen.written


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(environment: dict[str, str], coloured: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"llm": {"batch_size": 0}}')
    screen = Screen(tmp_path, "doctor", environment=environment)
    try:
        assert screen.end() == 1
    finally:
        screen.close()
    assert b"FAIL" in screen.written
    assert (COLOUR.search(screen.written) is not None) == coloured


def test_what_a_backup_holds_has_a_name_for_every_table_that_is_counted() -> None:
    from database.backup import COUNTED

    assert set(backup.NAMES) == set(COUNTED)
