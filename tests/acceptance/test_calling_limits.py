"""What may be spent and how often may be asked, in whole runs: over restarts, and shared by processes."""

import asyncio
import copy
import json
import re
from collections import Counter
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench.strict_server import stats, strict_server
from tests.acceptance.world import KEY, MODEL, asking, finished, ratings
from tests.daemon import Daemon, Look
from tests.llama.build import built
from tests.llama.server import running as llama_running
from tests.servers import Answer, Json, OpenRouterServer, Step, completion, rating_for

COST = Decimal("0.000125")
SPENT = "SELECT coalesce(sum(cost_usd), 0) FROM llm_calls WHERE backend = 'openrouter'"
WORST = Decimal("0.00015")


def limited(database: str, server: OpenRouterServer, daily_usd: float, bars: int = 120, **llm: Any) -> dict[str, Any]:
    """A model whose calls cost $0.000125, and may cost a little more, and the most that may be spent on it in a day."""
    price = {"input_per_million": 0.005, "output_per_million": 0.005, "per_request": 0.00012}
    more = {"max_tokens": 256, "max_batch_signals": 1, "prices": {f"openrouter/{MODEL}": price}, **llm}
    budget = {"daily_usd": daily_usd, **more.pop("budget", {})}
    return asking(database, server, bars, budget=budget, **more)


async def require_books(look: Look, limit: float) -> Decimal:
    """Calls, days' costs and budget tell the same sum, which is within the limit. The sum."""
    spent: Decimal = await look.value(SPENT)
    assert spent <= Decimal(str(limit))
    assert await look.value("SELECT sum(cost_usd) FROM v_llm_costs_daily WHERE backend = 'openrouter'") == spent
    kept = await look.rows(
        "SELECT spent_usd, reserved_usd, calls_under_way FROM v_llm_budgets WHERE kind IN ('day', 'month')"
    )
    assert [tuple(row) for row in kept] == [(spent, 0, 0)] * 2
    return spent


@pytest.mark.parametrize("at_limit", ["free", "skip"])
async def test_a_budget_reached_in_mid_run_is_held_and_outlives_a_restart(
    database: str, tmp_path: Path, at_limit: str
) -> None:
    """The rest is rated by what costs nothing, or skipped; a second run goes on with what the first one spent."""
    limit = 0.0026
    more: dict[str, Any] = {"budget": {"at_limit": at_limit}, "fallback_models": ["rules/baseline"]}
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, limited(database, server, limit, bars=45, **more), KEY)
        await finished(daemon)
        look = Look(database)
        first = await require_books(look, limit)
        assert {row["model"] for row in await ratings(daemon, look)} == {f"openrouter/{MODEL}"}
        daemon.write(limited(database, server, limit, bars=120, **more))
        run = await finished(daemon)
    rows = await ratings(daemon, look)
    spent = await require_books(look, limit)
    assert first < spent
    assert spent > Decimal(str(limit)) - 8 * WORST
    assert spent == len(server.chats) * COST
    rest = [row for row in rows if row["model"] != f"openrouter/{MODEL}"]
    assert len(rows) - len(rest) == len(server.chats)
    assert len(rest) > 10
    for row in rest:
        if at_limit == "free":
            assert (row["status"], row["model"], row["fallback"]) == ("completed", "rules/baseline", True)
        else:
            assert (row["status"], row["rating"], row["cost_usd"]) == ("skipped", None, None)
            assert "llm.budget.daily_usd: " in row["error"]
    assert await look.value("SELECT count(*) FROM v_llm_budgets WHERE kind = 'run' AND reserved_usd = 0") == 2
    assert run.log.count("the budget is used up: llm.budget.daily_usd: ") == 1


class Meeting(OpenRouterServer):
    """Answers nobody before so many processes have asked, which the header X-From tells apart."""

    def __init__(self, parties: int) -> None:
        super().__init__(models=[{"id": MODEL}])
        self.asked: Counter[str] = Counter()
        self._parties = parties
        self._met = asyncio.Event()

    async def _play(self, step: Step, request: web.Request) -> web.StreamResponse:
        self.asked[request.headers["X-From"]] += 1
        if len(self.asked) >= self._parties:
            self._met.set()
        await self._met.wait()
        return await super()._play(step, request)


async def rated_by_two(folder: Path, own: dict[str, Any]) -> list[Daemon]:
    """Two workers, each in a folder of its own, that rate together what a trader has left."""
    daemons = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        settings = copy.deepcopy(own)
        settings["llm"] |= {"max_memory_signals": 5, "max_concurrency": 5}
        settings["llm"]["backends"]["openrouter"]["headers"] = {"X-From": name}
        daemons.append(Daemon(folder / name, settings, KEY))
    await finished(daemons[0], "--role", "trader")
    async with asyncio.TaskGroup() as group:
        for daemon in daemons:
            group.create_task(finished(daemon, "--role", "worker"))
    return daemons


