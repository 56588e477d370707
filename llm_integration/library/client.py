"""`get_llm_client`: any configured model behind a few plain calls, called as the daemon calls it."""

import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, overload
from uuid import uuid4
from weakref import finalize

from llm_integration.audit_file import AuditFile
from llm_integration.calling.compose import Caller, build, key_names
from llm_integration.calling.tokens import estimate_tokens
from llm_integration.config import LLMConfig
from llm_integration.library.background import LOOP
from llm_integration.library.settings import client_config
from llm_integration.model import Call, Message
from llm_integration.parsing.documents import NotJson, decode, unfenced
from llm_integration.parsing.stated import Refused
from llm_integration.parsing.thoughts import without_thoughts
from llm_integration.ports import ChatReply, ChatRequest, Health
from llm_integration.settings_sources import secret
from llm_integration.streaming import ChatChunk, stream
from trading.clock import Clock, SystemClock
from trading.errors import TradentError


@dataclass(frozen=True, slots=True)
class Generation:
    """A model's answer. `model` is the model string that answered; tokens and cost are None where not known."""

    text: str
    model: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None
    latency_ms: float
    cached: bool
    fallback: bool
    reply: ChatReply

    @property
    def json(self) -> Any:
        """The JSON value that the text is, less thoughts and fences. Raises TradentError where it is none."""
        try:
            return decode(unfenced(without_thoughts(self.text)))
        except NotJson:
            raise TradentError(f"the reply is no JSON: {self.text[:120]!r}") from None
        except Refused as refused:
            raise TradentError(str(refused)) from None


