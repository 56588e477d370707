"""Real HTTP servers of the dialects of OpenAI, Ollama, Anthropic and Bedrock, by the scripts of tests.servers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.servers import Answer, ChatServer, Json, LlamaServer, OpenRouterServer, Step, completion, rating_for


class OpenAIServer(ChatServer):
    """OpenAI's v1, or a server like it: chats, and the list of models."""

    prefix = "/v1"

    def __init__(self, script: Sequence[Step] = (), *, models: Sequence[str] = ("test/model",)) -> None:
        super().__init__(script)
        self.models = Answer({"object": "list", "data": [{"id": name, "object": "model"} for name in models]})

    def beside(self, path: str) -> Answer:
        return self.models if path == "/models" else super().beside(path)


class LlamaCppPythonServer(ChatServer):
    """llama-cpp-python's server: /v1, with words of its own for the form of a reply, and 500 for all it cannot read.

    `probabilities` is whether its model was loaded so that it has some (`logits_all`).
    """

    prefix = "/v1"

    def __init__(self, script: Sequence[Step] = (), *, owner: str = "me", probabilities: bool = True) -> None:
        super().__init__(script, self._rate)
        self.owner = owner
        self.probabilities = probabilities

    def beside(self, path: str) -> Answer:
        listed = {"id": "test/model", "object": "model", "owned_by": self.owner, "permissions": []}
        return Answer({"object": "list", "data": [listed]}) if path == "/models" else super().beside(path)

    def _rate(self, body: Json) -> Answer:
        form = body.get("response_format", {})
        if form.get("type") not in (None, "text", "json_object"):
            return _python_failure(
                "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
                "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}]"
            )
        if body.get("logprobs") and not self.probabilities:
            return _python_failure("logprobs is not supported for models created with logits_all=False")
        schema = form.get("schema", {})
        if "canary" in schema.get("properties", {}):
            return Answer(completion(json.dumps({"canary": schema["properties"]["canary"]["enum"][0]})))
        return Answer(completion(rating_for(schema) if schema else "well ..."))


class OllamaServer(ChatServer):
    """Ollama: /api/chat, and /api/tags with the models that were pulled."""

    def __init__(self, script: Sequence[Step] = (), *, models: Sequence[str] = ("test/model:latest",)) -> None:
        super().__init__(script, lambda body: Answer(ollama_reply(rating_for(body.get("format")))))
        self.tags = Answer({"models": [{"name": name, "size": 1} for name in models]})

    def beside(self, path: str) -> Answer:
        return self.tags if path == "/api/tags" else Answer("404 page not found", status=404)


class AnthropicServer(ChatServer):
    """Anthropic's Messages API, and its entry of one model."""

    def __init__(self, script: Sequence[Step] = (), *, model: Answer | None = None) -> None:
        super().__init__(script, _rate_message)
        self.model = model or Answer({"type": "model", "id": "test/model", "display_name": "Test"})

    def beside(self, path: str) -> Answer:
        return self.model if path.startswith("/v1/models/") else super().beside(path)


class BedrockServer(ChatServer):
    """Bedrock: Converse, its models and its inference profiles."""

    def __init__(
        self, script: Sequence[Step] = (), *, model: Answer | None = None, profile: Answer | None = None
    ) -> None:
        super().__init__(script, lambda body: Answer(bedrock_reply(rating_for(None))))
        self.model = model or Answer({"modelDetails": {"modelId": "test/model"}})
        self.profile = profile or Answer({"message": "no such profile"}, status=404)

    def beside(self, path: str) -> Answer:
        return self.profile if path.startswith("/inference-profiles/") else self.model


def _python_failure(message: str) -> Answer:
    error = {"message": message, "type": "internal_server_error", "param": None, "code": None}
    return Answer({"error": error}, status=500)


def ollama_reply(text: str, **fields: Any) -> Json:
    """What /api/chat answers where it does not stream."""
    whole = {
        "model": "test/model", "created_at": "2026-01-05T09:00:00Z", "message": {"role": "assistant", "content": text},
        "done_reason": "stop", "done": True, "prompt_eval_count": 120, "eval_count": 30,
    }  # fmt: skip
    return {**whole, **fields}


def anthropic_reply(text: str, **fields: Any) -> Json:
    """What the Messages API answers."""
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "test/model",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 100, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 0,
                  "output_tokens": 30},
    }  # fmt: skip
    return {**whole, **fields}


def bedrock_reply(text: str, **fields: Any) -> Json:
    """What Converse answers."""
    whole = {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 120, "outputTokens": 30, "totalTokens": 150}, "metrics": {"latencyMs": 9},
    }  # fmt: skip
    return {**whole, **fields}


def _rate_message(body: Json) -> Answer:
    return Answer(anthropic_reply(rating_for(body.get("output_config", {}).get("format", {}).get("schema"))))


@dataclass(frozen=True)
class Dialect:
    """How one backend's servers speak.

    `reply` makes a whole reply with that text, `cut_off` holds the fields that say its tokens ran out, `usage` makes
    those that count tokens; the key goes out in `key_header`, as `key` writes it.
    """

    server: Callable[[], ChatServer]
    reply: Callable[..., Json]
    cut_off: Mapping[str, Any]
    usage: Callable[[Any, Any], Json]
    key_header: str = "Authorization"
    key: Callable[[str], str] = "Bearer {}".format


def _choice_usage(prompt: Any, reply: Any) -> Json:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": reply}}


_CUT_CHOICE = {"choices": [{"finish_reason": "length", "message": {"content": "half"}}]}
DIALECTS: dict[str, Dialect] = {
    "openrouter": Dialect(OpenRouterServer, completion, _CUT_CHOICE, _choice_usage),
    "llama_cpp": Dialect(LlamaServer, completion, _CUT_CHOICE, _choice_usage),
    "openai": Dialect(OpenAIServer, completion, _CUT_CHOICE, _choice_usage),
    "ollama": Dialect(
        OllamaServer, ollama_reply, {"done_reason": "length"},
        lambda prompt, reply: {"prompt_eval_count": prompt, "eval_count": reply},
    ),
    "anthropic": Dialect(
        AnthropicServer, anthropic_reply, {"stop_reason": "max_tokens"},
        lambda prompt, reply: {"usage": {"input_tokens": prompt, "output_tokens": reply}},
        key_header="x-api-key", key=str,
    ),
    "bedrock": Dialect(
        BedrockServer, bedrock_reply, {"stopReason": "max_tokens"},
        lambda prompt, reply: {"usage": {"inputTokens": prompt, "outputTokens": reply}},
    ),
}  # fmt: skip