async def test_two_processes_together_stay_within_a_budget(database: str, tmp_path: Path) -> None:
    limit = 0.0026
    async with Meeting(2) as server:
        daemons = await rated_by_two(tmp_path, limited(database, server, limit, fallback_models=["rules/baseline"]))
    look = Look(database)
    for daemon in daemons:
        rows = await ratings(daemon, look)
    spent = await require_books(look, limit)
    assert spent > Decimal(str(limit)) - 8 * WORST
    assert spent == sum(server.asked.values()) * COST
    assert set(server.asked) == {"one", "two"}
    assert {(row["status"], row["model"]) for row in rows} == {
        ("completed", f"openrouter/{MODEL}"), ("completed", "rules/baseline")
    }  # fmt: skip
    assert await look.value("SELECT count(DISTINCT run_id) FROM llm_calls WHERE backend = 'openrouter'") == 2


async def test_two_processes_on_one_key_are_never_refused(database: str, tmp_path: Path) -> None:
    """A server that allows four requests in ten seconds, and a network that is late, see none too many."""
    with strict_server(requests=4, window=10, late=0.3, late_by=0.5, model=MODEL) as base_url:
        async with OpenRouterServer() as unused:
            own = asking(database, unused, bars=60)
        own["llm"]["backends"]["openrouter"] |= {"base_url": base_url, "requests_per_10_seconds": 4}
        daemons = await rated_by_two(tmp_path, own)
        told = stats(base_url)
    look = Look(database)
    for daemon in daemons:
        rows = await ratings(daemon, look)
    assert {(row["status"], row["rating"], row["fallback"]) for row in rows} == {("completed", 4, False)}
    assert told["refused"] == 0
    assert told["served"] == await look.value("SELECT count(*) FROM llm_calls") > 4
    assert await look.value("SELECT count(*) FROM llm_calls WHERE http_status <> 200") == 0
    assert await look.value("SELECT count(DISTINCT worker) FROM llm_audit_chains") == 2
    assert await look.value("SELECT max(cardinality(signal_ids)) FROM llm_calls") > 1


def rating_of(strategy: str, closed: str) -> int:
    """A rating that is a signal's own."""
    return 1 + sha256(f"{strategy} {closed}".encode()).digest()[0] % 5


async def test_signals_in_one_request_each_get_their_own_verdict(database: str, tmp_path: Path) -> None:
    """Whatever the order of the reply; the one that it leaves out is asked about alone."""
    signal = re.compile(r'BEGIN SIGNAL (\d+)\n.*?strategy: "(\S+)"\n.*?closed at \(UTC\): (\S+ \S+)\n', re.DOTALL)

    def mixed(body: Json) -> Answer:
        shown = signal.findall(body["messages"][-1]["content"])
        verdict = json.loads(rating_for(None))
        each = [{"signal": int(n), **verdict, "rating": rating_of(strategy, at)} for n, strategy, at in shown]
        if len(each) == 1:
            return Answer(completion(json.dumps({**verdict, "rating": each[0]["rating"]})))
        return Answer(completion(json.dumps({"verdicts": [one for one in each[::-1] if one["signal"] != 2]})))

    async with OpenRouterServer(default=mixed, models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server, batch_size=5), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    assert [row["rating"] for row in rows] == [
        rating_of(row["strategy"], f"{row['signal_time']:%Y-%m-%d %H:%M:%S}") for row in rows
    ]
    asked = await look.rows("SELECT signal_ids, parsed::text FROM llm_calls ORDER BY started_at")
    batches = [call for call in asked if len(call["signal_ids"]) > 1]
    alone = Counter(call["signal_ids"][0] for call in asked if len(call["signal_ids"]) == 1)
    assert len(batches) > 3
    for call in batches:
        left_out = [one for one, said in json.loads(call["parsed"]).items() if "abstention" in said]
        assert left_out == [str(call["signal_ids"][1])]
        assert alone[call["signal_ids"][1]] == 1


@pytest.mark.skipif(not built(), reason="llama-server is not built; `make llama-server` builds it")
async def test_the_local_model_decides_once_little_of_the_budget_is_left(database: str, tmp_path: Path) -> None:
    """A real llama-server takes over, as the route says; what it saves stands beside what was spent."""
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        with llama_running(tmp_path / "server.log") as url:
            local = {"local_model": "llama_cpp/local", "local_below_budget": 0.5, "max_concurrency": 1}
            own = limited(database, server, 0.001, bars=90, **local)
            own["llm"]["backends"]["llama_cpp"] = {"base_url": url}
            own["trading"]["strategies"] = [{"type": "stochastic_reversal"}]
            daemon = Daemon(tmp_path, own, KEY)
            await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    await require_books(look, 0.001)
    routes = Counter((row["model"], row["route"].partition(":")[0], row["fallback"]) for row in rows)
    paid, at_home = (f"openrouter/{MODEL}", "default", False), ("llama_cpp/local", "budget-local", False)
    assert set(routes) == {paid, at_home}
    assert routes[paid] == 5
    left = await look.rows("SELECT route FROM llm_calls WHERE backend = 'llama_cpp'")
    assert all(float(row[0].partition(" % of the day's")[0].rpartition(" ")[2]) < 50 for row in left)
    (saved,) = await look.rows("SELECT savings_usd, savings_against FROM v_llm_costs_daily WHERE backend = 'llama_cpp'")
    assert saved["savings_against"] == f"openrouter/{MODEL}"
    assert saved["savings_usd"] >= len(left) * Decimal("0.00012")
