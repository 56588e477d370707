"""docs/models.md and README.md: their programs run as shown, their settings are taken as they stand."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_integration.config import LLMConfig
from llm_integration.library.settings import client_config
from tests.dialects import OpenAIServer
from tests.servers import Answer, Json, completion

ROOT = Path(__file__).resolve().parents[2]
PAGE = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/models.md", "README.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        server.default = _answer
        yield server


def _answer(body: Json) -> Answer:
    return Answer(completion('{"trend": "up"}', model=body["model"]))


@pytest.mark.parametrize("program", blocks("python"), ids=lambda program: program.splitlines()[0])
async def test_each_program_runs_as_shown(program: str, server: OpenAIServer, tmp_path: Path) -> None:
    import asyncio

    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TRADENT_", "LLM_", "OPENAI_"))},
        "PYTHONPATH": str(ROOT), "LLM_BACKEND": "openai", "LLM_MODEL": "test/model", "OPENAI_BASE_URL": server.base_url,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, errors.decode()) == (0, "")
    assert output


@pytest.mark.parametrize("settings", blocks("json"))
def test_each_piece_of_settings_is_taken(settings: str) -> None:
    LLMConfig(**json.loads(settings).get("llm", {}))


def test_the_client_settings_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = client_config({})
    assert config.model == "openai/mistral-small"
    assert (config.temperature, config.requests_per_minute, config.cache_ttl_seconds) == (0.2, 60, 0)
    assert config.backends["openai"].base_url == "http://127.0.0.1:8000/v1"
