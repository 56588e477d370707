"""Several like servers as one Backend: the one with most room is asked, one that is away is passed over."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llm_integration.errors import (
    BackendError,
    ConnectionBroken,
    NotUsable,
    ServerFailed,
    TimedOut,
    Unreachable,
)
from llm_integration.ports import Backend, Capabilities, ChatReply, ChatRequest, Health, Price
from trading.clock import Clock

_NOTHING_SENT = (Unreachable, NotUsable)
_FAILING = (*_NOTHING_SENT, ServerFailed, TimedOut, ConnectionBroken)
_NEVER = float("-inf")


@dataclass(slots=True, eq=False)
class _Server:
    """One of them: what it is called, how many calls it has now, and until when it is passed over."""

    address: str
    backend: Backend
    in_flight: int = 0
    last_used: int = 0
    away_until: float = _NEVER


class Pool:
    """A Backend over several of one kind; it goes by the first one's name.

    A call goes to the server with most free slots: its slots less the calls under way; among equals to the one used
    longest ago. One that has not told its slots yet counts as the largest of those that have, or it might never be
    asked; as one where none has. A server that fails is passed over for `away_s`; where nothing had been
    sent to it, the same call goes on to the next at once. Those passed over are asked after all when no other is left.
    """

    def __init__(self, servers: Sequence[tuple[str, Backend]], clock: Clock, *, away_s: float = 10.0) -> None:
        self._servers = [_Server(address, backend) for address, backend in servers]
        self.name = servers[0][1].name
        self._clock = clock
        self._away_s = away_s
        self._uses = itertools.count(1)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply of the first server that can be reached. Raises BackendError, with each one's reason if none."""
        failures: list[tuple[str, BackendError]] = []
        left = list(self._servers)
        while left:
            server = self._first_of(left, request.model)
            left.remove(server)
            try:
                reply = await self._ask(server, request)
            except _NOTHING_SENT as error:
                failures.append((server.address, error))
                continue
            return replace(reply, notes=(*reply.notes, f"answered by {server.address}"))
        raise _none(failures)

    async def check(self, model: str) -> Health:
        """Usable while any server is; the detail names each. One found usable is no longer passed over."""
        healths = await asyncio.gather(*(server.backend.check(model) for server in self._servers))
        for server, health in zip(self._servers, healths, strict=True):
            server.away_until = _NEVER if health.usable else self._clock.monotonic() + self._away_s
        detail = "; ".join(
            f"{server.address}: {health.detail}" for server, health in zip(self._servers, healths, strict=True)
        )
        return Health(any(health.usable for health in healths), detail)

    def capabilities(self, model: str) -> Capabilities:
        """What every server offers; the slots of all that tell theirs, and the smallest context."""
        each = [server.backend.capabilities(model) for server in self._servers]
        slots = [one.slots for one in each if one.slots is not None]
        contexts = [one.context_tokens for one in each if one.context_tokens is not None]
        return Capabilities(
            schema=_all(one.schema for one in each),
            json_object=_all(one.json_object for one in each),
            streaming=all(one.streaming for one in each),
            logprobs=_all(one.logprobs for one in each),
            local=all(one.local for one in each),
            context_tokens=min(contexts, default=None),
            slots=sum(slots) if slots else None,
        )

    def price(self, model: str) -> Price | None:
        """That of the first server that knows it."""
        prices = (server.backend.price(model) for server in self._servers)
        return next((price for price in prices if price is not None), None)

    async def close(self) -> None:
        """Close each."""
        for server in self._servers:
            await server.backend.close()

    def _first_of(self, servers: Sequence[_Server], model: str) -> _Server:
        """One that is not away, with most room, used longest ago; of those that are away the one that is so longest."""
        told = {id(server): server.backend.capabilities(model).slots for server in servers}
        most = max((slots for slots in told.values() if slots is not None), default=1)
        now = self._clock.monotonic()

        def rank(server: _Server) -> tuple[float, int, int]:
            away_until = server.away_until if server.away_until > now else _NEVER
            slots = told[id(server)]
            return away_until, server.in_flight - (most if slots is None else slots), server.last_used

        return min(servers, key=rank)

    async def _ask(self, server: _Server, request: ChatRequest) -> ChatReply:
        server.in_flight += 1
        server.last_used = next(self._uses)
        try:
            reply = await server.backend.chat(request)
        except _FAILING:
            server.away_until = self._clock.monotonic() + self._away_s
            raise
        finally:
            server.in_flight -= 1
        server.away_until = _NEVER
        return reply


def _all(values: Iterable[bool | None]) -> bool | None:
    """False where one says no, None where one does not know, else True."""
    said = list(values)
    return False if False in said else None if None in said else True


def _none(failures: Sequence[tuple[str, BackendError]]) -> BackendError:
    last = failures[-1][1]
    reasons = "; ".join(f"{address}: {error}" for address, error in failures)
    return last.reworded(f"no server can be reached: {reasons}")
