"""What `check --backends` finds, against real servers: ones that do as asked, ignore schemas, cut prompts, or cost."""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_integration.backends import backend_class
from llm_integration.calling.audit import Audit
from llm_integration.config import LLMConfig
from llm_integration.ports import Backend, BackendContext, Health
from llm_integration.prompts import load_prompt
from llm_integration.response_parser import LLMResponseParser
from service.check import check_backends
from service.check_backends import BackendCheck, Measured, Plan
from service.check_questions import Questions, made_up_signal
from service.check_report import lines, recommendation, report
from service.settings import Settings
from tests.dialects import OpenAIServer
from tests.llama.build import built
from tests.llama.server import running
from tests.servers import Answer, ChatServer, Json, OpenRouterServer, completion, rating_for
from trading.clock import SystemClock

LISTED = {
    "id": "test/model", "context_length": 4000, "pricing": {"prompt": "0.000001", "completion": "0.000002"},
    "expiration_date": "2099-01-31",
}  # fmt: skip
PROSE = "I would rather not put it that way."
USAGE = {"prompt_tokens": 6100, "completion_tokens": 12, "total_tokens": 6112}


@dataclass
class Bench:
    """Measures models at `servers`, by backend name, as the command does."""

    servers: dict[str, str]
    parser: LLMResponseParser
    config: LLMConfig = field(default_factory=LLMConfig)
    made: list[Backend] = field(default_factory=list)

    def backend_for(self, model: str) -> Backend:
        name = model.partition("/")[0]
        clock = SystemClock()
        context = BackendContext(name, clock, self.servers[name], "key")
        self.made.append(Audit(backend_class(name)(context), clock))
        return self.made[-1]

    def check(self, *, paid: bool = False) -> BackendCheck:
        backends: dict[str, Backend] = {}

        def backend_for(model: str) -> Backend:
            return backends.setdefault(model, self.backend_for(model)) if model not in backends else backends[model]

        return BackendCheck(self.config, load_prompt(), backend_for, self.parser, paid=paid)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench({}, LLMResponseParser())
    yield made
    for backend in made.made:
        await backend.close()
    await made.parser.close()


def word_in(body: Json) -> str | None:
    """The word that a long or short text began with, as far as the server reads it."""
    found = re.search(r"The word is (\w+)", body["messages"][-1]["content"])
    return found[1] if found else None


def answering(rate: Callable[[Json], str], *, reads: int | None = None, **usage: Any) -> Callable[[Json], Answer]:
    """A server that answers the question by `rate` and tells a word back, of prompts of up to `reads` characters."""

    def answer(body: Json) -> Answer:
        if "canary" in json.dumps(body.get("response_format", {})):
            return Answer(completion(PROSE))
        text = body["messages"][-1]["content"]
        if "Which word stands at the beginning?" in text:
            cut = replace_content(body, text if reads is None else text[-reads:])
            return Answer(completion(word_in(cut) or "figures", usage=usage or USAGE))
        return Answer(completion(rate(body), usage=usage or USAGE))

    return answer


def replace_content(body: Json, text: str) -> Json:
    return {**body, "messages": [{"role": "user", "content": text}]}


def asked_for(body: Json) -> str:
    """In which mode a request asks."""
    kind = body.get("response_format", {}).get("type")
    if "ACTION | confidence | reason" in body["messages"][-1]["content"]:
        return "line"
    return {"json_schema": "schema", "json_object": "json"}[kind]


async def measured(bench: Bench, server: ChatServer, model: str = "openai/test/model") -> Measured:
    bench.servers[model.partition("/")[0]] = server.base_url
    check = bench.check()
    return await check.measure(await check.look(model))


async def test_a_server_that_keeps_to_schemas_is_asked_by_schema(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: rating_for(None))
        found = await measured(bench, server)
    assert [(one.mode, one.asked, one.valid) for one in found.tried] == [("schema", 10, 10)]
    assert (found.recommended, found.good, found.context) == ("schema", True, "whole")
    assert "6100 tokens" in found.context_said
    assert (found.usd_per_thousand, found.spent_usd) == (0, 0)
    assert found.p50_ms is not None
    assert found.p95_ms is not None
    assert found.p50_ms <= found.p95_ms
    assert found.tokens_per_second is not None


async def test_a_server_that_ignores_schemas_but_not_json_is_asked_for_json(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: rating_for(None) if asked_for(body) == "json" else PROSE)
        found = await measured(bench, server)
    assert [(one.mode, one.valid) for one in found.tried] == [("schema", 0), ("json", 10)]
    assert (found.recommended, found.good) == ("json", True)


