"""`LocalChatCompletion`: a local model behind the shape that programs written for OpenAI's library expect."""

import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from llm_integration.backends import backend_names
from llm_integration.library.client import Generation, LLMClient, get_llm_client
from llm_integration.library.settings import names_a_model
from llm_integration.streaming import ChatChunk

Completion = dict[str, Any]


class LocalChatCompletion:
    """Chat completions by the model that the environment or `configs/llm.yaml` names, else llama.cpp's server here.

    All calls of a process share one client for each choice of model.
    """

    _clients: dict[str | None, LLMClient] = {}  # noqa: RUF012
    _lock = threading.Lock()

    @classmethod
    def create(
        cls, messages: Sequence[Mapping[str, str]], model: str | None = None, stream: bool = False, **options: Any
    ) -> Any:
        """A completion, `done["choices"][0]["message"]["content"]`; streamed, an iterator of chunks.

        `model` is a model string, or a name that the configured backend knows; without it the configured one answers.
        Options as in `LLMClient.chat`: `temperature`, `max_tokens`, `timeout` and the rest. Raises BackendError.
        """
        client = cls._client(model)
        if stream:
            return _chunks(client.chat(messages, stream=True, **options))
        return _completion(client.chat(messages, **options))

    @classmethod
    async def acreate(
        cls, messages: Sequence[Mapping[str, str]], model: str | None = None, stream: bool = False, **options: Any
    ) -> Any:
        """As `create`; streamed, an async iterator."""
        client = cls._client(model)
        if stream:
            return _achunks(await client.achat(messages, stream=True, **options))
        return _completion(await client.achat(messages, **options))

    @classmethod
    def close(cls) -> None:
        """Let go of every client; the next call makes a new one."""
        with cls._lock:
            clients, cls._clients = cls._clients, {}
        for client in clients.values():
            client.close()

    @classmethod
    def _client(cls, model: str | None) -> LLMClient:
        whole = model is not None and model.partition("/")[0] in backend_names()
        with cls._lock:
            if model not in cls._clients:
                backend = None if whole or names_a_model() else "llama_cpp"
                cls._clients[model] = get_llm_client(
                    backend=model if whole else backend, model=None if whole else model
                )
            return cls._clients[model]


def _completion(answer: Generation) -> Completion:
    message = {"role": "assistant", "content": answer.text}
    return {
        **_head(answer.reply.reply_id, answer.model, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
        "usage": _usage(answer.prompt_tokens, answer.completion_tokens),
    }


def _chunks(chunks: Iterator[ChatChunk]) -> Iterator[Completion]:
    head = _head(None, None, "chat.completion.chunk")
    for chunk in chunks:
        yield _chunk(head, chunk)


async def _achunks(chunks: AsyncIterator[ChatChunk]) -> AsyncIterator[Completion]:
    head = _head(None, None, "chat.completion.chunk")
    async for chunk in chunks:
        yield _chunk(head, chunk)


def _chunk(head: Completion, chunk: ChatChunk) -> Completion:
    delta = {"role": "assistant", "content": chunk.delta} if chunk.delta else {}
    made = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    if chunk.reply is not None:
        made["choices"][0]["finish_reason"] = chunk.reply.finish_reason
        made["model"] = chunk.reply.answered_by
        made["usage"] = _usage(chunk.reply.prompt_tokens, chunk.reply.completion_tokens)
    return made


def _head(reply_id: str | None, model: str | None, kind: str) -> Completion:
    return {"id": reply_id or f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _usage(prompt: int | None, completion: int | None) -> Completion:
    total = None if prompt is None or completion is None else prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
