"""Asks for a chat completion, streamed where that is wanted, and reads the stream of OpenRouter and its like."""

from collections.abc import Callable, Mapping

from llm_integration.backends.wire.http import Wire
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, completion_in, delta_in, to_reply
from llm_integration.backends.wire.stream import CutOff, Event, EventReader, NotAStream
from llm_integration.ports import ChatReply, ChatRequest

_END = "[DONE]"


async def complete(
    wire: Wire,
    path: str,
    request: ChatRequest,
    body: Mapping[str, object],
    headers: Mapping[str, str] | None = None,
    *,
    stream_fields: Mapping[str, object] | None = None,
) -> ChatReply:
    """The reply to `body`, handed to `request.on_delta` as it comes where that is set. Raises BackendError.

    `stream_fields` go into the body of a stream only.
    """
    if request.on_delta is None:
        return await wire.post_chat(path, body, request.timeout_s, headers)
    streamed = {"model": request.model, "stream": True, **(stream_fields or {}), **body}
    return await wire.post_stream(path, streamed, request.timeout_s, ChatStream(), request.on_delta, headers)


class ChatStream(EventReader):
    """The StreamReader of chat completions. Thoughts (`reasoning`, `reasoning_content`) are no part of the text."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self._logprobs: list[object] = []
        self._last: dict[str, object] = {}
        self._finish_reason: object = None
        self._chunks = 0
        self._choices = 0

    def take(self, event: Event) -> str:
        """The text in a chunk. Raises NotAChat and ErrorInside."""
        if event.data.strip() == _END:
            self.done = True
            return ""
        if event.name == "error":
            raise _told(event)
        body = completion_in(event.data)
        self._chunks += 1
        for key in ("id", "model", "usage"):
            if body.get(key):
                self._last[key] = body[key]
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        return self._read_choice(choice) if isinstance(choice, dict) else ""

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """What the chunks came to. Raises NotAStream, CutOff and NotAChat."""
        if not self._chunks and not self.done:
            raise NotAStream
        if self.done and not self._choices:
            raise NotAChat("the stream has no choices")
        # llama-cpp-python's server ends a stream that another request interrupts with [DONE] alone.
        if self._finish_reason is None:
            raise CutOff("it gives no finish_reason")
        choice = {"finish_reason": self._finish_reason, "logprobs": {"content": self._logprobs}}
        return to_reply("".join(self._texts), choice, self._last, received, clean)

    def _read_choice(self, choice: Mapping[str, object]) -> str:
        self._choices += 1
        if choice.get("finish_reason"):
            self._finish_reason = choice["finish_reason"]
        logprobs = choice.get("logprobs")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(entries, list):
            self._logprobs += entries
        text = delta_in(choice)
        self._texts.append(text)
        return text


def _told(event: Event) -> ErrorInside:
    """The error that an event of that name tells of."""
    try:
        body = completion_in(event.data)
    except ErrorInside as found:
        return found
    except NotAChat:
        return ErrorInside(event.data, {})
    return ErrorInside(body, body)