class LLMClient:
    """One session with the models of `config`. Thread-safe; every call has an async twin whose name begins with `a`.

    Calls go through routes, fallbacks, retries, breakers, the quota of this process and the budget, as the daemon's do.
    `calls` keeps the last thousand as they were sent and answered; `llm.audit.jsonl` keeps all of them.
    """

    def __init__(self, config: LLMConfig, *, run_id: str | None = None, clock: Clock | None = None) -> None:
        self.config = config
        self.run_id = run_id or uuid4().hex
        self.calls: list[Call] = []
        self._clock = clock or SystemClock()
        self._keys = {name: secret(variable) for name, variable in key_names(config).items()}
        self._begin()

    def __enter__(self) -> "LLMClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(self, prompt: str, *, system: str | None = None, **options: Any) -> Generation:
        """The answer to one prompt. Options as in `chat`. Raises BackendError."""
        return LOOP.run(self._ask(_prompt(prompt, system), options))

    async def agenerate(self, prompt: str, *, system: str | None = None, **options: Any) -> Generation:
        """As `generate`."""
        return await LOOP.arun(self._ask(_prompt(prompt, system), options))

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[False] = False, **options: Any
    ) -> Generation: ...

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[True], **options: Any
    ) -> Iterator[ChatChunk]: ...

    def chat(
        self, messages: Sequence[Mapping[str, str]], *, stream: bool = False, **options: Any
    ) -> Generation | Iterator[ChatChunk]:
        """The answer to messages with `role` and `content`; streamed, chunks with `delta` and, on the last, `done`.

        Options: `json_mode` (any JSON object), `schema` (a JSON schema) and `schema_name`; `temperature`, `max_tokens`,
        `timeout` (seconds, where `llm.backends` sets none for the backend); `top_logprobs`, `sample`; `agent`, `kind`,
        `urgency`, `complexity` (what routes look at).
        Raises BackendError; TypeError for an option that there is not.
        """
        if stream:
            return LOOP.iterate(self._stream(_messages(messages), options))
        return LOOP.run(self._ask(_messages(messages), options))

    @overload
    async def achat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[False] = False, **options: Any
    ) -> Generation: ...

    @overload
    async def achat(
        self, messages: Sequence[Mapping[str, str]], *, stream: Literal[True], **options: Any
    ) -> AsyncIterator[ChatChunk]: ...

    async def achat(
        self, messages: Sequence[Mapping[str, str]], *, stream: bool = False, **options: Any
    ) -> Generation | AsyncIterator[ChatChunk]:
        """As `chat`; streamed, `async for chunk in await client.achat(..., stream=True)`."""
        if stream:
            return LOOP.aiterate(self._stream(_messages(messages), options))
        return await LOOP.arun(self._ask(_messages(messages), options))

    def healthcheck(self) -> dict[str, Health]:
        """Each model string, and whether it can be used now; the first choice first."""
        return dict(LOOP.run(self._here().check()))

    async def ahealthcheck(self) -> dict[str, Health]:
        """As `healthcheck`."""
        return dict(await LOOP.arun(self._here().check()))

    def close(self) -> None:
        """Let go of connections; a client that is forgotten does so by itself."""
        self._end()

    async def aclose(self) -> None:
        """As `close`."""
        if self._process == os.getpid() and self._end.detach() is not None:
            await LOOP.arun(_close(self._caller, self._audit))

    def _begin(self) -> None:
        config, self._process = self.config, os.getpid()
        self._audit = AuditFile(config.audit.jsonl, config.audit.redact) if config.audit.jsonl else None
        self._caller: Caller = build(config.model_copy(update={"quota_scope": "process"}), self._clock, self._keys)
        self._end = finalize(self, _end, self._process, self._caller, self._audit)

    def _here(self) -> Caller:
        """What asks the models in this process; a forked child has connections, quota and audit chain of its own."""
        if self._process != os.getpid():
            self._begin()
        return self._caller

    async def _ask(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Generation:
        request = self._request(messages, **options)
        began = time.perf_counter()
        reply = await self._here().backend.chat(request)
        return _generation(reply, (time.perf_counter() - began) * 1000)

    def _stream(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> AsyncIterator[ChatChunk]:
        return stream(self._here().backend, self._request(messages, **options))

    def _request(
        self,
        messages: tuple[Message, ...],
        *,
        json_mode: bool = False,
        schema: Mapping[str, object] | None = None,
        schema_name: str = "reply",
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        agent: str | None = None,
        kind: str = "decision",
        urgency: float = 0.0,
        complexity: float = 0.0,
        top_logprobs: int = 0,
        sample: int = 0,
    ) -> ChatRequest:
        bound = max_tokens or self.config.max_tokens
        return ChatRequest(
            messages=messages,
            model="",
            schema=schema,
            schema_name=schema_name,
            json_object=json_mode,
            prompt_version="",
            max_tokens=bound,
            temperature=self.config.temperature if temperature is None else temperature,
            timeout_s=timeout or self.config.timeout_seconds,
            estimated_tokens=estimate_tokens(messages, bound),
            deadline=self._clock.monotonic() + self.config.deadline_seconds,
            top_logprobs=top_logprobs,
            agent=agent,
            kind=kind,
            urgency=urgency,
            complexity=complexity,
            sample=sample,
            run_id=self.run_id,
            record=self._keep,
        )

    def _keep(self, call: Call) -> None:
        self.calls.append(call)
        del self.calls[:-1000]
        if self._audit is not None:
            self._audit.append([call])


def get_llm_client(
    run_id: str | None = None,
    *,
    backend: str | None = None,
    model: str | None = None,
    model_path: str | Path | None = None,
    base_url: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    timeout_s: float | None = None,
) -> LLMClient:
    """A client for the model that is configured; what is given here goes over the environment and the files.

    `run_id` names the session in the audit trail and is whose budget `llm.budget.run_usd` is. Raises SettingsError.
    """
    given = {
        "backend": backend, "model": model, "instruct_model_path": model_path, "base_url": base_url,
        "temperature": temperature, "max_tokens": max_tokens, "timeout_s": timeout_s,
    }  # fmt: skip
    return LLMClient(client_config(given), run_id=run_id)


def _prompt(prompt: str, system: str | None) -> tuple[Message, ...]:
    asked = Message("user", prompt)
    return (asked,) if system is None else (Message("system", system), asked)


def _messages(messages: Sequence[Mapping[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _generation(reply: ChatReply, latency_ms: float) -> Generation:
    return Generation(
        text=reply.text,
        model=reply.answered_by or "",
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cost_usd=reply.cost_usd,
        latency_ms=latency_ms,
        cached=reply.cached,
        fallback=reply.fallback,
        reply=reply,
    )


def _end(process: int, caller: Caller, audit: AuditFile | None) -> None:
    """Close what a client has; what is its parent's, a forked child keeps as it is, and the parent closes it."""
    if process == os.getpid():
        LOOP.finish(_close(caller, audit))


async def _close(caller: Caller, audit: AuditFile | None) -> None:
    await caller.close()
    if audit is not None:
        audit.close()
