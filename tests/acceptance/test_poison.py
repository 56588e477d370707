"""A signal that kills whoever works on it, and a worker that stands still for longer than its lease."""

import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.world import KEY, MODEL, asking, require_agreement
from tests.daemon import Daemon, Look
from tests.servers import Hang, OpenRouterServer, rate_all

ALONE = """
SELECT id, close_time FROM signals
WHERE close_time IN (SELECT close_time FROM signals GROUP BY 1 HAVING count(*) = 1) ORDER BY close_time OFFSET 5 LIMIT 1
"""
ENDED = "SELECT signal_id, status, attempts, error FROM llm_analysis_results"

LAPSE = "UPDATE llm_enhancement_tasks SET lease_expires_at = now() WHERE status = 'processing' RETURNING 1"


async def stored(daemon: Daemon, look: Look) -> tuple[UUID, str]:
    """Bars and signals, not rated yet: one signal among them, and what a question about it says."""
    async with daemon.start("--until-idle", "--role", "trader") as running:
        assert await running.ended() == 0
    poison, closed = (await look.rows(ALONE))[0]
    return poison, f"bar closed at (UTC): {closed:%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(("batch_size", "max_retries"), [(1, 3), (4, 2)])
async def test_a_signal_that_kills_the_process_fails_after_max_retries_deaths_and_no_other_does(
    database: str, tmp_path: Path, batch_size: int, max_retries: int
) -> None:
    """It takes others along, asked about in the same request and in others: they are all rated."""
    look = Look(database)
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        llm = {"batch_size": batch_size, "max_retries": max_retries, "max_concurrency": 4}
        daemon = Daemon(tmp_path, asking(database, server, 200, **llm), KEY)
        poison, said = await stored(daemon, look)
        deaths = 0
        for _ in range(max_retries + 1):
            async with daemon.start("--until-idle", "--role", "worker") as running:

                def kill_or_rate(body: dict[str, Any], victim: Any = running) -> Any:
                    if said not in str(body):
                        return rate_all(body)
                    victim.send(signal.SIGKILL)
                    return Hang()

                server.default = kill_or_rate
                status = await running.ended()
            deaths += status == -signal.SIGKILL
        assert status == 0
    assert deaths == max_retries
    await require_agreement(daemon, look)
    ended = {row["signal_id"]: row for row in await look.rows(ENDED)}
    assert len(ended) > 20
    last = ended.pop(poison)
    assert (last["status"], last["attempts"]) == ("failed", max_retries)
    assert last["error"] == f"given up: {max_retries} times the process that worked on it died or stood still"
    assert {row["status"] for row in ended.values()} == {"completed"}


async def test_a_worker_that_wakes_after_its_lease_is_fenced_off(database: str, tmp_path: Path) -> None:
    """It stood still with a reply in hand, and another rated the signal. The late call is kept: it was paid for."""
    look = Look(database)
    for name in ("frozen", "quick"):
        (tmp_path / name).mkdir()
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        own = asking(database, server, 60, max_concurrency=1, quota_scope="process")
        frozen = Daemon(tmp_path / "frozen", own, {**KEY, "FAULT_AT": "replied:1:SIGSTOP"})
        quick = Daemon(tmp_path / "quick", own, KEY)
        await stored(quick, look)
        async with frozen.start("--role", "worker") as late:
            await late.said("fault point replied: SIGSTOP")
            await look.rows(LAPSE)
            async with quick.start("--until-idle", "--role", "worker") as running:
                assert await running.ended() in (0, 75)  # files do not go on behind a transaction it may have frozen in
            late.send(signal.SIGCONT)
            await late.said("a result came too late and was discarded")
            await look.until("SELECT count(*) > (SELECT count(*) FROM signals) FROM llm_calls")
            late.send(signal.SIGTERM)
            assert await late.ended() == 0
    status, _, _ = await quick.do("export")
    assert status == 0
    signals = await require_agreement(quick, look)
    assert await look.value("SELECT count(*) FROM llm_calls") == signals + 1
    assert await look.rows(ENDED + " WHERE status <> 'completed'") == []
    held = await look.rows("SELECT attempts, deaths FROM llm_enhancement_tasks WHERE attempts > 1")
    assert [tuple(row) for row in held] == [(2, 1)]
