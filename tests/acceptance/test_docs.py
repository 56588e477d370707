"""Every command in the documentation does what it says, run as it stands there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import kept_port

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"`((?:docs|database|llm_integration|trading|tests|bench)/[\w./-]+)`|\]\(([^)#:]+)\)")
BY_CI = {"make run", "make test", "make test-all", "make bench", "make llama-server", "make docs"}
LIMIT_S = 120


def commands() -> list[str]:
    """The command lines of every page, comments taken off, each once; test_backup_docs.py has those of backup.md."""
    pages = [page for page in PAGES if page.name != "backup.md"]
    lines = [line for page in pages for block in BLOCK.findall(page.read_text("utf-8")) for line in block.splitlines()]
    found = [re.sub(r"\s+# .*$", "", line).strip() for line in lines]
    return [line for line in dict.fromkeys(found) if line and not line.startswith("#") and line not in BY_CI]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    folder.chmod(0o755)
    with kept_port() as port:
        settings = {"trading": {"feed": {"type": "simulated"}}, "service": {"port": port}}
        (folder / "config.json").write_text(json.dumps(settings))
        yield folder


def shell(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    port = json.loads((home / "config.json").read_text())["service"]["port"]
    command = command.replace(":8710", f":{port}")
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env={**os.environ, "PATH": path}, input="", text=True,
        capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Path]:
    """A daemon on the simulated market, which has rated something."""
    program = [sys.executable, str(ROOT / "main_with_database.py"), "run"]
    with subprocess.Popen(program, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as daemon:
        rows = home / "output" / "llm_enhanced" / "llm_signals.csv"
        deadline = time.monotonic() + LIMIT_S
        try:
            while not (rows.exists() and rows.stat().st_size > 1000):
                assert daemon.poll() is None, "the daemon has ended"
                assert time.monotonic() < deadline, "the daemon has rated nothing"
                time.sleep(0.1)
            yield home
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                raise


@pytest.mark.parametrize("command", [line for line in commands() if "tradent run" not in line])
def test_a_documented_command_works_beside_a_running_daemon(command: str, running: Path) -> None:
    done = shell(command, running)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [line for line in commands() if "tradent run" in line])
def test_a_documented_run_ends_by_itself(command: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    feed = {"type": "simulated", "bars": 60, "speed": "max", "symbols": ["SIMBTC"]}
    (tmp_path / "config.json").write_text(json.dumps({"trading": {"feed": feed}, "service": {"port": 0}}))

    done = shell(command, tmp_path)

    assert done.returncode == 0, done.stderr


def test_make_commands_named_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)`", page.read_text("utf-8"))}

    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_a_page_points_to_are_there(page: Path) -> None:
    named = {first or second for first, second in LINK.findall(page.read_text("utf-8"))}
    examples = {name for name in named if name.endswith(("inside_bar.py", "jsonl.py", "house.py"))}
    missing = [name for name in named - examples if not (ROOT / name).exists() and not (page.parent / name).exists()]

    assert missing == []


def test_settings_shown_in_the_documentation_load(tmp_path: Path) -> None:
    from service.settings import Settings

    shown = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "config.json").write_text(shown[0])

    assert Settings.load(tmp_path / "config.json").trading.feed.type == "replay"
