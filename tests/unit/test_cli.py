"""The command line: what is asked, what is refused, and with which exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.cli import run_command

Told = pytest.CaptureFixture[str]

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "several at once": (
        {"llm": {"batch_size": 0, "nope": 1, "model": "foo/bar"}, "service": {"port": "x"}},
        [
            "llm.batch_size = 0: ", "llm.nope: there is no such key", "service.port = 'x': ",
            "llm.model = 'foo/bar': no backend is named",
        ],
    ),
    "an unknown section": ({"lmm": {}}, ["lmm: there is no such key"]),
    "a section that is none": ({"llm": 3}, ["llm = 3: "]),
    "an unknown feed": (
        {"trading": {"feed": {"type": "telepathy"}}}, ["trading.feed.type = 'telepathy': type must be one of"],
    ),
    "a feed's unknown key": (
        {"trading": {"feed": {"type": "simulated", "sped": 1}}}, ["trading.feed.sped: simulated has no such key"],
    ),
    "an unknown strategy": (
        {"trading": {"strategies": [{"type": "hunch"}]}}, ["trading.strategies.0.type = 'hunch': type must be one of"],
    ),
    "a strategy that is not to be found": (
        {"trading": {"strategies": [{"type": "nowhere.at_all:Mine"}]}}, ["trading.strategies.0: strategy 'nowhere.at"],
    ),
    "a strategy named twice": (
        {"trading": {"strategies": [{"type": "macd_cross"}, {"type": "macd_cross"}]}},
        ["trading.strategies: strategy macd_cross_12_26_9 is configured twice"],
    ),
    "an unknown backend": ({"llm": {"model": "oracle/delphi"}}, ["llm.model = 'oracle/delphi': no backend is named"]),
    "an unknown fallback": ({"llm": {"fallback_models": ["x/y"]}}, ["llm.fallback_models.0 = 'x/y': no backend is"]),
    "an unknown indicator": (
        {"llm": {"indicators_to_include": ["rsi", "moon_phase"]}}, ["llm.indicators_to_include.1 = 'moon_phase': no i"],
    ),
    "a database that is none": ({"database": {"url": "mysql://me:hidden-word@host/db"}}, ["database.url: expected "]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and an environment without settings of ours."""
    for name in list(os.environ):
        if name.startswith(("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_told_line_by_line(folder: Path, case: str, capsys: Told) -> None:
    """Exit 78, one line per mistake and nothing else; nothing is started or made."""
    wrong, expected = WRONG[case]
    (folder / "config.json").write_text(json.dumps(wrong))
    assert run_command([]) == 78
    out, log = capsys.readouterr()
    lines = log.splitlines()
    assert (out, len(lines)) == ("", len(expected))
    for start in expected:
        assert [line for line in lines if line.startswith(start)], (start, lines)
    assert "hidden-word" not in log
    assert not (folder / "output").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "config.json: there is no such file; name one with --config, or write {} into it for the defaults"),
        (b"{'llm': 1}", "config.json: line 1, column 2: "),
        (b"\xff\x00", "config.json: is not UTF-8 text"),
        (b"[]", "config.json: expected a JSON object"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_told(
    folder: Path, content: bytes | None, expected: str, capsys: Told
) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    assert run_command(["run"]) == 78
    log = capsys.readouterr().err
    assert len(log.splitlines()) == 1
    assert log.startswith(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TRADENT_LLM__NO_SUCH", "1", "llm.no_such: there is no such key"),
        ("TRADENT_NO_SUCH", "1", "TRADENT_NO_SUCH: there is no such key"),
        ("TRADENT_LLM__BATCH_SIZE", "many", "llm.batch_size = 'many': "),
        ("TRADENT_TRADING__STRATEGIES", "[oops", "trading: a variable or credential"),
        ("DATABASE_URL", "hidden-word", "database.url: expected "),
    ],
)
def test_a_wrong_environment_is_told(
    folder: Path, name: str, value: str, expected: str, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that sets nothing, or something wrong, is a mistake as one in the file is."""
    monkeypatch.setenv(name, value)
    assert run_command(["run"]) == 78
    log = capsys.readouterr().err
    assert len(log.splitlines()) == 1
    assert log.startswith(expected)
    assert "hidden-word" not in log


@pytest.mark.parametrize("given", ["llm.batch_size", "llm.batch_size=many", "llm.batch_size.x=1", "=3", "llm=1"])
def test_a_wrong_set_is_told(folder: Path, given: str, capsys: Told) -> None:
    assert run_command(["run", "--set", given]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["llm.model=gpt-4"], "llm.model = 'gpt-4': expected backend/model, such as llama_cpp/local"),
        (["llm.model=gpt/4"], "llm.model = 'gpt/4': no backend is named 'gpt'; there are anthropic, "),
        (['llm.prices={"x": {"input_per_million": 1, "output_per_million": 1}}'], "llm.prices.x: expected backend/"),
        (["llm.answer_mode=line", "llm.batch_size=4"], "llm: batch_size = 4: answer_mode line asks about one signal"),
    ],
)
def test_settings_that_name_no_model_or_exclude_each_other_are_told(
    folder: Path, given: list[str], said: str, capsys: Told
) -> None:
    assert run_command(["run", *(word for one in given for word in ("--set", one))]) == 78
    log = capsys.readouterr().err
    assert len(log.splitlines()) == 1
    assert log.startswith(said)


def test_a_set_below_a_value_is_told(folder: Path, capsys: Told) -> None:
    """Two --set that contradict each other are a mistake, not a crash."""
    assert run_command(["run", "--set", "llm.batch_size=4", "--set", "llm.batch_size.x=1"]) == 78
    assert "llm.batch_size" in capsys.readouterr().err


def test_the_version_is_told(capsys: Told) -> None:
    assert run_command(["version"]) == 0
    with pytest.raises(SystemExit):
        run_command(["--version"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("tradent ")


def test_a_reader_that_has_had_enough_is_no_fault() -> None:
    """As in `tradent check | head -1`: no traceback, and the exit status of a broken pipe."""
    door = Path(__file__).parents[2] / "main_with_database.py"
    outlet, inlet = os.pipe()
    os.close(outlet)
    try:
        ran = subprocess.run(
            [sys.executable, door, "version"], stdout=inlet, stderr=subprocess.PIPE, text=True, timeout=180, check=False
        )
    finally:
        os.close(inlet)
    assert (ran.returncode, ran.stderr) == (141, "")


HERE = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["service.cli", "service.commands.run", "service.daemon"])
def test_an_interrupt_while_the_program_is_still_loaded_is_no_fault(module: str) -> None:
    """Which takes a second: Ctrl-C ends it as it does later, without a trace of the imports."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == '{module}': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "import main_with_database\n"
        "sys.argv[1:] = ['run']\n"
        "main_with_database.main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False, cwd=HERE
    )
    assert (ran.returncode, ran.stderr) == (130, "")


ASKING = "status tail pause resume limits model reload retry+1 skip+1 acts"
SLOW_TO_LOAD = {"alembic", "asyncpg", "ccxt", "numpy", "pandas", "prometheus_client", "sqlalchemy", "talib"}


@pytest.mark.parametrize(
    ("commands", "unloaded"),
    [
        ([["--help"], ["version"]], SLOW_TO_LOAD | {"aiohttp", "asyncio", "pydantic", "rich", "shtab"}),
        (
            [["tail", "--help"], *([*each.split("+"), "--set", "service.port=1"] for each in ASKING.split()
                                   if each != "tail")],
            SLOW_TO_LOAD | {"shtab"},
        ),
    ],
)  # fmt: skip
def test_what_only_helps_or_asks_the_daemon_loads_little(
    folder: Path, commands: list[list[str]], unloaded: set[str]
) -> None:
    """All that the daemon needs is a second of imports."""
    code = (
        "import contextlib, sys\n"
        "from service.cli import run_command\n"
        f"for words in {commands}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        assert run_command(words) in (0, 1), words\n"
        "sys.stderr.write(' '.join(['loaded', *sys.modules]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert ran.returncode == 0
    loaded = set(ran.stderr.partition("loaded ")[2].split())
    assert "service.cli" in loaded
    assert loaded.isdisjoint(unloaded)


@pytest.mark.parametrize(
    "arguments", [["run", "--role", "nobody"], ["fly"], ["run", "fly"], ["status", "--role", "all"]]
)
def test_an_argument_nobody_knows_is_told_with_usage(folder: Path, arguments: list[str], capsys: Told) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(arguments)
    assert left.value.code == 2
    assert "usage: tradent" in capsys.readouterr().err


def test_options_alone_mean_run(folder: Path, capsys: Told) -> None:
    """`--config FILE` without a command is `run --config FILE`, also where the file is called like a command."""
    with pytest.raises(SystemExit):
        run_command(["runn"])
    assert "invalid choice: 'runn' (choose from" in capsys.readouterr().err
    assert run_command(["--config", "status"]) == 78
    assert capsys.readouterr().err.startswith("status: there is no such file")


def test_status_says_that_nobody_answers(folder: Path, capsys: Told) -> None:
    assert run_command(["status", "--set", "service.port=1"]) == 1
    told = capsys.readouterr().err
    assert "no daemon answers at http://127.0.0.1:1/status" in told
    assert len(told.splitlines()) == 1


def test_a_strategy_in_the_working_directory_is_found(folder: Path, capsys: Told) -> None:
    """`module:Class` is looked for beside config.json, whichever way the program was started; its faults are told."""
    (folder / "my_rules.py").write_text("class Mine:\n    name = 'mine'\n")
    (folder / "config.json").write_text(json.dumps({"trading": {"strategies": [{"type": "my_rules:Mine"}]}}))
    assert run_command(["run"]) == 78
    told = capsys.readouterr().err
    assert told.startswith("trading.strategies.0: strategy 'my_rules:Mine' is not one yet")
