"""Cuts a streamed body into lines and events, and says what reads them: one StreamReader per dialect.

A StreamReader lives for one reply. `EventReader` is fed server-sent events, `LineReader` lines of JSON; a dialect that
sends neither implements StreamReader itself and is fed bytes as they come.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from llm_integration.backends.wire.reply import NotAChat, Received
from llm_integration.ports import ChatReply


class NotAStream(Exception):
    """Nothing of a stream came: the body may be a whole reply, which is then read as such."""


class CutOff(Exception):
    """The stream ended before the reply did; the message says what was missing."""


class StreamReader(Protocol):
    """Reads one streamed reply: `feed` for whatever comes, `rest` at the end, then `reply`."""

    @property
    def done(self) -> bool:
        """Whether the reply has been ended by a word of its own, though the connection may stay open."""
        ...

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of text in what came now. Raises NotAStream, NotAChat and ErrorInside."""
        ...

    def rest(self) -> Iterator[str]:
        """The pieces of text in what is left once nothing more comes. Raises CutOff and ErrorInside."""
        ...

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """The whole reply; `received.text` is all that came. Raises NotAStream, CutOff and NotAChat."""
        ...


class Lines:
    """Cuts bytes into lines, however they are split; they end in LF, CRLF or CR. A character is never cut in two."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._after_cr = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole now, without their ends."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *whole, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if not whole:
            self._begun += rest
            return []
        whole[0] = bytes(self._begun) + whole[0]
        self._begun = bytearray(rest)
        return [line.decode("utf-8", "replace") for line in whole]

    def rest(self) -> str:
        """The line that has not ended."""
        return self._begun.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `name` is "message" where it has none."""

    name: str
    data: str


class Events:
    """Makes events of lines, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them.

    Comments, ids and retry times are passed over. A field `error`, which llama-server sends, is an event of that name.
    """

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """The event that this line ends, None where it ends none."""
        if not line:
            return self._ended()
        name, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "error" and value:
            self._name = "error"
            self._data.append(value)
        return None

    def _ended(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data = "", []
        return event


class _Reader(ABC):
    """What readers of lines share."""

    def __init__(self) -> None:
        self.done = False
        self._lines = Lines()

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of text in what came now. Raises NotAStream, NotAChat and ErrorInside."""
        for line in self._lines.feed(data):
            if not self.done:
                yield from self._read(line)

    def rest(self) -> Iterator[str]:
        """The pieces of text in a last line, or event, that lacks its end. Raises CutOff and ErrorInside."""
        if self.done:
            return
        try:
            yield from self._read(self._lines.rest())
            yield from self._read("")
        except NotAChat:
            raise CutOff("its last line is cut off") from None

    @abstractmethod
    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """What it all came to; `received.text` is all that came. Raises NotAStream, CutOff and NotAChat."""

    @abstractmethod
    def _read(self, line: str) -> Iterator[str]:
        """The pieces of text in a line."""


class EventReader(_Reader):
    """A StreamReader of server-sent events; a dialect says what an event means, and what they come to."""

    def __init__(self) -> None:
        super().__init__()
        self._events = Events()

    @abstractmethod
    def take(self, event: Event) -> str:
        """The text in an event, empty where it has none; sets `done` after the last. Raises NotAChat, ErrorInside."""

    def _read(self, line: str) -> Iterator[str]:
        event = self._events.feed(line)
        if event is not None:
            yield self.take(event)


class LineReader(_Reader):
    """A StreamReader of lines, each a JSON value (NDJSON); a dialect says what a line means, and what they come to."""

    @abstractmethod
    def take(self, line: str) -> str:
        """The text in a line, empty where it has none; sets `done` after the last. Raises NotAChat, ErrorInside.

        Raises NotAStream for a first line that is no JSON: the body may be a whole reply over several lines.
        """

    def _read(self, line: str) -> Iterator[str]:
        if line.strip():
            yield self.take(line)
