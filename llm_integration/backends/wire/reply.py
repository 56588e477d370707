"""Reads the body of a chat completion, as OpenRouter, llama-server and their like send it."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import orjson

from llm_integration.backends.wire.logprobs import token_logprobs
from llm_integration.backends.wire.secrets import mended
from llm_integration.ports import ChatReply

_MOST_TOKENS = 2**31 - 1
_MOST_SHOWN = 120
_MOST_USD = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Received:
    """A response as it came: the body is decoded and free of the key."""

    status: int
    headers: Mapping[str, str]
    headers_at: float
    text: str


class NotAChat(Exception):
    """The body is no chat completion; the message says what it is, `came` is what came instead, as it came."""

    def __init__(self, said: str, came: str = "") -> None:
        super().__init__(said)
        self.came = came

    def shown(self, clean: Callable[[str], str]) -> str:
        """What it is, with the beginning of what came."""
        return f"{self}: {clean(self.came).strip()[:_MOST_SHOWN]!r}" if self.came else str(self)


class ErrorInside(Exception):
    """The body of a 200 carries an error; `error` is that object, `body` what it stood in."""

    def __init__(self, error: object, body: Mapping[str, object]) -> None:
        super().__init__("the reply carries an error")
        self.error = error
        self.body = body


def parse_json(text: str) -> object:
    """The JSON value of a body; NaN and lone surrogates, which some servers send, included. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None


def read_chat(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200. Raises NotAChat and ErrorInside."""
    body = completion_in(received.text)
    choice = _first_choice(body)
    return to_reply(_content(choice), choice, body, received, clean)


def to_reply(
    text: str,
    choice: Mapping[str, object],
    body: Mapping[str, object],
    received: Received,
    clean: Callable[[str], str],
) -> ChatReply:
    """The ChatReply with that text; its end and probabilities are told by `choice`, all else by `body`."""
    prompt_tokens, completion_tokens, cost_usd = _usage(body.get("usage"))
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    text = clean(mended(text))
    return ChatReply(
        text=text,
        model=_string(body.get("model"), clean),
        finish_reason=_string(choice.get("finish_reason"), clean),
        reply_id=_string(body.get("id") or received.headers.get("X-Generation-Id"), clean),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_usd=cost_usd,
        http_status=received.status,
        headers_at=received.headers_at,
        raw=received.text,
        cost_source=None if cost_usd is None else "reported",
        logprobs=token_logprobs(entries, text, clean),
    )


def completion_in(text: str) -> Mapping[str, object]:
    """The chat completion, or the chunk of one, that a text is. Raises NotAChat and ErrorInside."""
    body = object_in(text)
    nested = body.get("provider")
    if not body.get("choices") and isinstance(nested, dict) and ("choices" in nested or "error" in nested):
        body = nested
    if body.get("error"):
        raise ErrorInside(body["error"], body)
    choices = body.get("choices")
    if "error_type" in body and not choices:
        raise ErrorInside(body, body)
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, dict) and choice.get("error"):
        raise ErrorInside(choice["error"], body)
    if isinstance(choice, dict) and choice.get("finish_reason") == "error":
        raise ErrorInside({"message": "the provider ended the reply with an error"}, body)
    return body


def delta_in(choice: Mapping[str, object]) -> str:
    """The text that a chunk's choice adds; a whole message in its place is taken too."""
    delta = choice.get("delta") or choice.get("message")
    return _text_of(delta) if isinstance(delta, dict) else ""


def json_object(received: Received) -> Mapping[str, object]:
    """The JSON object that a body is. Raises NotAChat."""
    return object_in(received.text)


def object_in(text: str) -> Mapping[str, object]:
    """The JSON object that a text is. Raises NotAChat."""
    if not text.strip():
        raise NotAChat("the body is empty")
    try:
        body = parse_json(text)
    except ValueError:
        raise NotAChat("the body is no JSON", text) from None
    if not isinstance(body, dict):
        raise NotAChat("the body is JSON but no object", text)
    return body


def _first_choice(body: Mapping[str, object]) -> Mapping[str, object]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise NotAChat("the body has no choices")


def _content(choice: Mapping[str, object]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise NotAChat("the first choice has no message")
    return _text_of(message)


def _text_of(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    text = content or message.get("refusal")
    return text if isinstance(text, str) else ""


def _usage(usage: object) -> tuple[int | None, int | None, Decimal | None]:
    if not isinstance(usage, dict):
        return None, None, None
    return tokens(usage.get("prompt_tokens")), tokens(usage.get("completion_tokens")), usd(usage.get("cost"))


def tokens(value: object) -> int | None:
    """A count of tokens; None for what is no such count."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def usd(value: object) -> Decimal | None:
    """An amount of money; None for what is no such amount."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return amount if amount.is_finite() and 0 <= amount < _MOST_USD else None


def _string(value: object, clean: Callable[[str], str]) -> str | None:
    if not isinstance(value, str):
        return None
    return clean(mended(value))
