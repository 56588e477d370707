"""Panel: asks several models about the same signals, or one several times, and makes one answer of theirs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from uuid import UUID

from llm_integration.answers import Answer
from llm_integration.asking import Asker
from llm_integration.calling.together import Reserved
from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError, BudgetExceeded, ContextExceeded, RequestRejected
from llm_integration.fusing import Fused, Vote, fuse, stability, weighted_mean
from llm_integration.llm_processor import Rater
from llm_integration.model import Claim, Verdict
from llm_integration.ports import Backend, ChatReply, ChatRequest
from llm_integration.shares import share_of
from trading.model import Signal


@dataclass(frozen=True, slots=True)
class Member:
    """One of those asked: the model string, what its answer counts (above 0), and the chain that asks it."""

    model: str
    weight: float
    backend: Backend


Reserve = Callable[[Sequence[tuple[str, ChatRequest]]], AbstractAsyncContextManager[Reserved]]
"""Quota and budget for the first request of every member, by its model string, or for none of them.

On entering it waits for all and gives what goes into each one's `reserved`, or raises BackendError; on leaving it gives
back what was not used.
"""


class Panel:
    """Rates claims by asking every member at once, `samples` times each, and fusing what they answer; see `fuse`.

    The same model's samples are fused first, each counting alike, then the members by weight; both need `quorum`. A
    sample differs from the others in `ChatRequest.sample` alone, so that at temperature 0 they will mostly agree.

    With `reserve`, nobody is asked before there is room for all: the members' first requests are held until the last
    of them is made, then reserved together. Where that fails nobody is asked, and the error is the answer; where it
    fails for want of budget, and `otherwise` is given, that is asked, unless the budget says to skip. Samples are
    reserved round by round, not all together.
    """

    def __init__(
        self,
        asker: Asker,
        members: Sequence[Member],
        *,
        quorum: float,
        samples: int = 1,
        reserve: Reserve | None = None,
        otherwise: Rater | None = None,
        run_id: str | None = None,
    ) -> None:
        if not members or len({member.model for member in members}) < len(members):
            raise ValueError("a panel is one model or more, each named once")
        self._asker = asker
        self._members = tuple(members)
        self._quorum = quorum
        self._samples = samples
        self._reserve = reserve if len(members) > 1 else None
        self._otherwise = otherwise
        self._run_id = run_id

    async def rate(self, claims: Sequence[Claim], *, deadline: float) -> Mapping[UUID, Answer]:
        """Each claimed signal's answer; nothing is begun after `deadline` (monotonic). Never raises BackendError."""
        answers = await self._rate(claims, deadline)
        unpaid = [claim for claim in claims if _is_unpaid(answers[claim.signal.id])]
        if self._otherwise is None or not unpaid:
            return answers
        return {**answers, **await self._otherwise.rate(unpaid, deadline=deadline)}

    async def _rate(self, claims: Sequence[Claim], deadline: float) -> dict[UUID, Answer]:
        rounds = [_Round(self._members, self._reserve) for _ in range(self._samples)]
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._ask(one, claims, deadline, sample), name=f"sample {sample + 1}")
                for sample, one in enumerate(rounds)
            ]
        if len(claims) > 1 and all(isinstance(one.refused, ContextExceeded | RequestRejected) for one in rounds):
            half = len(claims) // 2
            return {**await self._rate(claims[:half], deadline), **await self._rate(claims[half:], deadline)}
        answered = [task.result() for task in asked]
        return {claim.signal.id: self._fuse(claim.signal, answered) for claim in claims}

    async def _ask(
        self, one: "_Round", claims: Sequence[Claim], deadline: float, sample: int
    ) -> Mapping[str, Mapping[UUID, Answer]]:
        """What each member answers in one round, by its model string."""

        async def ask(member: Member) -> dict[UUID, Answer]:
            return await self._asker.ask(
                [claim.signal for claim in claims], _InRound(member, one), model=member.model, deadline=deadline,
                sample=sample, run_id=self._run_id, priority=max(claim.priority for claim in claims),
            )  # fmt: skip

        return await one.run(ask)

    def _fuse(self, signal: Signal, answered: Sequence[Mapping[str, Mapping[UUID, Answer]]]) -> Answer:
        """The answer of all members, from what each said in each round."""
        votes = []
        for member in self._members:
            samples = [answers[member.model][signal.id] for answers in answered]
            votes.append((member, self._fuse_samples(signal, samples)))
        if len(votes) == 1:
            return votes[0][1]
        weighed = [(member.model, member.weight, answer) for member, answer in votes]
        fused = fuse([Vote(name, weight, answer.outcome) for name, weight, answer in weighed], self._quorum)
        rated = [(weight, answer) for _, weight, answer in weighed if isinstance(answer.outcome, Verdict)]
        return replace(
            _together(signal, fused, weighed),
            members=fused.verdicts,
            agreement=fused.agreement,
            spread=fused.spread,
            stability=weighted_mean([(weight, answer.stability) for weight, answer in rated]),
        )

    def _fuse_samples(self, signal: Signal, answers: Sequence[Answer]) -> Answer:
        if len(answers) == 1:
            return answers[0]
        weighed = [(f"sample {number}", 1.0, answer) for number, answer in enumerate(answers, start=1)]
        fused = fuse([Vote(name, weight, answer.outcome) for name, weight, answer in weighed], self._quorum)
        return replace(_together(signal, fused, weighed), stability=stability(answer.outcome for answer in answers))


