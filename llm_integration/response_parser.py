"""LLMResponseParser: a reply read as a Verdict, or an Abstention that says why it was not.

`docs/replies.md` says in words how a reply is read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from llm_integration.model import Abstention, Verdict
from llm_integration.parsing.documents import NotJson, Scan, decode, objects, scan, unfenced, without
from llm_integration.parsing.fields import reading_of
from llm_integration.parsing.lines import piped
from llm_integration.parsing.mending import mentions_answer, trusted
from llm_integration.parsing.prose import told
from llm_integration.parsing.repair import Repairer
from llm_integration.parsing.stated import Refused, Stated, agreed, the_one
from llm_integration.parsing.thoughts import without_thoughts
from trading.model import Signal

STRICT, EMBEDDED, REPAIRED, PIPE, PROSE = "strict_json", "embedded_json", "repaired_json", "pipe", "prose"
MAX_REPLY_LENGTH = 1_000_000
CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"})
ENDED = frozenset({"stop", "end_turn", "eos", "stop_sequence", "completed", "complete"})
_OTHERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON documents of a reply, the step that found them, and the text around them."""

    documents: list[Any]
    rung: str
    around: str = ""


class LLMResponseParser:
    """Reads replies. Mending broken JSON runs in a helper process, so no reply holds up the event loop for long.

    One instance serves one event loop; `close` it when done.
    """

    def __init__(self, repair_timeout_s: float = 2.0) -> None:
        self._repairer = Repairer(repair_timeout_s)

    async def parse(self, text: str, signal: Signal, finish_reason: str | None = None) -> Verdict | Abstention:
        """The reply's verdict on `signal`. Never raises, whatever the text."""
        rung: str | None = None
        try:
            found = await self._find(text, _folded(finish_reason))
            if found is None:
                return _from_prose(_bare(text), signal, _folded(finish_reason))
            rung = found.rung
            stated = _about(signal, found.documents)
            if found.around:
                _check_around(stated, found.around)
            return _verdict(stated, rung)
        except Refused as refused:
            return Abstention(str(refused), rung)

    async def parse_batch(
        self, text: str, signals: Sequence[Signal], finish_reason: str | None = None
    ) -> dict[UUID, Verdict | Abstention]:
        """The reply's verdict on each of `signals`, which it numbers from 1. Never raises, whatever the text."""
        if len(signals) == 1:
            return {signals[0].id: await self.parse(text, signals[0], finish_reason)}
        rung: str | None = None
        try:
            found = await self._find(text, _folded(finish_reason))
            if found is None:
                raise Refused("the reply holds no JSON; several signals can be told apart only there")
            rung = found.rung
            entries = _entries(found.documents, len(signals))
        except Refused as refused:
            return {signal.id: Abstention(str(refused), rung) for signal in signals}
        return {
            signal.id: _entry_verdict(entries.get(number, []), number, signal, rung)
            for number, signal in enumerate(signals, start=1)
        }

    async def close(self) -> None:
        """End the helper process; safe to call twice."""
        await self._repairer.close()

    async def _find(self, text: str, finish: str) -> Found | None:
        """The documents that answer, or None where the reply holds no such JSON. Raises Refused."""
        if len(text) > MAX_REPLY_LENGTH:
            raise Refused(f"the reply has {len(text)} characters; no more than {MAX_REPLY_LENGTH} are read")
        if not text.strip():
            raise Refused("the reply is empty")
        if text.lstrip()[:1] in "{[":
            try:
                return Found([decode(text)], STRICT)
            except NotJson:
                pass
        answer = unfenced(without_thoughts(text))
        if answer[:1] in ("{", "["):
            try:
                return Found([decode(answer)], STRICT)
            except NotJson:
                pass
        return await self._embedded(answer, finish)

    async def _embedded(self, answer: str, finish: str) -> Found | None:
        found = scan(answer)
        documents, broken = _decoded(answer, found)
        documents = [document for document in documents if _answers(document)]
        if found.unclosed_at is not None and mentions_answer(answer[found.unclosed_at :]):
            if finish in CUT_OFF or documents:
                raise Refused("the reply is cut off before its answer is complete")
            source = answer[found.unclosed_at :]
            mended = trusted(await self._repairer.mend(source), source, whole=False)
            return Found([mended], REPAIRED, without(answer, ((found.unclosed_at, len(answer)),)))
        if broken or documents:
            _check_braces(answer, found)
        rung = EMBEDDED
        for source in broken:
            mended = trusted(await self._repairer.mend(source), source, whole=True)
            documents.append(mended)
            rung = REPAIRED
        return Found(documents, rung, without(answer, found.spans)) if documents else None


