"""SIGTERM and SIGINT end the program in time, cleanly, and nothing that was under way is lost."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.proxy import Proxy
from tests.servers import Hang, LlamaServer
from tests.waiting import until

GRACE_S = 8.0
"""Half of it is for work under way, and a half of that to hand tasks back and to say so, which a slow machine needs."""
FOR_EVER = 3600.0
ENDLESS = {**FAST, "speed": 20_000.0}


def asking(server: LlamaServer, **llm: Any) -> dict[str, Any]:
    """An `llm` section that asks this server and nobody else."""
    backends = {"llama_cpp": {"base_url": server.base_url}}
    waits = {"timeout_seconds": FOR_EVER, "deadline_seconds": FOR_EVER}
    return {"model": "llama_cpp/local", "backends": backends, "max_retries": 1, "max_concurrency": 3, **waits, **llm}


def by_way_of(proxy: Proxy) -> dict[str, Any]:
    """Settings of a daemon that waits for ever for PostgreSQL but when it is told to stop."""
    chosen = settings(proxy.url, {**FAST, "speed": 10_000.0, "bars": 700, "symbol": "SIMBTC"})
    waits = ("connect_timeout_seconds", "acquire_timeout_seconds", "command_timeout_seconds")
    chosen["database"] |= dict.fromkeys(waits, FOR_EVER)
    return {**chosen, "service": {"shutdown_grace_seconds": GRACE_S, "port": 0}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_drains_and_exits_0(database: str, tmp_path: Path, number: signal.Signals) -> None:
    """What was seen is committed, what was under way is rated and exported, and the summary says how it ended."""
    daemon = Daemon(tmp_path, settings(database, ENDLESS))
    async with daemon.start() as running:
        await Look(database).until("SELECT count(*) > 100 FROM llm_analysis_results")
        running.send(number)
        assert await running.ended() == 0
    look = Look(database)
    assert await look.value("SELECT count(*) FROM llm_enhancement_tasks WHERE status = 'processing'") == 0
    assert await look.value("SELECT count(*) FROM llm_analysis_results") == len(daemon.signals)
    assert "Traceback" not in running.log
    assert "ERROR" not in running.log


async def test_a_model_that_hangs_holds_the_end_up_for_the_grace_period_only(database: str, tmp_path: Path) -> None:
    """What the model did not answer goes back to the queue, its attempt not counted, and the next run rates it."""
    daemon = Daemon(tmp_path, {})
    async with LlamaServer() as server:
        service = {"shutdown_grace_seconds": GRACE_S, "port": 0}
        daemon.write(settings(database, {**FAST, "bars": 100}, llm=asking(server), service=service))
        answer = server.default
        server.default = lambda body: answer(body) if "canary" in str(body) else Hang()
        async with daemon.start() as running:
            await Look(database).until("SELECT count(*) > 2 FROM llm_enhancement_tasks WHERE status = 'processing'")
            await until(lambda: server.under_way >= 3)
            running.send(signal.SIGTERM)
            assert await running.ended() == 0
        look = Look(database)
        tasks = await look.rows("SELECT DISTINCT status, attempts FROM llm_enhancement_tasks")
        assert [tuple(task) for task in tasks] == [("pending", 0)]
        server.default = answer
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    await require_agreement(daemon, look, bars=300)
    assert {row["status"] for row in daemon.signals} == {"completed"}


async def test_a_second_signal_ends_it_at_once(database: str, tmp_path: Path) -> None:
    """Whoever cannot wait need not; what was under way is taken up by the next start."""
    daemon = Daemon(tmp_path, {})
    async with LlamaServer() as server:
        daemon.write(settings(database, {**FAST, "bars": 100}, llm=asking(server)))
        answer = server.default
        server.default = lambda body: answer(body) if "canary" in str(body) else Hang()
        async with daemon.start() as running:
            await Look(database).until("SELECT count(*) > 2 FROM llm_enhancement_tasks WHERE status = 'processing'")
            running.send(signal.SIGTERM)
            await running.said("stopping")
            running.send(signal.SIGINT)
            assert await running.ended() == 130
        server.default = answer
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        assert "taken up again" in running.log
    await require_agreement(daemon, Look(database), bars=300)


async def test_a_sigterm_that_comes_twice_at_once_is_one(database: str, tmp_path: Path) -> None:
    """As where a supervisor tells the process group of `make run`, and make passes on what it was told."""
    daemon = Daemon(tmp_path, settings(database, ENDLESS))
    async with daemon.start() as running:
        await Look(database).until("SELECT count(*) > 10 FROM llm_analysis_results")
        running.send(signal.SIGTERM)
        await running.said("stopping")
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    assert "stopped at once" not in running.log


async def test_a_stop_while_postgresql_is_away_leaves_everything_in_the_journal(database: str, tmp_path: Path) -> None:
    """It ends in time all the same, with 75; the next start ships the journal, and nothing is lost or doubled."""
    async with Proxy(database) as proxy:
        daemon = Daemon(tmp_path, by_way_of(proxy))
        async with daemon.start() as running:
            await Look(database).until("SELECT count(*) > 100 FROM market_data")
            await proxy.cut()
            await running.said("PostgreSQL cannot be reached")
            await running.said("the feed has ended")
            running.send(signal.SIGTERM)
            assert await running.ended() == 75
        assert "stay in the journal" in running.log
        await proxy.mend()
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        assert "the journal of the last run was shipped" in running.log
    await require_agreement(daemon, Look(database), bars=700)


async def test_a_stop_while_postgresql_is_frozen_ends_within_the_grace_period(database: str, tmp_path: Path) -> None:
    """Nothing is answered, nothing refused: it ends in time all the same, and the next start loses nothing."""
    async with Proxy(database) as proxy:
        daemon = Daemon(tmp_path, by_way_of(proxy))
        async with daemon.start() as running:
            await Look(database).until("SELECT count(*) > 100 FROM market_data")
            proxy.freeze()
            await running.said("the feed has ended")
            running.send(signal.SIGTERM)
            assert await running.ended() == 75
        assert "stay in the journal" in running.log
        assert "Traceback" not in running.log
        proxy.thaw()
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=700)


async def test_a_stop_during_the_start_ends_it_too(database: str, tmp_path: Path) -> None:
    """While the models are still being looked at, a signal is enough."""
    daemon = Daemon(tmp_path, {})
    async with LlamaServer(default=lambda body: Hang()) as server:
        daemon.write(settings(database, llm=asking(server)))
        async with daemon.start() as running:
            await until(lambda: bool(server.chats))
            running.send(signal.SIGTERM)
            assert await running.ended() == 0
    assert "Traceback" not in running.log
