"""What is installed from the built package works away from its sources, and programs that use it end by themselves."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.dialects import OpenAIServer
from tests.servers import Answer, Hang, completion, streamed

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("trading", "llm_integration", "database", "service")
BEGINNING = """
from llm_integration import LocalChatCompletion, get_llm_client
client = get_llm_client(timeout_s=20)
asked = [{"role": "user", "content": "Up or down?"}]
"""
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and forks are POSIX's")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, unpacked; it is built from a copy, so that nothing is left among the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "main_with_database.py"):
        shutil.copy(ROOT / name, sources / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, folder], cwd=sources, check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        server.default = lambda body: Answer(completion("up"))
        yield server


def test_the_package_has_every_file_of_the_sources(installed: Path) -> None:
    def files(folder: Path) -> set[Path]:
        found = {path.relative_to(folder) for name in PACKAGES for path in (folder / name).rglob("*")}
        return {path for path in found if path.suffix and "__pycache__" not in path.parts}

    assert files(ROOT) == files(installed)


async def test_an_empty_folder_with_the_smallest_settings_is_enough(installed: Path, tmp_path: Path) -> None:
    for arguments, status, said in (
        (["check"], 78, "write {} into it for the defaults"),
        (["check", "--set", "llm.model=rules/baseline"], 0, "prompt: rate_signal.v1"),
        (["audit", "verify"], 69, "`run` without --no-migrate applies them"),
        (["export"], 69, "`run` without --no-migrate applies them"),
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "main_with_database", *arguments, cwd=tmp_path, env=_environment(installed),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 100)
        assert (process.returncode, "Traceback" in output.decode()) == (status, False), output.decode()
        assert said in output.decode()
        (tmp_path / "config.json").write_text("{}")


async def test_a_client_that_was_never_used_ends_with_its_program(server: OpenAIServer) -> None:
    assert await _ended("", server) == (0, "")


async def test_a_stream_that_nobody_reads_on_does_not_hold_its_program_up(server: OpenAIServer) -> None:
    server.script = [streamed(completion("word " * 200), size=5)]
    program = "chunks = client.chat(asked, stream=True)\nprint(bool(next(chunks).delta))"
    assert await _ended(program, server) == (0, "True\n")


async def test_a_forked_child_has_a_client_of_its_own_and_its_parent_goes_on(server: OpenAIServer) -> None:
    program = """
import multiprocessing
def ask():
    print(client.generate("child").text, LocalChatCompletion.create(asked)["object"], len(client.calls), flush=True)
print(client.generate("first").text, flush=True)
child = multiprocessing.get_context("fork").Process(target=ask)
child.start()
child.join(60)
print(child.exitcode, client.generate("last").text, [call.error_class for call in client.calls])
"""
    status, output = await _ended(program, server)
    assert output.splitlines() == ["up", "up chat.completion 2", "0 up [None, None]"]
    assert status == 0


async def test_a_child_that_ends_as_programs_do_leaves_its_parent_s_connections_alone(server: OpenAIServer) -> None:
    program = """
import os
client.generate("first")
child = os.fork()
if child:
    os.waitpid(child, 0)
    print(client.generate("last").text, [call.error_class for call in client.calls])
"""
    assert await _ended(program, server, warnings="ignore") == (0, "up [None, None]\n")


@pytest.mark.parametrize("call", ["client.generate('x')", "list(client.chat(asked, stream=True))"])
async def test_ctrl_c_ends_a_call_with_nothing_but_the_interrupt(call: str, server: OpenAIServer) -> None:
    server.script = [Hang()]
    process = await _begun(call, server)
    await asyncio.wait_for(server.arrived.wait(), 60)
    process.send_signal(signal.SIGINT)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == -signal.SIGINT
    assert output.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert "During handling" not in output.decode()


async def _ended(program: str, server: OpenAIServer, warnings: str = "error") -> tuple[int | None, str]:
    """Exit status and output of a program that begins with a client, once it has ended by itself."""
    process = await _begun(program, server, warnings)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, output.decode()


async def _begun(program: str, server: OpenAIServer, warnings: str = "error") -> asyncio.subprocess.Process:
    environment = {"LLM_BACKEND": "openai", "LLM_MODEL": "test/model", "OPENAI_BASE_URL": server.base_url}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", warnings, "-c", BEGINNING + program, env={**_environment(ROOT), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _environment(sources: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRADENT_", "LLM_", "OPENAI_"))}
    return {**kept, "PYTHONPATH": str(sources)}
