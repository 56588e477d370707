"""A whole run with servers that send keys and passwords back: none is in a table, a file, a log or a status."""

import json
import signal
from itertools import count
from pathlib import Path

from tests.acceptance.world import MODEL, asking
from tests.daemon import Daemon, Look
from tests.dialects import OpenAIServer
from tests.servers import Answer, Json, OpenRouterServer, completion, rating_for

KEY = "sk-or-marker-0123456789abcdef"
PASSWORD = "marked-word-9876543210"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
MANY = 24


def echoing() -> OpenRouterServer:
    """In turn: a good verdict that quotes the key, an error inside a 200 that does, what is no JSON, and prose."""
    turn = count()

    def answer(body: Json) -> Answer:
        verdict = {**json.loads(rating_for(None)), "rationale": f"You sent {KEY}.", "risks": [KEY], "regime": KEY}
        return [
            Answer(completion(json.dumps(verdict), model=KEY, id=KEY)),
            Answer({"error": {"message": f"{'x' * 385} {KEY}", "code": 502}}),
            Answer(completion(json.dumps(verdict))),
            Answer(f"{'x' * 105} {KEY}"),
            Answer(completion(f"Action: {KEY}")),
        ][next(turn) % 5]

    return OpenRouterServer(default=answer, models=[{"id": MODEL}])


def texts_in(folder: Path) -> dict[str, str]:
    """Every file that the run has written: logs, journal, CSV, audit."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "config.json"]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8", "replace") for path in files}


async def test_no_secret_outlives_a_run_whatever_servers_send_back(database: str, tmp_path: Path) -> None:
    async with echoing() as server, OpenAIServer() as other:
        other.default = lambda body: Answer({"error": {"message": f"not for {PASSWORD}", "code": 500}}, 500)
        own = asking(
            database, server, fallback_models=["openai/test/model", "rules/baseline"], cache_ttl_seconds=600,
            max_batch_signals=1, max_retries=1, audit={"jsonl": "calls.jsonl"},
        )  # fmt: skip
        address = other.base_url.replace("//", f"//user:{PASSWORD}@")
        own["llm"]["backends"]["openai"] = {"base_url": address, "requests_per_minute": 0}
        daemon, look = Daemon(tmp_path, own, {"OPENROUTER_API_KEY": KEY}), Look(database)
        async with daemon.start() as running:
            await look.until(f"SELECT count(*) >= {MANY} FROM llm_analysis_results")
            shown = [await daemon.do("status", "--json"), await daemon.do("check")]
            running.send(signal.SIGTERM)
            assert await running.ended() == 0
    for (table,) in await look.rows(TABLES):
        shown += [row[0] for row in await look.rows(f'SELECT row_to_json(t)::text FROM "{table}" t')]
    kept = texts_in(tmp_path)
    said = "\n".join(map(str, shown))
    assert "[key removed]" in said and "[key removed]" in kept["calls.jsonl"]
    assert any(request.headers.get("Authorization", "").startswith("Basic ") for request in other.chats)
    for secret in (KEY[:10], PASSWORD[:8]):
        assert secret not in said
        assert [name for name, text in kept.items() if secret in text] == []
