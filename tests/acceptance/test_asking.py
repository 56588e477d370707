"""Replies that cannot be read, in a whole run: asked for once more, and the audit trail tells both questions."""

import json
from decimal import Decimal
from pathlib import Path

from tests.acceptance.world import KEY, MODEL, asking, require_agreement
from tests.daemon import Daemon, Look
from tests.servers import Answer, Json, OpenRouterServer, completion, rate_all, rating_for


def asked_before(body: Json) -> bool:
    return body["messages"][-1]["content"].startswith("That could not be used")


async def test_a_model_that_first_answers_in_prose_is_asked_again_and_rates_every_signal(
    database: str, tmp_path: Path
) -> None:
    def prose_first(body: Json) -> Answer:
        return rate_all(body) if asked_before(body) else Answer(completion("As an analyst I see both sides."))

    async with OpenRouterServer(default=prose_first, models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server), KEY)
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    count = await require_agreement(daemon, look := Look(database), bars=120)
    assert count
    assert {(row["rating"], row["fallback"]) for row in daemon.signals} == {("4", "false")}
    calls = await look.rows("SELECT signal_ids, rung, parsed::text, prompt_tokens FROM llm_calls")
    assert len(calls) == 2 * count
    told = [next(iter(json.loads(parsed).values())) for _, _, parsed, _ in calls]
    assert sum("abstention" in each for each in told) == sum(each.get("rating") == 4 for each in told) == count
    spent = await look.rows("SELECT sum(prompt_tokens), sum(cost_usd) FROM llm_analysis_results")
    assert [tuple(row) for row in spent] == [(240 * count, count * Decimal("0.00025"))]


async def test_a_batch_whose_reply_leaves_one_out_rates_that_one_alone(database: str, tmp_path: Path) -> None:
    """The first request about several signals loses its second entry, and nobody else's verdict."""

    def forgetful(body: Json) -> Answer:
        count = body["messages"][-1]["content"].count("\nEND SIGNAL ")
        verdict = json.loads(rating_for(None))
        rows = [{"signal": number, **verdict} for number in range(1, count + 1) if number != 2]
        return Answer(completion(json.dumps(verdict if count == 1 else {"verdicts": rows})))

    async with OpenRouterServer(default=forgetful, models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server, batch_size=4), KEY)
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    await require_agreement(daemon, look := Look(database), bars=120)
    assert {row["rating"] for row in daemon.signals} == {"4"}
    sizes = [row[0] for row in await look.rows("SELECT cardinality(signal_ids) FROM llm_calls")]
    assert max(sizes) == 4
    batches = [size for size in sizes if size > 1]
    assert sizes.count(1) >= len(batches) > 0


async def test_a_burst_beyond_the_quota_is_rated_in_the_first_minute_several_signals_to_a_request(
    database: str, tmp_path: Path
) -> None:
    """Whatever the bars of two hours bring, five requests hold it; without sharing them it would take ten minutes."""
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        backends = {"openrouter": {"base_url": server.base_url, "requests_per_minute": 5}}
        daemon = Daemon(tmp_path, asking(database, server, backends=backends), KEY)
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    count = await require_agreement(daemon, look := Look(database), bars=120)
    assert count > 20
    assert {(row["status"], row["rating"], row["fallback"]) for row in daemon.signals} == {("completed", "4", "false")}
    assert len(server.chats) <= 10
    sizes = [row[0] for row in await look.rows("SELECT cardinality(signal_ids) FROM llm_calls")]
    assert sum(sizes) == count
    assert max(sizes) <= 16