async def test_a_model_that_writes_no_json_is_asked_for_a_line(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: "HOLD | 60% | flat" if "ACTION |" in str(body["messages"]) else PROSE)
        found = await measured(bench, server)
    assert [(one.mode, one.valid) for one in found.tried] == [("schema", 0), ("json", 0), ("line", 10)]
    assert (found.recommended, found.good) == ("line", True)


async def test_a_model_whose_replies_never_fit_is_not_recommended(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: PROSE)
        found = await measured(bench, server)
    assert (found.recommended, found.good) == (None, False)
    assert recommendation(found) == "recommended: another model; none of its replies can be used"


async def test_of_modes_that_all_fail_often_the_best_is_named_with_a_warning(bench: Bench) -> None:
    counts = dict.fromkeys(("schema", "json", "line"), 0)

    def rate(body: Json) -> str:
        mode = asked_for(body)
        counts[mode] += 1
        return rating_for(None) if counts[mode] <= {"schema": 4, "json": 6, "line": 0}[mode] else PROSE

    async with OpenAIServer() as server:
        server.default = answering(rate)
        found = await measured(bench, server)
    assert [one.valid for one in found.tried] == [4, 6, 0]
    assert (found.recommended, found.good) == ("json", False)
    assert "fewer than 9 of 10 replies fit" in recommendation(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating": 6}, {"rating": 4.5}, {"confidence_percent": 101}, {"regime": "sideways"}, {"more": 1},
        {"risks": "none"}, {"risks": ["a"] * 5}, {"rating": True},
    ],
)  # fmt: skip
async def test_json_that_does_not_fit_the_schema_does_not_count(wrong: dict[str, object], bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: json.dumps({**json.loads(rating_for(None)), **wrong}))
        found = await measured(bench, server)
    assert [one.valid for one in found.tried] == [0, 0, 0]


async def test_a_prompt_cut_at_its_beginning_shows_by_the_word_that_is_lost(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: rating_for(None), reads=4000)
        found = await measured(bench, server)
    assert (found.context, "was lost, unsaid" in found.context_said) == ("cut", True)


