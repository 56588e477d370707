"""How models are called, in whole runs: panels, routes, hedges, replies taken again, signals not worth a call."""

import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import KEY, MODEL, asking, finished, ratings
from tests.daemon import Daemon, Look
from tests.servers import Answer, Hang, Json, OpenRouterServer, completion, rating_for

FAILURE = Answer({"error": {"code": 500, "message": "the provider fell over"}}, status=500)
CALLS = "SELECT * FROM v_signal_calls ORDER BY started_at"
Reply = Callable[[Json], Answer]


def verdict(rating: int, action: str = "hold", **fields: Any) -> Answer:
    """A reply of one verdict, with 70 % confidence."""
    return Answer(completion(json.dumps({**json.loads(rating_for(None, rating)), "action": action, **fields})))


def by_model(**replies: Reply) -> Reply:
    """Each model answers in its own way."""
    return lambda body: replies[body["model"]](body)


def every_other(reply: Answer) -> Reply:
    """`reply`, and a failure, in turn."""
    turn = count()
    return lambda body: FAILURE if next(turn) % 2 else reply


def three_models(**more: Any) -> dict[str, Any]:
    members = [{"model": f"openrouter/{name}", "weight": weight} for name, weight in {"a": 2, "b": 1, "c": 1}.items()]
    return {"model": "openrouter/a", "ensemble": {"members": members, **more}, "max_retries": 1}


def three_opinions() -> Reply:
    """a confirms, b rejects, c strongly confirms, but fails half of the time."""
    return by_model(a=lambda _: verdict(4), b=lambda _: verdict(2, "exit"), c=every_other(verdict(5)))


MODELS = [{"id": name} for name in (MODEL, "a", "b", "c")]


