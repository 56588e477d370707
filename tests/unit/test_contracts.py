"""Proposed trades: read when every field is as agreed, refused with the reason when one is not."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.contracts import batch_schema, contract_names, load_schema
from llm_integration.contracts.fitting import fits
from llm_integration.contracts.propose_trade import TradeProposal, read_proposal
from llm_integration.model import Abstention, Action, Verdict
from llm_integration.response_parser import LLMResponseParser
from tests.unit.test_response_parser import SIGNAL, read

GOOD: dict[str, Any] = {
    "version": "1.0.0", "intent": "propose_trade", "symbol": "BTCUSDT", "timeframe": "5m", "rationale": "It rises.",
    "action": {
        "type": "enter_long", "confidence": 0.75,
        "constraints": {"max_position_size": 0.03, "stop_loss_pct": 0.02, "take_profit_pct": 0.06},
    },
}  # fmt: skip


def changed(path: str, value: object) -> dict[str, Any]:
    """GOOD with one field set; the value `...` takes the field out."""
    made = copy.deepcopy(GOOD)
    place: dict[str, Any] = made
    *sections, last = path.split(".")
    for section in sections:
        place = place[section]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


def refusal(reply: object) -> str:
    answer = read_proposal(reply, "BTC/USDT", "5m")  # type: ignore[arg-type]
    assert isinstance(answer, Abstention), answer
    return answer.reason


def strict_objects(schema: object) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        own = [schema] if schema.get("type") == "object" else []
        return own + [found for value in schema.values() for found in strict_objects(value)]
    return [found for value in schema for found in strict_objects(value)] if isinstance(schema, list) else []


@pytest.mark.parametrize("name", contract_names())
@pytest.mark.parametrize("count", [1, 3])
def test_every_object_of_a_contract_requires_all_its_fields_and_allows_no_other(name: str, count: int) -> None:
    single = load_schema(name)
    for part in strict_objects(single if count == 1 else batch_schema(single, count)):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False


def test_the_rating_contract_offers_every_action_and_only_whole_numbers() -> None:
    properties = load_schema()["properties"]
    assert properties["action"]["enum"] == [action.value for action in Action]
    assert (properties["rating"]["type"], properties["confidence_percent"]["type"]) == ("integer", "integer")


def test_the_trade_contract_offers_every_action() -> None:
    action = load_schema("propose_trade.v1")["properties"]["action"]
    assert action["properties"]["type"]["enum"] == [action.value for action in Action]


@pytest.mark.parametrize(
    "reply",
    [GOOD, json.dumps(GOOD), f"```json\n{json.dumps(GOOD, indent=1)}\n```", f"<think>Sell?</think>{json.dumps(GOOD)}"],
)
def test_a_proposal_as_agreed_is_read_whole(reply: str | dict[str, Any]) -> None:
    assert read_proposal(reply, "BTC/USDT", "5m") == TradeProposal(
        "BTC/USDT", "5m", "It rises.", Action.ENTER_LONG, 0.75, 0.03, 0.02, 0.06
    )


def test_limits_of_nothing_are_taken_where_nothing_is_opened() -> None:
    nothing = {"type": "hold", "confidence": 1, "constraints": dict.fromkeys(GOOD["action"]["constraints"], 0)}
    proposal = read_proposal(changed("action", nothing), "BTCUSDT", "5m")
    assert isinstance(proposal, TradeProposal)
    assert (proposal.action, proposal.confidence, proposal.stop_loss_pct) == (Action.HOLD, 1.0, 0.0)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("version", "2.0.0", "version is '2.0.0'; expected '1.0.0'"),
        ("version", 1, "version is 1;"),
        ("intent", "place_order", "intent is 'place_order'"),
        ("symbol", "ETHUSDT", "about 'ETHUSDT', the signal about 'BTC/USDT'"),
        ("symbol", None, "symbol is None; expected text"),
        ("timeframe", "1h", "about the timeframe '1h'"),
        ("timeframe", "5M", "about the timeframe '5M'"),
        ("rationale", ["a"], "rationale is ['a']"),
        ("rationale", ..., "leaves out rationale"),
        ("leverage", 10, "not known: 'leverage'"),
        ("action", "enter_long", "action is 'enter_long'; expected an object"),
        ("action.type", "buy", "'buy' is none of those"),
        ("action.type", ["hold"], "is none of those"),
        ("action.confidence", 75, "confidence is 75; expected a number from 0 to 1"),
        ("action.confidence", "0.75", "confidence is '0.75'"),
        ("action.confidence", True, "confidence is True"),
        ("action.confidence", None, "confidence is None"),
        ("action.confidence", float("nan"), "confidence is nan"),
        ("action.confidence", -0.01, "confidence is -0.01"),
        ("action.constraints", None, "constraints is None"),
        ("action.constraints.max_position_size", 3, "max_position_size is 3; expected a number from 0 to 1"),
        ("action.constraints.stop_loss_pct", 0, "opens a position with a stop_loss_pct of 0"),
        ("action.constraints.stop_loss_pct", float("inf"), "stop_loss_pct is inf"),
        ("action.constraints.take_profit_pct", ..., "leaves out take_profit_pct"),
        ("action.constraints.leverage", 10, "constraints has fields that are not known: 'leverage'"),
    ],
)
def test_a_proposal_that_is_not_as_agreed_is_refused_with_the_reason(path: str, value: object, reason: str) -> None:
    assert reason in refusal(changed(path, value))


def test_a_number_too_long_to_be_shown_is_refused() -> None:
    assert "max_position_size is a value of type int" in refusal(
        changed("action.constraints.max_position_size", 10**5000)
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not one JSON object"), ("Buy now!", "not one JSON object"), ("[]", "expected an object"),
        (json.dumps(GOOD)[:-1], "not one JSON object"), (f"{json.dumps(GOOD)} {json.dumps(GOOD)}", "not one JSON"),
        (json.dumps(GOOD).replace('"confidence": 0.75', '"confidence": 0.75, "confidence": 0.25'), "twice"),
        (json.dumps(GOOD).replace("0.03", "NaN"), "no number"), (" " * 300_000, "no more than"),
    ],
)  # fmt: skip
def test_a_text_that_is_not_one_proposal_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.sampled_from(["version", "symbol", "action", "action.type", "action.constraints.stop_loss_pct"]), _JSON)
def test_whatever_stands_in_a_field_nothing_is_raised_and_nothing_is_out_of_range(path: str, value: object) -> None:
    answer = read_proposal(changed(path, value), "BTCUSDT", "5m")
    if isinstance(answer, TradeProposal):
        assert 0 < answer.stop_loss_pct <= 1
    else:
        assert answer.reason


async def test_the_parser_makes_a_verdict_without_a_rating_of_a_proposal() -> None:
    assert await read(json.dumps(GOOD)) == Verdict(
        None, 0.75, Action.ENTER_LONG, "It rises.", (), None, "strict_json", False
    )


async def test_a_proposal_that_stands_in_other_text_is_read() -> None:
    verdict = await read(f"Here it is:\n{json.dumps(GOOD)}\nGood luck.")
    assert isinstance(verdict, Verdict)
    assert (verdict.action, verdict.rung) == (Action.ENTER_LONG, "embedded_json")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(changed("action.confidence", 75)), json.dumps(changed("timeframe", "1h")),
        json.dumps(changed("symbol", "ETHUSDT")), json.dumps(changed("action.constraints.leverage", 5)),
        json.dumps(GOOD) + json.dumps(changed("action.type", "enter_short")),
        json.dumps(GOOD)[:-1] + ",}", json.dumps(GOOD)[:-2], json.dumps(GOOD) + "\nDecision: SELL",
    ],
)  # fmt: skip
async def test_a_proposal_that_is_wrong_broken_or_contradicted_is_an_abstention(text: str) -> None:
    assert isinstance(await read(text), Abstention)


async def test_proposals_of_a_batch_go_to_the_signals_they_number() -> None:
    other = {**changed("action.type", "exit"), "signal": 2}
    parser = LLMResponseParser()
    signals = [SIGNAL, type(SIGNAL).on(SIGNAL.snapshot.bars[0], "another", SIGNAL.side, 0.5, SIGNAL.snapshot)]
    answers = await parser.parse_batch(json.dumps({"verdicts": [other, {**GOOD, "signal": 1}]}), signals, "stop")
    await parser.close()
    assert [getattr(answers[signal.id], "action", None) for signal in signals] == [Action.ENTER_LONG, Action.EXIT]


@pytest.mark.parametrize(
    ("path", "value", "fitting"),
    [
        ("rationale", "x" * 900, True), ("rationale", 5, False), ("action.confidence", 1, True),
        ("action.confidence", 1.01, False), ("action.confidence", -0.01, False), ("action.confidence", True, False),
        ("action.confidence", float("nan"), False), ("action.type", "buy", False), ("action", [], False),
        ("action.constraints.leverage", 2, False), ("action.constraints.stop_loss_pct", ..., False),
    ],
)  # fmt: skip
def test_whether_an_object_fits_a_schema_is_told(path: str, value: object, fitting: bool) -> None:
    assert fits(GOOD, load_schema("propose_trade.v1"))
    assert fits(changed(path, value), load_schema("propose_trade.v1")) is fitting


@pytest.mark.parametrize(("count", "fitting"), [(0, True), (4, True), (5, False)])
def test_how_many_entries_a_list_may_have_is_told(count: int, fitting: bool) -> None:
    assert fits(["thin volume"] * count, load_schema()["properties"]["risks"]) is fitting
