"""Completion in real shells: what is typed is completed as the parser has it."""

import contextlib
import io
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from service.cli import run_command
from service.commands.completion import SHELLS

LIMIT_S = 120.0


def script(shell: str) -> str:
    """What `tradent completion` prints for a shell."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run_command(["completion", shell]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def for_bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "tradent.bash"
    file.write_text(script("bash"))
    return file


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tradent back", {"backup"}),
        ("tradent run --ro", {"--role"}),
        ("tradent run --role ", {"all", "trader", "worker"}),
        ("tradent export ", {"verify", "rebuild"}),
        ("tradent run --config set", {"settings.json"}),
        ("tradent restore set", {"settings.json"}),
    ],
)
def test_bash_offers_what_fits(for_bash: Path, typed: str, offered: set[str], tmp_path: Path) -> None:
    """Commands, options, choices and files, each where it belongs."""
    (tmp_path / "settings.json").write_text("{}")
    words = typed.split(" ")
    asking = f"""
        source {for_bash}
        COMP_WORDS=({" ".join(word or "''" for word in words)}) COMP_CWORD={len(words) - 1}
        COMP_LINE={typed!r} COMP_POINT={len(typed)}
        _shtab_tradent tradent {words[-1] or "''"} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    asked = subprocess.run(
        ["bash", "--norc", "-c", asking], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert asked.stderr == ""
    assert {line.strip() for line in asked.stdout.splitlines()} == offered


def test_a_tab_in_a_bash_completes_the_word(for_bash: Path) -> None:
    """An interactive bash on a pseudo-terminal; Tab, as a person presses it."""
    child, place = pty.fork()
    if child == 0:
        os.environ["TERM"] = "dumb"
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        os.write(place, f"PS1='ready> '; source {for_bash}; echo sourced-$?\n".encode())
        read_until(place, b"sourced-0")
        os.write(place, b"tradent backu\t")
        read_until(place, b"tradent backup ")
    finally:
        os.close(place)
        os.waitpid(child, 0)


def read_until(place: int, expected: bytes) -> None:
    """Wait for what the terminal shows."""
    shown, deadline = b"", time.monotonic() + LIMIT_S
    while expected not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([place], [], [], 1)[0]:
            shown += os.read(place, 65536)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_for_a_shell_is_one_it_can_read(shell: str, tmp_path: Path) -> None:
    file = tmp_path / f"tradent.{shell}"
    file.write_text(script(shell))
    assert "backup" in file.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    arguments = {"fish": ["--no-execute"], "tcsh": ["-f", "-n"]}.get(shell, ["-n"])
    subprocess.run([shell, *arguments, str(file)], timeout=LIMIT_S, check=True)
