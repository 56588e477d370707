"""LLMResponseParser: a reply read as a Verdict, or an Abstention that says why it was not.

`docs/replies.md` says in words how a reply is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from llm_integration.contracts.propose_trade import is_proposal, proposal_of
from llm_integration.model import Abstention, Verdict
from llm_integration.parsing.documents import NotJson, Scan, decode, objects, scan, unfenced, without
from llm_integration.parsing.fields import answers, entry_number, reading_of
from llm_integration.parsing.lines import piped
from llm_integration.parsing.mending import mentions_answer, trusted
from llm_integration.parsing.prose import told
from llm_integration.parsing.repair import Repairer
from llm_integration.parsing.stated import Refused, Stated, agreed, the_one
from llm_integration.parsing.symbols import same_symbol
from llm_integration.parsing.thoughts import without_thoughts
from trading.model import Signal

STRICT, EMBEDDED, REPAIRED, PIPE, PROSE = "strict_json", "embedded_json", "repaired_json", "pipe", "prose"
MAX_REPLY_LENGTH = 250_000
MAX_OBJECTS = 1000
MAX_BROKEN = 8
CUT_OFF_REASON = "the reply is cut off before its answer is complete"
CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"})
ENDED = frozenset({"stop", "end_turn", "eos", "stop_sequence", "completed", "complete"})


class Misplaced(Refused):
    """In place of what was asked about stands nothing, or something else."""


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON documents of a reply, the step that found them, the text around them, and whether they end too soon."""

    documents: list[Any]
    rung: str
    around: str = ""
    cut_off: bool = False


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
                return _from_prose(text, signal, _folded(finish_reason))
            rung = found.rung
            stated = _about(signal, found.documents, rung)
            if found.around:
                _check_beside(stated, told(found.around, ended=True), signal)
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
            found = await self._find(text, _folded(finish_reason), batch=True)
            if found is None:
                raise Refused("the reply holds no JSON; several signals can be told apart only there")
            rung = found.rung
            entries = _entries(found.documents, len(signals))
        except Refused as refused:
            misplaced = isinstance(refused, Misplaced)
            return {signal.id: Abstention(str(refused), rung, misplaced) for signal in signals}
        return {
            signal.id: _entry_verdict(entries.get(number, []), number, signal, found)
            for number, signal in enumerate(signals, start=1)
        }

    async def close(self) -> None:
        """End the helper process; safe to call twice."""
        await self._repairer.close()

    async def _find(self, text: str, finish: str, batch: bool = False) -> Found | None:
        """The documents that answer, or None where the reply holds no such JSON. Raises Refused."""
        if len(text) > MAX_REPLY_LENGTH:
            raise Refused(f"the reply has {len(text)} characters; no more than {MAX_REPLY_LENGTH} are read")
        if not text.strip():
            ran_out = finish in CUT_OFF
            raise Refused("the tokens ran out before the reply began" if ran_out else "the reply is empty")
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
        return await self._embedded(answer, finish, batch)

    async def _embedded(self, answer: str, finish: str, batch: bool) -> Found | None:
        found = scan(answer)
        if len(found.spans) > MAX_OBJECTS:
            raise Refused(f"the reply holds {len(found.spans)} JSON objects; no more than {MAX_OBJECTS} are read")
        documents, broken = _decoded(answer, found)
        if found.unclosed_at is not None and mentions_answer(answer[found.unclosed_at :]):
            source = answer[found.unclosed_at :]
            if batch:
                inner = source[1:]
                return Found([*documents, *_decoded(inner, scan(inner))[0]], EMBEDDED, cut_off=True)
            if finish in CUT_OFF or documents:
                raise Refused(CUT_OFF_REASON)
            mended = trusted(await self._repairer.mend(source), source, whole=False)
            return Found([mended], REPAIRED, answer[: found.unclosed_at])
        if len(broken) > MAX_BROKEN:
            raise Refused(f"the reply holds {len(broken)} broken JSON objects; no more than {MAX_BROKEN} are mended")
        mended = [trusted(await self._repairer.mend(source), source, whole=True) for source in broken]
        if not mended and not documents:
            return None
        around = without(answer, found.spans)
        if "}" in around:
            raise Refused("the reply's JSON is broken: its braces do not pair up")
        return Found(documents + mended, REPAIRED if mended else EMBEDDED, around)