def _check_braces(answer: str, found: Scan) -> None:
    if "}" in without(answer, found.spans):
        raise Refused("the reply's JSON is broken: its braces do not pair up")


def _decoded(answer: str, found: Scan) -> tuple[list[Any], list[str]]:
    documents, broken = [], []
    for start, end in found.spans:
        source = answer[start:end]
        try:
            documents.append(decode(source))
        except NotJson:
            if mentions_answer(source):
                broken.append(source)
    return documents, broken


def _answers(document: Any) -> bool:
    return any(reading_of(made) is not None for made in objects(document))


def _about(signal: Signal, documents: list[Any]) -> Stated:
    readings = [
        reading for document in documents for made in objects(document) if (reading := reading_of(made)) is not None
    ]
    if not readings:
        raise Refused("the reply states neither an action nor a rating")
    fitting = [reading for reading in readings if reading.symbol is None or same_symbol(reading.symbol, signal.symbol)]
    stated = the_one(fitting)
    if stated is None:
        raise Refused(f"the reply is about {readings[0].symbol!r}, the signal about {signal.symbol!r}")
    return stated


def _check_around(stated: Stated, around: str) -> None:
    beside = told(around, ended=True)
    if beside is not None:
        agreed(stated, beside)


def _from_prose(text: str, signal: Signal, finish: str) -> Verdict | Abstention:
    rung: str | None = None
    try:
        if finish in CUT_OFF:
            raise Refused("the reply is cut off before its answer is complete")
        stated, rung = piped(text), PIPE
        beside = told(text, finish in ENDED)
        if stated is None:
            stated, rung = beside, PROSE
        elif beside is not None:
            agreed(stated, beside)
        if stated is None:
            rung = None
            raise Refused("the reply states neither an action nor a rating")
        if stated.symbol is not None and not same_symbol(stated.symbol, signal.symbol):
            raise Refused(f"the reply is about {stated.symbol!r}, the signal about {signal.symbol!r}")
        return _verdict(stated, rung)
    except Refused as refused:
        return Abstention(str(refused), rung)


def _bare(text: str) -> str:
    return unfenced(without_thoughts(text))


def _entries(documents: list[Any], count: int) -> dict[int, list[Any]]:
    entries: dict[int, list[Any]] = {}
    for document in documents:
        for made in objects(document):
            number = made.get("signal")
            if isinstance(number, str) and number.isdecimal() and len(number) < 6:
                number = int(number)
            if isinstance(number, int) and not isinstance(number, bool):
                if not 1 <= number <= count:
                    raise Refused(f"the reply speaks of signal {number}; there were 1 to {count}")
                entries.setdefault(number, []).append(made)
    return entries


def _entry_verdict(entries: list[Any], number: int, signal: Signal, rung: str | None) -> Verdict | Abstention:
    try:
        if not entries:
            raise Refused(f"the reply leaves out signal {number}")
        return _verdict(_about(signal, entries), rung or STRICT)
    except Refused as refused:
        return Abstention(str(refused), rung)


def _verdict(stated: Stated, rung: str) -> Verdict:
    if stated.action is None:
        raise Refused(f"the reply states a rating of {stated.rating}, but no action")
    return Verdict(
        stated.rating, stated.confidence, stated.action, stated.rationale, stated.risks, stated.regime, rung,
        repaired=rung == REPAIRED,
    )  # fmt: skip


def _folded(finish_reason: str | None) -> str:
    return (finish_reason or "").casefold()


def same_symbol(stated: str, symbol: str) -> bool:
    """Whether a reply's symbol is the signal's: BTCUSDT, BTC-USDT, BINANCE:BTCUSDT and BTC all are BTC/USDT."""
    pair = symbol.partition(":")[0] if "/" in symbol else symbol.rpartition(":")[2]
    base = re.split(r"[/_-]", pair, maxsplit=1)[0]
    names = {_OTHERS.sub("", name).casefold() for name in (symbol, pair, base)}
    asked = stated.strip().lstrip("$")
    options = (asked, asked.rpartition(":")[2], asked.partition(":")[0] if "/" in asked else asked)
    return any(_OTHERS.sub("", option).casefold() in names for option in options)
