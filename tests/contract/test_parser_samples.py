"""Every sample reply, read: never a wrong value, and no fewer answers than the steps can surely give."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from llm_integration.model import Abstention
from llm_integration.parsing.repair import Repairer
from llm_integration.parsing.stated import Refused
from llm_integration.response_parser import LLMResponseParser
from tests.generic_json import extract_object
from tests.sampledata import SHARED
from tests.unit.test_response_parser import SIGNAL

ACTIONS = {"BUY": "enter_long", "SELL": "enter_short", "HOLD": "hold", "CLOSE": "exit"}


def samples(name: str) -> list[dict[str, Any]]:
    if SHARED is None:
        pytest.skip("the shared sample data is not beside the project")
    return [json.loads(line) for line in (SHARED / "llm_text" / name).read_text("utf-8").splitlines()]


async def test_no_trading_decision_is_read_as_another_and_most_are_read() -> None:
    parser, counts, wrong = LLMResponseParser(), Counter[str](), []
    for row in samples("trading_decisions.jsonl"):
        for expected in row["expected"] or [None]:
            signal = SIGNAL if expected is None else replace(SIGNAL, symbol=expected["symbol"])
            verdict = await parser.parse(row["text"], signal)
            if isinstance(verdict, Abstention):
                counts["rightly silent" if expected is None else "not answered"] += 1
            elif expected is not None and (verdict.action, verdict.confidence) == (
                ACTIONS[expected["action"]], expected["confidence"],
            ):  # fmt: skip
                counts["answered"] += 1
            else:
                wrong.append((row["id"], expected, verdict.action, verdict.confidence))
    await parser.close()
    assert wrong == []
    assert counts["answered"] >= 0.7 * (counts["answered"] + counts["not answered"]), dict(counts)


async def test_no_json_text_is_read_as_another_value_and_half_are_read() -> None:
    repairer, counts, wrong = Repairer(), Counter[str](), []
    for row in samples("parser_cases.jsonl"):
        try:
            value = await extract_object(row["text"], repairer)
        except Refused:
            counts["refused" if row["expect_kind"] == "value" else "rightly refused"] += 1
            continue
        if row["expect_kind"] == "value" and value == row["expected"]:
            counts["read"] += 1
        else:
            wrong.append((row["id"], row["text"][:80], value))
    await repairer.close()
    assert wrong == []
    assert counts["read"] >= 0.5 * (counts["read"] + counts["refused"]), dict(counts)


async def test_no_json_text_about_something_else_becomes_a_verdict() -> None:
    parser = LLMResponseParser()
    verdicts = [await parser.parse(row["text"], SIGNAL) for row in samples("parser_cases.jsonl")]
    await parser.close()
    assert [verdict for verdict in verdicts if not isinstance(verdict, Abstention)] == []