Ask = Callable[[Member], Awaitable[dict[UUID, Answer]]]


class _Round:
    """One request to every member, none before all can be sent. `refused` is why nobody could be asked."""

    def __init__(self, members: Sequence[Member], reserve: Reserve | None) -> None:
        self.refused: BackendError | None = None
        self._members = members
        self._reserve = reserve
        self._first: dict[str, ChatRequest] = {}
        self._done: set[str] = set()
        self._reserved: Reserved = {}
        self._all_there = asyncio.Event()
        self._decided = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self, ask: Ask) -> dict[str, dict[UUID, Answer]]:
        """Ask every member; their answers by model string."""
        async with asyncio.TaskGroup() as group:
            if self._reserve is not None:
                group.create_task(self._hold(self._reserve), name="reserve for all members")
            asked = {each.model: group.create_task(self._ask(ask, each), name=each.model) for each in self._members}
            await asyncio.wait(asked.values())
            self._over.set()
        return {model: task.result() for model, task in asked.items()}

    async def admit(self, member: Member, request: ChatRequest) -> ChatRequest:
        """The request as it may go on: a member's first one with what was reserved. Raises BackendError if refused."""
        if len(self._members) > 1:
            request = replace(request, route=request.route or f"ensemble of {len(self._members)}")
        if self._reserve is not None and member.model not in self._first:
            self._first[member.model] = request
            self._look()
            await self._decided.wait()
            request = replace(request, reserved=self._reserved.get(member.model, {}))
        if self.refused is not None:
            raise self.refused
        return request

    async def _ask(self, ask: Ask, member: Member) -> dict[UUID, Answer]:
        try:
            return await ask(member)
        finally:
            self._done.add(member.model)
            self._look()

    def _look(self) -> None:
        if len(self._first.keys() | self._done) == len(self._members):
            self._all_there.set()

    async def _hold(self, reserve: Reserve) -> None:
        """Reserve once every member's first request is there, or has turned out not to come, until all is over."""
        await self._all_there.wait()
        if not self._first:
            return
        try:
            async with reserve(
                [(each.model, self._first[each.model]) for each in self._members if each.model in self._first]
            ) as held:
                self._reserved = held
                self._decided.set()
                await self._over.wait()
        except BackendError as error:
            if self._decided.is_set():
                raise
            self.refused = error
            self._decided.set()


class _InRound(Wrapper):
    """A member's chain, whose requests go through a round."""

    def __init__(self, member: Member, one: _Round) -> None:
        super().__init__(member.backend)
        self._member = member
        self._round = one

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The member's reply, once the round lets the request go on. Raises BackendError."""
        return await self._inner.chat(await self._round.admit(self._member, request))


def _together(signal: Signal, fused: Fused, weighed: Sequence[tuple[str, float, Answer]]) -> Answer:
    """The fused outcome with the reply it rests on, and the calls, tokens and cost of all.

    The reply is the speaker's; under an abstention that of the weightiest who gave one. The expected rating is the
    weighted mean of those that gave a verdict, None where any of theirs is unknown; the entropy of several
    distributions is not known from theirs, so there is one only where one alone gave a verdict.
    """
    calls = {call.id: call for _, _, answer in weighed for call in answer.calls}
    share = share_of(signal.id, calls.values())
    by_weight = sorted(weighed, key=lambda each: (-each[1], each[0]))
    spoke = [answer for name, _, answer in by_weight if name == fused.speaker]
    rest_on = next((answer for answer in [*spoke, *(answer for *_, answer in by_weight)] if answer.reply), None)
    rated = [(weight, answer) for _, weight, answer in weighed if isinstance(answer.outcome, Verdict)]
    return Answer(
        outcome=fused.outcome,
        reply=rest_on.reply if rest_on else None,
        calls=tuple(calls.values()),
        prompt_tokens=share.prompt_tokens,
        completion_tokens=share.completion_tokens,
        cost_usd=share.cost_usd,
        rating_expected=weighted_mean([(weight, answer.rating_expected) for weight, answer in rated]),
        rating_entropy=rated[0][1].rating_entropy if len(rated) == 1 else None,
        route=rest_on.route if rest_on else None,
    )


def _is_unpaid(answer: Answer) -> bool:
    """Whether nobody was asked for want of budget, and somebody else may be."""
    return isinstance(answer.outcome, BudgetExceeded) and not answer.outcome.skip and not answer.calls