def _decoded(answer: str, found: Scan) -> tuple[list[Any], list[str]]:
    """The answering documents of the scanned stretches, and the answering stretches that are broken."""
    documents, broken = [], []
    for start, end in found.spans:
        source = answer[start:end]
        try:
            document = decode(source)
        except NotJson:
            if mentions_answer(source):
                broken.append(source)
        else:
            if any(map(answers, objects(document))):
                documents.append(document)
    return documents, broken


def _about(signal: Signal, documents: list[Any], rung: str) -> Stated:
    readings = [
        reading
        for document in documents
        for made in objects(document)
        if (reading := _proposed(made, signal, rung) if is_proposal(made) else reading_of(made)) is not None
    ]
    if not readings:
        raise Refused("the reply states neither an action nor a rating")
    fitting = [reading for reading in readings if reading.symbol is None or same_symbol(reading.symbol, signal.symbol)]
    stated = the_one(fitting)
    if stated is None:
        raise Misplaced(f"the reply is about {readings[0].symbol!r}, the signal about {signal.symbol!r}")
    return stated


def _proposed(made: dict[str, Any], signal: Signal, rung: str) -> Stated:
    """What a proposed trade states; its limits are checked, and are no part of a verdict."""
    if rung == REPAIRED:
        raise Refused("the proposed trade's JSON is broken; its figures are not mended")
    numbered = entry_number(made) is not None
    whole = {key: value for key, value in made.items() if key != "signal"} if numbered else made
    proposal = proposal_of(whole, signal.symbol, signal.timeframe)
    return Stated(proposal.action, confidence=proposal.confidence, rationale=proposal.rationale, symbol=signal.symbol)


def _check_beside(stated: Stated, beside: Stated, signal: Signal) -> None:
    """Raises Refused when what stands beside the answer says otherwise, or is about another symbol."""
    agreed(stated, beside)
    if beside.symbol is not None and not same_symbol(beside.symbol, signal.symbol):
        raise Refused(f"the reply is about {beside.symbol!r}, the signal about {signal.symbol!r}")


def _from_prose(text: str, signal: Signal, finish: str) -> Verdict | Abstention:
    rung: str | None = None
    try:
        if finish in CUT_OFF:
            raise Refused(CUT_OFF_REASON)
        answer = unfenced(without_thoughts(text))
        line = piped(answer)
        beside = told(answer, ended=finish in ENDED or text.endswith(("\n", "\r", "```")))
        stated = line if line is not None else beside
        if not stated.answers:
            raise Refused("the reply states neither an action nor a rating")
        rung = PROSE if line is None else PIPE
        _check_beside(stated, beside, signal)
        return _verdict(stated, rung)
    except Refused as refused:
        return Abstention(str(refused), rung)


def _entries(documents: list[Any], count: int) -> dict[int, list[Any]]:
    entries: dict[int, list[Any]] = {}
    for made in (made for document in documents for made in objects(document)):
        number = entry_number(made)
        if number is not None:
            if not 1 <= number <= count:
                raise Misplaced(f"the reply speaks of signal {number}; there were 1 to {count}")
            entries.setdefault(number, []).append(made)
    return entries


def _entry_verdict(entries: list[Any], number: int, signal: Signal, found: Found) -> Verdict | Abstention:
    try:
        if not entries:
            raise Misplaced(CUT_OFF_REASON if found.cut_off else f"the reply leaves out signal {number}")
        return _verdict(_about(signal, entries, found.rung), found.rung)
    except Refused as refused:
        return Abstention(str(refused), found.rung, isinstance(refused, Misplaced))


def _verdict(stated: Stated, rung: str) -> Verdict:
    if stated.action is None:
        raise Refused(f"the reply states a rating of {stated.rating}, but no action")
    return Verdict(
        stated.rating, stated.confidence, stated.action, stated.rationale, stated.risks, stated.regime, rung,
        repaired=rung == REPAIRED,
    )  # fmt: skip


def _folded(finish_reason: str | None) -> str:
    return (finish_reason or "").casefold()
