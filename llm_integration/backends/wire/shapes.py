"""What readers of other dialects than chat completions share."""

from collections.abc import Callable, Iterable, Mapping

from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, json_object, tokens
from llm_integration.backends.wire.secrets import mended

_FINISH_REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "stop": "stop",
    "max_tokens": "length", "length": "length", "model_context_window_exceeded": "length",
    "refusal": "content_filter", "content_filtered": "content_filter", "guardrail_intervened": "content_filter",
}  # fmt: skip


def body_of(received: Received) -> Mapping[str, object]:
    """The JSON object of a 200. Raises NotAChat, and ErrorInside where it carries an error."""
    body = json_object(received)
    if body.get("error"):
        raise ErrorInside(body["error"], body)
    return body


def joined_text(blocks: object, clean: Callable[[str], str]) -> str:
    """The text of content blocks; those of another kind (thoughts) are passed over. Raises NotAChat."""
    if not isinstance(blocks, list):
        raise NotAChat("the body has no content")
    parts = [block.get("text") for block in blocks if isinstance(block, dict)]
    return text_of("".join(part for part in parts if isinstance(part, str)), clean) or ""


def text_of(value: object, clean: Callable[[str], str]) -> str | None:
    """A string, free of the key and of lone surrogates; None for what is none."""
    if not isinstance(value, str):
        return None
    return clean(mended(value))


def finish_reason(value: object, clean: Callable[[str], str]) -> str | None:
    """Why the reply ended, in the words of chat completions: stop, length, content_filter; others as they are."""
    said = text_of(value, clean)
    return said if said is None else _FINISH_REASONS.get(said, said)


def prompt_tokens(usage: Mapping[str, object], fresh: str, cached: Iterable[str]) -> int | None:
    """Tokens of the whole prompt where those from a cache are counted apart; None where unknown."""
    first = tokens(usage.get(fresh))
    return None if first is None else first + sum(tokens(usage.get(name)) or 0 for name in cached)
