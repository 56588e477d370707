"""LLMResponseParser: a reply read as a Verdict, or an Abstention that says why it was not.

`docs/replies.md` says in words how a reply is read.
"""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from llm_integration.model import Abstention, Verdict
from llm_integration.parsing.documents import NotJson, decode, objects, unfenced
from llm_integration.parsing.fields import reading_of
from llm_integration.parsing.stated import Refused, Stated, the_one
from llm_integration.parsing.thoughts import without_thoughts
from trading.model import Signal

STRICT, EMBEDDED, REPAIRED, PIPE, PROSE = "strict_json", "embedded_json", "repaired_json", "pipe", "prose"
MAX_REPLY_LENGTH = 1_000_000
_OTHERS = re.compile(r"[\W_]+")


class LLMResponseParser:
    """Reads replies. One instance serves one event loop; `close` it when done."""

    async def parse(self, text: str, signal: Signal, finish_reason: str | None = None) -> Verdict | Abstention:
        """The reply's verdict on `signal`. Never raises on any text."""
        try:
            document = decode(unfenced(without_thoughts(text)))
            return _verdict(the_one(_about(signal, document)), STRICT)
        except NotJson:
            return Abstention("the reply is no JSON")
        except Refused as refused:
            return Abstention(str(refused))

    async def parse_batch(
        self, text: str, signals: Sequence[Signal], finish_reason: str | None = None
    ) -> dict[UUID, Verdict | Abstention]:
        """The reply's verdict on each of `signals`, which it numbers from 1."""
        if len(signals) == 1:
            return {signals[0].id: await self.parse(text, signals[0], finish_reason)}
        try:
            document = decode(unfenced(without_thoughts(text)))
        except (NotJson, Refused) as error:
            return {signal.id: Abstention(str(error) or "the reply is no JSON") for signal in signals}
        return {
            signal.id: _numbered(document, number, signal, STRICT) for number, signal in enumerate(signals, start=1)
        }

    async def close(self) -> None:
        """Let go of the helper process; safe to call twice."""


def _about(signal: Signal, document: Any) -> list[Stated]:
    readings = [reading for made in objects(document) if (reading := reading_of(made)) is not None]
    if not readings:
        raise Refused("the reply states neither an action nor a rating")
    fitting = [reading for reading in readings if reading.symbol is None or same_symbol(reading.symbol, signal.symbol)]
    if not fitting:
        raise Refused(f"the reply is about {readings[0].symbol!r}, the signal about {signal.symbol!r}")
    return fitting


def _numbered(document: Any, number: int, signal: Signal, rung: str) -> Verdict | Abstention:
    entries = [made for made in objects(document) if made.get("signal") == number]
    try:
        if not entries:
            raise Refused(f"the reply leaves out signal {number}")
        return _verdict(the_one(_about(signal, entries)), rung)
    except Refused as refused:
        return Abstention(str(refused), rung)


def _verdict(stated: Stated | None, rung: str, repaired: bool = False) -> Verdict:
    if stated is None:
        raise Refused("the reply states neither an action nor a rating")
    if stated.action is None:
        raise Refused(f"the reply states a rating of {stated.rating}, but no action")
    return Verdict(
        stated.rating, stated.confidence, stated.action, stated.rationale, stated.risks, stated.regime, rung, repaired
    )


def same_symbol(stated: str, symbol: str) -> bool:
    """Whether a reply's symbol is the signal's: BTCUSDT, BTC-USDT, BINANCE:BTCUSDT and BTC all are BTC/USDT."""
    pair = symbol.partition(":")[0] if "/" in symbol else symbol.rpartition(":")[2]
    base = re.split(r"[/_-]", pair, maxsplit=1)[0]
    names = {_OTHERS.sub("", name).casefold() for name in (symbol, pair, base)}
    told = stated.strip().lstrip("$")
    options = (told, told.rpartition(":")[2], told.partition(":")[0] if "/" in told else told)
    return any(_OTHERS.sub("", option).casefold() in names for option in options)
