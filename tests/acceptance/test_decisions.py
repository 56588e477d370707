"""Decisions in a whole run: in the tables, the CSV files and the API alike, by what was answered."""

import itertools
import json
import signal
from pathlib import Path
from typing import Any

from tests.acceptance.world import FAST, KEY, MODEL, asking, finished, ratings, settings
from tests.daemon import Daemon, Look
from tests.servers import Answer, Json, OpenRouterServer, Step, completion, rating_for

FOLLOWS = {"long": "enter_long", "short": "enter_short", "exit": "exit"}


def in_turn() -> Step:
    """A strong yes to go long, a no, a shrug, something else than a verdict."""
    replies = [
        json.dumps({**json.loads(rating_for(None, rating)), "action": action})
        for rating, action in ((5, "enter_long"), (1, "hold"), (3, "hold"))
    ]
    turn = itertools.cycle([*replies, "I would rather not say."])

    def step(body: Json) -> Answer:
        return Answer(completion(next(turn), model=body.get("model")))

    return step


def expected(row: dict[str, Any]) -> str:
    if row["abstention"] is not None or row["rating"] == 3:
        return "review"
    return "allow" if row["rating"] == 5 and row["action"] == FOLLOWS[row["side"]] else "deny"


async def test_every_reply_is_decided_on_and_told_alike_everywhere(database: str, tmp_path: Path) -> None:
    async with OpenRouterServer(default=in_turn(), models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server, max_batch_signals=1, ask_again=False), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    assert {row["decision"] for row in rows} == {"allow", "deny", "review"}
    assert [row["decision"] for row in rows] == [expected(row) for row in rows]
    assert all(row["decision_reasons"] for row in rows)
    in_file = {row["signal_id"]: row["decision_reasons"] for row in daemon.signals}
    assert in_file == {f"sig-{row['signal_id']}": " | ".join(row["decision_reasons"]) for row in rows}
    named = await look.rows("SELECT DISTINCT decision_reasons[1] AS said FROM llm_analysis_results WHERE rating = 1")
    assert [row["said"] for row in named] == ["rating 1, denied up to 2"]


async def test_what_nobody_answered_has_no_decision_and_a_fallback_allows_nothing(
    database: str, tmp_path: Path
) -> None:
    """The built-in rules confirm some signals; unless they are the first choice, a person has to."""
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        chosen = asking(database, server, fallback_models=["rules/baseline"], selective={"min_strength": 0.3})
        daemon = Daemon(tmp_path, chosen)
        await finished(daemon)
    rows = await ratings(daemon, Look(database))
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert skipped and all(row["decision"] is None and row["decision_reasons"] is None for row in skipped)
    confirmed = [row for row in rows if (row["rating"] or 0) >= 4]
    assert confirmed
    assert {(row["decision"], row["decision_reasons"][0]) for row in confirmed} == {
        ("review", "rated by a fallback, rules/baseline")
    }


async def test_a_policy_that_changes_holds_for_what_is_rated_from_then_on(database: str, tmp_path: Path) -> None:
    """By SIGHUP; what was decided stays."""
    look = Look(database)
    live = settings(database, {**FAST, "speed": 300}, llm={"model": "rules/baseline"}, service={"port": 0})
    daemon = Daemon(tmp_path, live)
    async with daemon.start() as running:
        await look.until("SELECT count(*) > 1 FROM llm_analysis_results WHERE decision = 'allow'")
        policy = {"min_confidence": 1}
        daemon.write({**daemon.settings, "llm": {"model": "rules/baseline", "policy": policy}})
        running.send(signal.SIGHUP)
        await running.said("llm.policy.min_confidence holds from now on before=0.5 now=1")
        doubted = "decision = 'review' AND decision_reasons[1] LIKE 'confidence %, less than 1'"
        await look.until(f"SELECT count(*) > 1 FROM llm_analysis_results WHERE {doubted}")
    order = "SELECT min(id) FILTER (WHERE {doubted}) > max(id) FILTER (WHERE decision = 'allow')"
    assert await look.value(f"{order.format(doubted=doubted)} FROM llm_analysis_results")
