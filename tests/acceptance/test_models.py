"""Who rates: the user's model where it can be used, and otherwise who is named next, said once and without secrets."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.llama.build import built
from tests.llama.server import running as llama_running
from tests.servers import Answer, Json, OpenRouterServer

KEY = "sk-or-a-marker-nobody-else-has"
MODEL = "google/gemini-2.5-flash-preview-05-20"
OLD_BLOCK = """{"llm": {"enabled": true, "memory_retention_minutes": 60, "max_memory_signals": 1000,
  "csv_output_directory": "output/llm_enhanced/", "batch_export_interval_seconds": 60,
  "model": "openrouter/google/gemini-2.5-flash-preview-05-20", "batch_size": 1, "poll_interval": 1.0,
  "cleanup_interval_minutes": 30, "max_retries": 3, "lookback_periods": 20,
  "indicators_to_include": ["rsi","atr","sma_20","sma_50","volume_ratio","bb_upper","bb_lower","bb_middle",
  "stochastic_k","stochastic_d"]}}"""


def old_settings(database: str, server: OpenRouterServer, **llm: Any) -> dict[str, Any]:
    """A user's existing block, pointed at a server of ours."""
    old = json.loads(OLD_BLOCK)["llm"]
    backends = {"openrouter": {"base_url": server.base_url, "requests_per_minute": 0}}
    feed = {**FAST, "bars": 120, "symbol": "SIMBTC"}
    return settings(database, feed, llm={**old, "backends": backends, **llm})


async def test_a_users_block_of_old_runs_as_it_is(database: str, tmp_path: Path) -> None:
    """With the model alive, it rates: the verdicts, tokens and costs of its replies are in the database."""
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, {}, {"OPENROUTER_API_KEY": KEY})
        daemon.write({**old_settings(database, server), "service": {"port": 0}})
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        count = await require_agreement(daemon, Look(database), bars=120)
        assert len(server.chats) == count
        assert {request.headers["Authorization"] for request in server.chats} == {f"Bearer {KEY}"}
    assert {row["model"] for row in daemon.signals} == {f"openrouter/{MODEL}"}
    assert {(row["rating"], row["fallback"], row["cost_usd"]) for row in daemon.signals} == {("4", "false", "0.000125")}


@pytest.mark.parametrize(
    "models", [[{"id": "google/gemini-9"}], [{"id": MODEL, "expiration_date": "2026-01-31"}]], ids=["gone", "expired"]
)
async def test_a_dead_model_is_one_clear_message_at_the_start(
    database: str, tmp_path: Path, models: list[Json]
) -> None:
    """The rules rate instead and their ratings say so; there is no stream of failures, and no call to the dead one."""
    async with OpenRouterServer(models=models) as server:
        daemon = Daemon(tmp_path, {}, {"OPENROUTER_API_KEY": KEY})
        daemon.write({**old_settings(database, server), "service": {"port": 0}})
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        assert not server.chats
    await require_agreement(daemon, Look(database), bars=120)
    assert {(row["model"], row["fallback"], row["status"]) for row in daemon.signals} == {
        ("rules/baseline", "true", "completed")
    }
    warnings = [line for line in running.log.splitlines() if " WARNING " in line or " ERROR " in line]
    assert len(warnings) == 1
    assert f"openrouter/{MODEL} cannot be used" in warnings[0]
    assert "rules/baseline rates instead" in warnings[0]


async def test_no_secret_is_written_anywhere(database: str, tmp_path: Path) -> None:
    """A server that echoes the key in errors, a password in the database's URL: neither is kept or shown."""

    def echo(body: Json) -> Answer:
        return Answer({"error": {"code": 400, "message": f"bad request, you sent Bearer {KEY}"}}, status=400)

    password = urlsplit(database).password
    assert password
    environment = {"OPENROUTER_API_KEY": KEY, "DATABASE_URL": database}
    async with OpenRouterServer(default=echo, models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, {}, environment)
        alone = old_settings("embedded", server, fallback_models=[])
        daemon.write({**alone, "service": {"port": 0, "log_level": "DEBUG"}})
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        _, check, log = await daemon.do("check")
        assert server.chats
    look = Look(database)
    assert await look.value("SELECT count(*) FROM llm_calls WHERE error LIKE '%bad request%'") > 0
    seen = [running.out, running.log, check, log, await look.text()]
    seen += [path.read_text(errors="replace") for path in (tmp_path / "output").rglob("*") if path.is_file()]
    for secret in (KEY, password):
        assert not [text for text in seen if secret in text]


@pytest.mark.skipif(not built(), reason="llama-server is not built; `make llama-server` builds it")
async def test_a_real_llama_server_rates(database: str, tmp_path: Path) -> None:
    """Real replies of a real model: every verdict fits the schema, every call is kept with its tokens."""
    feed = {**FAST, "bars": 50, "symbol": "SIMBTC"}
    with llama_running(tmp_path / "server.log") as url:
        llm = {"model": "llama_cpp/local", "backends": {"llama_cpp": {"base_url": url}}}
        daemon = Daemon(tmp_path, settings(database, feed, llm=llm))
        daemon.settings["trading"]["strategies"] = [{"type": "stochastic_reversal"}]
        daemon.write(daemon.settings)
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    look = Look(database)
    count = await require_agreement(daemon, look, bars=50)
    assert count > 2
    assert {row["model"] for row in daemon.signals} == {"llama_cpp/local"}
    assert await look.value("SELECT count(rating) FROM llm_analysis_results WHERE status = 'completed'") == count
    whole = "prompt_tokens > 40 AND completion_tokens > 10 AND reply <> '' AND error IS NULL"
    assert await look.value(f"SELECT count(*) FROM llm_calls WHERE {whole}") == count
    assert await look.value("SELECT bool_and(confidence BETWEEN 0 AND 1 AND rationale IS NOT NULL) FROM "
                            "llm_analysis_results")  # fmt: skip
