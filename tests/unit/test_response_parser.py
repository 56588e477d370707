"""How single replies are read, step by step, and when they are not."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from llm_integration.model import Abstention, Verdict
from llm_integration.parsing.repair import Repairer
from llm_integration.parsing.stated import Refused
from llm_integration.response_parser import LLMResponseParser, same_symbol
from trading.model import Bar, Side, Signal, Snapshot

BAR = Bar("BTC/USDT", "5m", datetime(2026, 11, 20, 10, tzinfo=UTC), 1.0, 1.0, 1.0, 1.0, None, "replay")
SIGNAL = Signal.on(BAR, "ma_cross_10_30", Side.LONG, 0.75, Snapshot({}, (BAR,)))
GOOD: dict[str, Any] = {
    "regime": "ranging", "rationale": "Price holds above the average.", "risks": ["thin volume"], "rating": 4,
    "confidence_percent": 85, "action": "enter_long",
}  # fmt: skip


async def read(text: str, finish_reason: str | None = "stop", signal: Signal = SIGNAL) -> Verdict | Abstention:
    parser = LLMResponseParser()
    try:
        return await parser.parse(text, signal, finish_reason)
    finally:
        await parser.close()


async def brief(text: str, finish_reason: str | None = "stop") -> tuple[object, ...] | None:
    """Rating, confidence, action and rung; None for an abstention."""
    verdict = await read(text, finish_reason)
    if isinstance(verdict, Abstention):
        assert verdict.reason
        return None
    assert verdict.repaired == (verdict.rung == "repaired_json")
    return verdict.rating, verdict.confidence, verdict.action.value, verdict.rung


async def test_a_reply_that_fits_the_contract_is_read_whole() -> None:
    assert await read(json.dumps(GOOD)) == Verdict(
        4, 0.85, "enter_long", GOOD["rationale"], ("thin volume",), "ranging", "strict_json", False
    )


FULL = '{"rating": 4, "confidence_percent": 85, "action": "enter_long"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>maybe {\"action\": \"sell\"}</think>" + FULL, (4, 0.85, "enter_long", "strict_json")),
        ("I would sell. Action: SELL</think>" + FULL, (4, 0.85, "enter_long", "strict_json")),
        ("<|channel|>analysis<|message|>sell<|end|><|start|>assistant<|channel|>final<|message|>" + FULL,
         (4, 0.85, "enter_long", "strict_json")),
        (f"```json\n{FULL}\n```", (4, 0.85, "enter_long", "strict_json")),
        (f"Here it is:\n```json\n{FULL}\n```\nGood luck.", (4, 0.85, "enter_long", "embedded_json")),
        (f"{FULL}\n\n{FULL}", (4, 0.85, "enter_long", "embedded_json")),
        ('{"result": {"verdict": {"rating": 2, "action": "hold"}}}', (2, None, "hold", "strict_json")),
        ('{"finalDecision": "BUY", "Rating": "4/5"}', (4, None, "enter_long", "strict_json")),
        (FULL[:-1] + ",}", (4, 0.85, "enter_long", "repaired_json")),
        (FULL.replace('"', "'"), (4, 0.85, "enter_long", "repaired_json")),
        (FULL[:-1], (4, 0.85, "enter_long", "repaired_json")),
        ("BUY | 0.85 | strong trend", (None, 0.85, "enter_long", "pipe")),
        ("| Action | Confidence | Reason |\n|---|---|---|\n| CLOSE | 60% | done |", (None, 0.6, "exit", "pipe")),
        ("**Rating**: Underweight\n\nBuyers may come back.", (None, None, "enter_short", "prose")),
        ("Long story.\n\nFINAL TRANSACTION PROPOSAL: **HOLD**", (None, None, "hold", "prose")),
        ("最终交易建议: **买入**\n### 置信度: 0.75\n", (None, 0.75, "enter_long", "prose")),
        ("最終交易建議：賣出", (None, None, "enter_short", "prose")),
        ("Action: MOVE_TO_BE\nRating: 7/10\nConfidence: 80%", (4, 0.8, "move_to_breakeven", "prose")),
        ("Recommendation for BTC: sell", (None, None, "enter_short", "prose")),
    ],
)  # fmt: skip
async def test_what_is_clearly_stated_is_read(text: str, expected: tuple[object, ...]) -> None:
    assert await brief(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "   \n", "I cannot say.", "<think>Action: buy", '{"text": "fine"}',
        '{"action": "BUY"} or {"action": "SELL"}', '{"action": "BUY", "action": "SELL"}',
        '{"action": "BUY", "rating": "Sell"}', '{"rating": 4, "Rating ": 3, "action": "hold"}',
        'Decision: SELL\n{"action": "BUY", "rating": 4}', "Action: Buy\nAction: Sell", "BUY | 85% | a\nSELL | 85% | b",
        '{"bull": {"action": "buy"}, "bear": {"action": "sell"}}',
    ],
)  # fmt: skip
async def test_a_reply_without_one_answer_is_an_abstention(text: str) -> None:
    assert await brief(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Recommendation: do not buy", "Decision: not a sell", "建议：不买入", "Decision: Buy or sell",
        "Decision: BUY, HOLD or SELL", "FINAL TRANSACTION PROPOSAL: **BUY/HOLD/SELL**", "Action: **Not** Buy",
        "Action: Buy (not advised)", "建议：卖出（或持有观望）", "Decision: Buy the dip only if it breaks 100",
        "I would neither buy nor sell.", "Action: Buy\nRating: 4 (on a scale of 10)\n", '{"action": "do not buy"}',
    ],
)  # fmt: skip
async def test_a_negated_or_open_action_is_not_read_as_that_action(text: str) -> None:
    assert await brief(text) is None


@pytest.mark.parametrize(
    "fields",
    [
        '"rating": 0', '"rating": 6', '"rating": 3.5', '"rating": true', '"rating": [4]', '"rating": "7"',
        '"rating": "6/5"', '"rating": "3 to 4"', '"rating": 1e999', '"rating": NaN', '"rating": ' + "9" * 5000,
        '"rating": 4, "confidence_percent": 101', '"rating": 4, "confidence_percent": -1',
        '"rating": 4, "confidence_percent": 0.85', '"rating": 4, "confidence": 1', '"rating": 4, "confidence": 8',
        '"rating": 4, "confidence": "80-85%"', '"rating": 4, "confidence": Infinity', '"rating": 4, "confidence": true',
        '"confidence_percent": 85',
    ],
)  # fmt: skip
async def test_a_number_off_the_scale_or_without_one_is_an_abstention(fields: str) -> None:
    assert await brief('{"action": "hold", ' + fields + "}") is None


@pytest.mark.parametrize(
    ("fields", "rating", "confidence"),
    [
        ('"rating": "4"', 4, None), ('"rating": 4.0', 4, None), ('"rating": "7/10"', 4, None),
        ('"rating": "4 out of 5"', 4, None), ('"rating": "80%"', 4, None), ('"rating": "1/10"', 1, None),
        ('"confidence": 0.85', None, 0.85), ('"confidence": 1.0', None, 1.0), ('"confidence": 85', None, 0.85),
        ('"confidence": "85 %"', None, 0.85), ('"confidence": "8/10"', None, 0.8), ('"confidence": "high"', None, None),
        ('"confidence": "High (85%)"', None, 0.85), ('"confidence": 0', None, 0.0), ('"confidence": null', None, None),
        ('"rating": 3, "confidence_percent": 1', 3, 0.01), ('"rating": 3, "confidence_percent": 72.5', 3, 0.725),
    ],
)  # fmt: skip
async def test_a_number_is_converted_where_its_scale_is_stated(
    fields: str, rating: int | None, confidence: float | None
) -> None:
    assert await brief('{"action": "hold", ' + fields + "}") == (rating, confidence, "hold", "strict_json")


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "hold", "rating": 4', '{"action": "hold", "rating": 4, "confidence_percent": 8',
        '{"rating": 4, "confidence_percent": 85, "action": "ho', FULL + ' {"action": "se',
        "Action: Buy\nConfidence: 85", "Action: Buy\nConfidence: 0.", "Action: Buy\nRating: **4** out o",
    ],
)  # fmt: skip
async def test_a_reply_cut_off_in_its_answer_is_an_abstention(text: str) -> None:
    assert await brief(text, finish_reason=None) is None


async def test_a_number_at_the_very_end_counts_once_the_model_is_known_to_have_finished() -> None:
    assert await brief("Action: Buy\nConfidence: 0.85", finish_reason=None) is None
    assert await brief("Action: Buy\nConfidence: 0.85", finish_reason="stop") == (None, 0.85, "enter_long", "prose")


async def test_an_object_that_was_closed_too_early_is_not_trusted() -> None:
    assert await brief('Here: {"action": "BUY"}, "rating": 2}') is None


async def test_broken_json_is_not_mended_when_the_model_ran_out_of_tokens() -> None:
    verdict = await read(FULL[:-1], finish_reason="length")
    assert isinstance(verdict, Abstention)
    assert "cut off" in verdict.reason


async def test_a_mended_value_that_does_not_stand_in_the_text_is_an_abstention() -> None:
    assert await brief('{"rating": 4, "action": "hold", "rationale": "a "b", "action": "sell" c"}') is None


async def test_a_stated_symbol_must_be_the_signals() -> None:
    verdict = await read('{"action": "BUY", "symbol": "ETHUSDT"}')
    assert isinstance(verdict, Abstention)
    assert "'ETHUSDT'" in verdict.reason
    assert isinstance(await read('{"action": "BUY", "symbol": "BINANCE:BTCUSDT"}'), Verdict)


@pytest.mark.parametrize(
    "text", ["Symbol: ETH\nBUY | 85% | up", 'Symbol: ETH\n{"action": "BUY"}', "Decision for ETH: buy"]
)
async def test_a_symbol_stated_beside_the_answer_must_be_the_signals_too(text: str) -> None:
    assert await brief(text) is None


async def test_of_several_symbols_only_the_signals_own_counts() -> None:
    text = '[{"symbol": "ETH/USDT", "action": "sell"}, {"symbol": "BTC/USDT", "action": "buy"}]'
    assert await brief(text) == (None, None, "enter_long", "strict_json")


@pytest.mark.parametrize(
    ("stated", "symbol", "same"),
    [
        ("btc-usdt", "BTC/USDT", True), ("BTC", "BTC/USDT", True), ("BTC/USDT:USDT", "BTC/USDT", True),
        ("$COIN", "COIN", True), ("NASDAQ:COIN", "COIN", True), ("USDT", "BTC/USDT", False), ("ETH", "BTC/USDT", False),
        ("", "BTC/USDT", False), ("BTCEUR", "BTC/USDT", False),
    ],
)  # fmt: skip
def test_symbols_are_compared_by_what_they_name(stated: str, symbol: str, same: bool) -> None:
    assert same_symbol(stated, symbol) is same


async def test_words_that_no_database_takes_are_marked() -> None:
    verdict = await read(json.dumps({**GOOD, "rationale": "a\x00b\ud800c" + "d" * 20_000}))
    assert isinstance(verdict, Verdict)
    assert verdict.rationale.startswith("a\ufffdb\ufffdc")
    assert len(verdict.rationale) == 8000


SECOND = replace(SIGNAL, id=Signal.on(BAR, "other", Side.SHORT, 0.5, SIGNAL.snapshot).id)


def batch(*entries: dict[str, Any]) -> str:
    return json.dumps({"verdicts": list(entries)})


async def read_batch(text: str, finish_reason: str | None = "stop") -> list[Verdict | Abstention]:
    parser = LLMResponseParser()
    try:
        verdicts = await parser.parse_batch(text, [SIGNAL, SECOND], finish_reason)
    finally:
        await parser.close()
    assert list(verdicts) == [SIGNAL.id, SECOND.id]
    return list(verdicts.values())


async def test_a_batch_is_told_apart_by_number_not_by_order() -> None:
    first, second = await read_batch(batch({"signal": 2, **GOOD, "rating": 1}, {"signal": 1, **GOOD}))
    assert (getattr(first, "rating", None), getattr(second, "rating", None)) == (4, 1)


async def test_a_bad_entry_spoils_only_its_own_signal() -> None:
    first, second = await read_batch(batch({"signal": 1, **GOOD, "rating": 9}, {"signal": 2, **GOOD}))
    assert isinstance(first, Abstention)
    assert isinstance(second, Verdict)


async def test_a_signal_left_out_of_a_batch_is_an_abstention() -> None:
    first, second = await read_batch(batch({"signal": 1, **GOOD}))
    assert isinstance(first, Verdict)
    assert second == Abstention("the reply leaves out signal 2", "strict_json")


async def test_a_batch_that_numbers_other_signals_is_not_trusted() -> None:
    verdicts = await read_batch(batch({"signal": 0, **GOOD}, {"signal": 1, **GOOD}))
    assert all(isinstance(verdict, Abstention) for verdict in verdicts)


async def test_the_whole_entries_of_a_batch_that_was_cut_off_count() -> None:
    text = batch({"signal": 1, **GOOD}, {"signal": 2, **GOOD})[:-20]
    first, second = await read_batch(text, finish_reason="length")
    assert isinstance(first, Verdict)
    assert isinstance(second, Abstention)
    assert "cut off" in second.reason


async def test_a_mending_that_overruns_is_killed_and_the_next_one_works() -> None:
    repairer = Repairer(timeout_s=0.000_001)
    with pytest.raises(Refused, match="not mended within"):
        await repairer.mend("{'a': 1}")
    repairer._timeout_s = 30.0
    assert await repairer.mend("{'a': 1}") == {"a": 1}
    process = repairer._process
    await repairer.close()
    await repairer.close()
    assert process is not None
    assert process.returncode is not None


async def test_an_overlong_broken_reply_is_not_mended() -> None:
    assert await brief('{"action": buy, "rationale": "' + "x" * 70_000 + '"}') is None


async def test_an_overlong_reply_is_not_read() -> None:
    assert await brief(FULL + " " * 250_000) is None


async def test_an_empty_reply_whose_tokens_ran_out_says_so() -> None:
    """A model that thinks may spend every token on it."""
    assert await read("", "length") == Abstention("the tokens ran out before the reply began")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}" * 1001, "the reply holds 1001 JSON objects; no more than 1000 are read"),
        ("Action: buy\n" * 4001, "the reply has 4001 lines; no more than 4000 are read"),
    ],
)
async def test_a_reply_of_endless_pieces_holds_nothing_up(text: str, reason: str) -> None:
    """Each piece costs little, but a quarter of a million characters of them would hold up the event loop."""
    verdict = await read(text)
    assert isinstance(verdict, Abstention)
    assert verdict.reason == reason
