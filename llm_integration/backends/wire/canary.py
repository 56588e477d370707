"""Finds out whether a server enforces the schema of a reply: one that ignores it answers 200 all the same."""

from collections.abc import Awaitable, Callable

from llm_integration.backends.wire.reply import parse_json
from llm_integration.errors import ParameterRefused, TimedOut
from llm_integration.model import Message
from llm_integration.ports import ChatReply, ChatRequest

_LIMIT_S = 60.0
_MOST_REFUSALS = 5
_WORD = "schema-is-enforced"
_SCHEMA = {
    "type": "object",
    "properties": {"canary": {"type": "string", "enum": [_WORD]}},
    "required": ["canary"],
    "additionalProperties": False,
}
SAID = {
    True: "schema enforced",
    False: "schema not enforced: replies are validated, but more of them will not do",
    None: "schema not checked, as it did not answer in time",
}


async def enforces_schema(chat: Callable[[ChatRequest], Awaitable[ChatReply]], model: str) -> bool | None:
    """Whether `model` keeps to a schema that no reply meets by chance. None: no answer in time. Raises BackendError.

    What it refuses of the request is left out, where `chat` learns that, and it is asked again.
    """
    question = ChatRequest(
        messages=(Message("user", "Answer in JSON."),),
        model=model,
        schema=_SCHEMA,
        schema_name="canary",
        max_tokens=64,
        timeout_s=_LIMIT_S,
    )
    for _ in range(_MOST_REFUSALS):
        try:
            reply = await chat(question)
            return parse_json(reply.text) == {"canary": _WORD}
        except ParameterRefused:
            continue
        except TimedOut:
            return None
        except ValueError:
            return False
    return False
