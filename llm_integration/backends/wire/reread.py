"""Reads a body again that was kept: whole or streamed, as its dialect reads it off the wire."""

from collections.abc import Callable

from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received
from llm_integration.backends.wire.stream import StreamReader
from llm_integration.ports import ChatReply


def reread(
    raw: str, read: Callable[[Received, Callable[[str], str]], ChatReply], stream: Callable[[], StreamReader]
) -> ChatReply:
    """The reply in a body. Raises NotAChat, CutOff, NotAStream and ErrorInside."""
    received = Received(200, {}, 0.0, raw)
    try:
        return read(received, str)
    except (NotAChat, ErrorInside):
        reader = stream()
        for pieces in (reader.feed(raw.encode("utf-8", "replace")), reader.rest()):
            for _ in pieces:
                pass
        return reader.reply(received, str)