async def test_a_prompt_cut_shows_by_the_tokens_counted_where_no_word_is_told(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = answering(lambda body: rating_for(None), reads=1, prompt_tokens=512, completion_tokens=2)
        found = await measured(bench, server)
    assert (found.context, "it read 512" in found.context_said) == ("cut", True)


async def test_a_prompt_that_is_refused_as_too_long_is_no_silent_cut(bench: Bench) -> None:
    usual = answering(lambda body: rating_for(None))

    def refusing(body: Json) -> Answer:
        if len(body["messages"][-1]["content"]) < 9000:
            return usual(body)
        error = {"message": "maximum context length is 4096 tokens", "code": "context_length_exceeded"}
        return Answer({"error": error}, status=400)

    async with OpenAIServer() as server:
        server.default = refusing
        found = await measured(bench, server)
    assert (found.context, "it says so" in found.context_said) == ("refused", True)


async def test_a_model_that_answers_nothing_is_given_up_after_three_tries(bench: Bench) -> None:
    async with OpenAIServer() as server:
        check_answer = Answer({"error": {"message": "broken"}}, status=500)
        server.default = lambda body: check_answer
        bench.servers["openai"] = server.base_url
        check = bench.check()
        plan = await check.look("openai/test/model")
        before = len(server.chats)
        found = await check.measure(replace(plan, asks=True))
        asked = len(server.chats) - before
    assert [(one.asked, one.valid) for one in found.tried] == [(3, 0)] * 3
    assert asked == 9
    assert (found.recommended, found.p50_ms, found.context) == (None, None, "unknown")
    assert found.tried[0].errors[0].endswith("broken")


async def test_a_model_that_costs_money_is_only_looked_at_unless_it_is_wished(bench: Bench) -> None:
    async with OpenRouterServer(models=[LISTED]) as server:
        bench.servers["openrouter"] = server.base_url
        plan = await bench.check().look("openrouter/test/model")
        assert (plan.health.usable, plan.free, plan.asks) == (True, False, False)
        assert plan.said.startswith("not asked; --paid asks it: 12 to 32 calls, which cost at most $")
        assert "2099-01-31" in plan.health.detail
        assert not server.chats
        wished = await bench.check(paid=True).look("openrouter/test/model")
        assert wished.asks
        assert not server.chats


async def test_the_cost_is_said_on_the_upper_side_before_and_as_reported_after(bench: Bench) -> None:
    async with OpenRouterServer(models=[LISTED]) as server:
        bench.servers["openrouter"] = server.base_url
        check = bench.check(paid=True)
        plan = await check.look("openrouter/test/model")
        found = await check.measure(plan)
    (limit,) = re.findall(r"\$([\d.]+)", plan.said)
    assert found.usd_per_thousand == Decimal("0.125")
    assert found.spent_usd == Decimal("0.000125") * 12
    assert found.spent_usd < Decimal(limit)
    assert Decimal(limit) > 30 * bench.config.max_tokens * Decimal("0.000002")


async def test_a_cost_that_is_not_reported_is_worked_out_by_tokens_and_price(bench: Bench) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    async with OpenRouterServer(models=[LISTED], default=answering(lambda body: rating_for(None), **usage)) as server:
        bench.servers["openrouter"] = server.base_url
        check = bench.check(paid=True)
        found = await check.measure(await check.look("openrouter/test/model"))
    assert found.usd_per_thousand == Decimal("1.2")


async def test_a_model_that_cannot_be_used_is_not_asked(bench: Bench) -> None:
    async with OpenRouterServer(models=[{**LISTED, "id": "other/model"}]) as server:
        bench.servers["openrouter"] = server.base_url
        plan = await bench.check(paid=True).look("openrouter/test/model")
        assert (plan.asks, plan.said) == (False, "not asked, as it cannot be used")
        assert not server.chats


async def test_the_long_prompt_is_no_longer_than_the_context_that_is_known(bench: Bench) -> None:
    async with OpenRouterServer(models=[LISTED], default=answering(lambda body: rating_for(None))) as server:
        bench.servers["openrouter"] = server.base_url
        check = bench.check(paid=True)
        await check.measure(await check.look("openrouter/test/model"))
        longest = max(len(request.json["messages"][-1]["content"]) for request in server.chats)
    assert longest < 2 * 4000


@pytest.mark.skipif(not built(), reason="llama-server is not built; `make llama-server` builds it")
async def test_the_real_llama_server_fits_its_schema_and_says_when_a_prompt_is_too_long(
    bench: Bench, tmp_path: Path
) -> None:
    """Its tiny model takes each byte for a token: a long prompt is refused, none is cut in silence."""
    with running(tmp_path / "server.log", slots=1, context=8192) as url:
        bench.servers["llama_cpp"] = url
        bench.config = LLMConfig(max_tokens=2048, lookback_periods=1, indicators_to_include=["rsi"])
        check = bench.check()
        plan = await check.look("llama_cpp/local")
        found = await check.measure(plan)
    assert (plan.free, plan.asks) == (True, True)
    assert [(one.mode, one.valid) for one in found.tried] == [("schema", 10)]
    assert (found.recommended, found.context, found.usd_per_thousand) == ("schema", "refused", Decimal(0))
    assert found.tokens_per_second is not None


def test_the_signal_asked_about_is_the_same_every_time_and_says_that_it_is_a_test() -> None:
    one, other = (made_up_signal(20, ["rsi", "adx_14"]) for _ in range(2))
    assert one == other
    assert (one.source, one.symbol, len(one.snapshot.bars)) == ("check", "TEST/USD", 20)
    assert None not in one.snapshot.indicators.values()


def test_a_prompt_without_a_line_part_is_not_asked_for_one() -> None:
    assert Questions(LLMConfig(), load_prompt("propose_trade.v1")).modes == ("schema", "json")


async def test_what_a_server_says_cannot_write_on_the_terminal(bench: Bench) -> None:
    async with OpenAIServer() as server:
        server.default = lambda body: Answer({"error": {"message": "\x1b[2Jgone"}}, status=400)
        bench.servers["openai"] = server.base_url
        check = bench.check()
        plan = await check.look("openai/test/model")
        found = await check.measure(plan)
    assert "\x1b" not in "\n".join(lines(plan, found))
    assert any("no reply: " in line for line in lines(plan, found))


def test_what_was_found_is_there_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan("openai/x", Health(True, "fine"), None, False, False, "not asked; --paid asks it: …")
    report([(plan, None)], as_json=True)
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["model"], told["usable"], told["asked"]) == ("openai/x", True, False)


async def test_the_command_asks_the_models_of_the_settings_that_cost_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "key")
    async with OpenRouterServer(models=[LISTED]) as server:
        llm = {
            "model": "openrouter/test/model", "fallback_models": ["rules/baseline"],
            "backends": {"openrouter": {"base_url": server.base_url}},
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps({"llm": llm}))
        status = await check_backends(Settings.load(tmp_path / "config.json"), paid=False, as_json=True)
        assert not server.chats
    out, err = capsys.readouterr()
    openrouter, rules = json.loads(out)
    assert status == 0
    assert (openrouter["asked"], rules["asked"], rules["recommended"]) == (False, True, "schema")
    assert "openrouter/test/model: not asked; --paid asks it" in err
    assert "rules/baseline: 12 to 32 calls, which cost nothing" in err