async def test_an_ensemble_goes_on_without_a_member_that_fails(database: str, tmp_path: Path) -> None:
    """Its weight is missing from the mean, and nothing else; every call is kept, the failed ones too."""
    async with OpenRouterServer(default=three_opinions(), models=MODELS) as server:
        daemon = Daemon(tmp_path, asking(database, server, **three_models()), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    whole = (4, "hold", 3, 0.75, pytest.approx(1.1875**0.5), pytest.approx(0.7 * 0.75))
    without = (3, "hold", 2, pytest.approx(2 / 3), pytest.approx((8 / 9) ** 0.5), pytest.approx(0.7 * 2 / 3))
    calls = await look.rows(CALLS)
    failed = {call["signal_id"] for call in calls if call["error_class"]}
    assert 0 < len(failed) < len(rows)
    for row in rows:
        said = tuple(row[name] for name in ("rating", "action", "members", "agreement", "spread", "confidence"))
        assert said == (without if row["signal_id"] in failed else whole)
    assert {row["status"] for row in rows} == {"completed"}
    assert Counter(call["model"] for call in calls) == dict.fromkeys("abc", len(rows))
    assert {call["model"] for call in calls if call["error_class"]} == {"c"}
    assert {call["route"] for call in calls} == {"ensemble of 3"}
    assert len(server.chats) == len(calls)


async def test_an_ensemble_without_its_quorum_abstains_and_says_who_was_missing(database: str, tmp_path: Path) -> None:
    async with OpenRouterServer(default=three_opinions(), models=MODELS) as server:
        daemon = Daemon(tmp_path, asking(database, server, **three_models(quorum=0.8)), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    failed = {call["signal_id"] for call in await look.rows(CALLS) if call["error_class"]}
    assert 0 < len(failed) < len(rows)
    for row in rows:
        if row["signal_id"] in failed:
            assert (row["status"], row["rating"], row["action"], row["members"]) == ("completed", None, None, 2)
            assert "openrouter/c" in row["abstention"]
            assert "the provider fell over" in row["abstention"]
        else:
            assert (row["rating"], row["abstention"], row["members"]) == (4, None, 3)


async def test_one_model_asked_three_times_tells_how_stable_it_is(database: str, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def waver(body: Json) -> Answer:
        question = body["messages"][-1]["content"]
        asked[question] += 1
        return verdict((4, 4, 1)[asked[question] - 1])

    async with OpenRouterServer(default=waver, models=MODELS) as server:
        daemon = Daemon(tmp_path, asking(database, server, samples=3), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    assert rows
    said = {(row["rating"], round(row["stability"], 9), row["cost_usd"]) for row in rows}
    assert said == {(3, round(2 / 3, 9), Decimal("0.000375"))}
    calls = await look.rows("SELECT signal_ids, count(*), sum(cost_usd) FROM llm_calls GROUP BY 1")
    assert [tuple(call)[1:] for call in calls] == [(3, Decimal("0.000375"))] * len(rows)


async def test_routes_go_by_urgency_and_size_and_every_call_says_why(database: str, tmp_path: Path) -> None:
    routes = [
        {"name": "urgent", "when": {"min_urgency": 0.25}, "models": ["openrouter/a"]},
        {"name": "long", "when": {"min_prompt_tokens": 2800}, "models": ["openrouter/b"]},
    ]
    async with OpenRouterServer(models=MODELS) as server:
        llm = {"routes": routes, "lookback_periods": 100, "max_batch_signals": 1}
        daemon = Daemon(tmp_path, asking(database, server, **llm), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    routed = {row["signal_id"]: row["route"] for row in rows}
    for call in await look.rows("SELECT c.*, s.strength FROM v_signal_calls c JOIN signals s ON s.id = signal_id"):
        name, _, why = call["route"].partition(": ")
        tokens = int(why.partition("prompt ")[2].split()[0])
        expected = "urgent" if call["strength"] >= 0.25 else "long" if tokens >= 2800 else "default"
        assert (name, call["model"]) == (expected, {"urgent": "a", "long": "b", "default": MODEL}[name])
        assert why.startswith("kind=decision, agent=TradingDecisionAgent, ")
        assert name != "urgent" or f"urgency {call['strength']:.2f}" in why
        assert routed[call["signal_id"]] == call["route"]
    assert {route.partition(":")[0] for route in routed.values()} == {"urgent", "long", "default"}


async def test_a_route_is_taken_while_a_server_is_down(database: str, tmp_path: Path) -> None:
    """Nobody knocks at the one that is down; that another was asked is no fallback, and the route says why."""
    routes = [{"name": "home is down", "when": {"unusable": ["llama_cpp/local"]}, "models": ["openrouter/a"]}]
    async with OpenRouterServer(models=MODELS) as server:
        own = asking(database, server, model="llama_cpp/local", routes=routes)
        own["llm"]["backends"]["llama_cpp"] = {"base_url": "http://127.0.0.1:9"}
        daemon = Daemon(tmp_path, own, KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    assert rows
    said = {(row["model"], row["fallback"], row["route"].partition(",")[0], row["route"][-30:]) for row in rows}
    assert said == {("openrouter/a", False, "home is down: kind=decision", "llama_cpp/local cannot be used")}
    assert await look.value("SELECT count(*) FROM llm_calls WHERE backend = 'llama_cpp'") == 0


async def test_a_hanging_server_is_asked_again_by_a_second_request_and_both_count(
    database: str, tmp_path: Path
) -> None:
    async with OpenRouterServer([Hang()], models=MODELS) as server:
        # Longer than this test may stand still: nobody else is to be late.
        own = asking(database, server, hedge_after_seconds=5, hedge_urgency=0, max_batch_signals=1)
        own["llm"]["backends"]["openrouter"]["requests_per_minute"] = 1000
        daemon = Daemon(tmp_path, own, KEY)
        await finished(daemon)
        sent = len(server.chats)
    rows = await ratings(daemon, look := Look(database))
    assert {(row["status"], row["rating"]) for row in rows} == {("completed", 4)}
    calls = await look.rows(CALLS)
    (given_up,) = [call for call in calls if call["error_class"]]
    assert given_up["error_class"] == "Cancelled"
    (second,) = [call for call in calls if call["signal_id"] == given_up["signal_id"] and call["succeeded"]]
    assert second["route"] == f"{given_up['route']}; second request, no reply after 5 s"
    assert len(calls) == sent == len(rows) + 1
    assert await look.value("SELECT count(*) FROM llm_quota_entries") == sent


@pytest.mark.parametrize("roles", [["all"], ["trader", "worker"]], ids=["as they come", "strongest first"])
async def test_what_is_not_worth_a_call_takes_the_last_verdict_over(
    database: str, tmp_path: Path, roles: list[str]
) -> None:
    """Only from an earlier bar of its like, with less confidence for each bar since; nothing was sent for it.

    Where much waits, the strongest are rated first: what a later bar was told is never taken over by an earlier one.
    """
    async with OpenRouterServer(default=lambda _: verdict(4), models=MODELS) as server:
        selective = {"every_n_bars": 15, "min_strength": 0.02, "cache_decay_rate": 0.1}
        llm = {"max_batch_signals": 1, "max_concurrency": 1, "poll_interval": 0.05}
        own = asking(database, server, bars=200, selective=selective, **llm)
        own["trading"]["feed"]["speed"] = "max" if len(roles) > 1 else 3000.0
        own["trading"]["strategies"] = [{"type": "donchian_breakout"}, {"type": "stochastic_reversal"}]
        daemon = Daemon(tmp_path, own, KEY)
        for role in roles:
            await finished(daemon, "--role", role)
        sent = len(server.chats)
    rated = await ratings(daemon, look := Look(database))
    rows = {row["signal_id"]: row for row in rated}
    taken = [row for row in rows.values() if row["reused_from"]]
    skipped = [row for row in rows.values() if row["status"] == "skipped"]
    assert len(taken) > 5
    assert sent == len(rows) - len(taken) - len(skipped)
    for row in taken:
        last = rows[row["reused_from"]]
        age_s = (row["signal_time"] - last["signal_time"]).total_seconds()
        assert 0 < age_s == row["reused_age_s"]
        assert age_s < 15 * 60 or row["strength"] < 0.02
        assert row["confidence"] == pytest.approx(0.7 * 0.9 ** (age_s / 60))
        assert (last["reused_from"], row["rating"], row["cost_usd"], row["call_id"]) == (None, last["rating"], 0, None)
        assert all(row[name] == last[name] for name in ("symbol", "timeframe", "strategy", "side", "model"))
        assert last["rated_at"] < row["rated_at"]
        assert row["rationale"].startswith(f"[taken over from {last['signal_time']:%Y-%m-%d %H:%M:%S}")
    for row in skipped:
        assert row["strength"] < 0.02
        assert "below 0.02" in row["error"]
    assert skipped
    asked = await look.value("SELECT count(DISTINCT signal_id) FROM v_signal_calls")
    assert asked == sent
    if len(roles) > 1:
        alike = [(a, b) for a, b in combinations(rated, 2) if (a["strategy"], a["side"]) == (b["strategy"], b["side"])]
        assert [1 for a, b in alike if a["rated_at"] > b["rated_at"] and not b["reused_from"] and not a["reused_from"]]


def write_prompt(folder: Path, signal: str) -> dict[str, Any]:
    """A prompt of the user's own; what to set for it."""
    (folder / "prompts").mkdir()
    (folder / "prompts" / "mine.signal.txt").write_text(signal)
    return {"prompts_directory": "prompts", "prompt": "mine"}


async def test_equal_questions_are_sent_once_even_across_a_restart(database: str, tmp_path: Path) -> None:
    """A prompt that shows so little that many signals ask the same: the replies taken again cost nothing and say so."""
    prompt = write_prompt(tmp_path, "Signal {number}: {side} at about {price:.0e}.")
    async with OpenRouterServer(models=MODELS) as server:
        sent = []
        for bars in (80, 160):
            own = asking(database, server, bars, cache_ttl_seconds=3600, max_batch_signals=1, **prompt)
            daemon = Daemon(tmp_path, own, KEY)
            await finished(daemon)
            sent.append(len(server.chats))
    rows = await ratings(daemon, look := Look(database))
    calls = await look.rows(CALLS)
    asked = {str(call["call_id"]) for call in calls if not call["cached"]}
    taken = [call for call in calls if call["cached"]]
    assert len(rows) == len(calls) == len(asked) + len(taken)
    assert 0 < sent[0] == sent[1] == len(asked)
    assert {call["run_id"] for call in taken} > {call["run_id"] for call in calls if not call["cached"]}
    for call in taken:
        assert (call["cost_usd"], call["prompt_tokens"], call["completion_tokens"], call["cost_source"]) == (
            0,
            0,
            0,
            "free",
        )
        assert call["notes"][0].removeprefix("the reply of call ").partition(",")[0] in asked
    cached = {call["signal_id"] for call in taken}
    assert {row["cost_usd"] for row in rows if row["signal_id"] in cached} == {Decimal(0)}
    assert {row["rating"] for row in rows} == {4}
    (cost,) = await look.rows("SELECT calls, cached_calls, cost_usd FROM v_llm_costs_daily")
    assert tuple(cost) == (len(calls), len(taken), len(asked) * Decimal("0.000125"))


async def test_a_prompt_of_ones_own_shows_an_indicator_that_only_it_names(database: str, tmp_path: Path) -> None:
    prompt = write_prompt(tmp_path, "Signal {number}: {side} at {price}, ADX {adx_14:.1f}, closed {close_time}.")
    async with OpenRouterServer(models=MODELS) as server:
        daemon = Daemon(tmp_path, asking(database, server, max_batch_signals=1, **prompt), KEY)
        await finished(daemon)
        shown = Counter(request.json["messages"][-1]["content"].rpartition("ADX ")[2][:4] for request in server.chats)
    rows = await ratings(daemon, look := Look(database))
    values = [json.loads(row["indicators"])["adx_14"] for row in rows]
    assert shown == Counter("n/a," if value is None else f"{value:.1f}" for value in values)
    assert sum(value is not None for value in values) > 20
    assert {row["prompt_version"] for row in rows} == {await look.value("SELECT max(prompt_version) FROM llm_calls")}


async def test_an_unknown_field_in_a_prompt_is_refused_at_the_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {"llm": write_prompt(tmp_path, "Signal {number}: {side} at {price}.\nADX {adxx:.1f}")})
    status, out, log = await daemon.do("run")
    assert (status, out, len(log.splitlines())) == (78, "", 1)
    assert "mine.signal.txt, line 2: the field {adxx} is not known" in log
    assert not (tmp_path / "output").exists()


async def test_a_reply_that_stays_unreadable_is_an_abstention_with_both_reasons(database: str, tmp_path: Path) -> None:
    """After one failure of the server, tried again; every try and both questions stand in the calls."""

    def no_use(body: Json) -> Answer:
        again = body["messages"][-1]["content"].startswith("That could not be used")
        return verdict(9) if again else Answer(completion("As an analyst I see both sides."))

    async with OpenRouterServer([FAILURE], default=no_use, models=MODELS) as server:
        daemon = Daemon(tmp_path, asking(database, server, bars=60), KEY)
        await finished(daemon)
    rows = await ratings(daemon, look := Look(database))
    assert rows
    for row in rows:
        assert (row["status"], row["rating"], row["action"]) == ("completed", None, None)
        first, _, second = row["abstention"].partition("; asked again: ")
        assert first
        assert "rating" in second
    calls = await look.rows(CALLS)
    tries = Counter((call["attempt"], call["error_class"]) for call in calls)
    assert tries == {(1, None): 2 * len(rows) - 1, (1, "ServerFailed"): 1, (2, None): 1}
    assert len(server.chats) == len(calls)
    assert all(call["messages"] and call["parsed"] for call in calls if call["succeeded"])
