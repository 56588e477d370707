"""Has an Ollama server fetch a model, says how far it is, and gives up where it gets no further."""

import asyncio
import logging
from collections.abc import Callable

from llm_integration.backends.wire.http import Wire
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, object_in
from llm_integration.backends.wire.stream import LineReader, NotAStream
from llm_integration.errors import BackendError
from llm_integration.ports import BackendContext, ChatReply

SILENCE_S = 60.0
VERIFYING_S = 900.0
_LONGEST_S = 7 * 86400.0
_LINES_A_REQUEST = 20_000
_STEP_PERCENT = 10
_log = logging.getLogger(__name__)
_REASONS = (
    (("file does not exist", "manifest unknown"), "there is no such model; look its name up on https://ollama.com"),
    (("no space left",), "its disk is full; make room there"),
)


class Pull:
    """One model on its way to the server. `problem` is why it did not arrive, None where it did, or may yet."""

    def __init__(self, context: BackendContext, address: str, model: str) -> None:
        self._wire = Wire(context, address, read=_no_pull, idle_s=VERIFYING_S)
        self._model = model
        self._clock = context.clock
        self._percent: int | None = None
        self.problem: str | None = None
        self.task = asyncio.create_task(self._run(), name=f"pull of {model}")

    @property
    def how_far(self) -> str:
        """How much has come so far."""
        return "it has begun" if self._percent is None else f"{self._percent} % has come"

    async def close(self) -> None:
        """Give up; what has come stays with the server, which goes on from there the next time."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        """Until it is there, or until nothing moves any more."""
        began_at = self._clock.monotonic()
        _log.info("%s is fetched by Ollama at %s", self._model, self._wire.address)
        try:
            done = False
            while not done:
                done = await self._ask()
            _log.info("%s has been fetched in %.0f s", self._model, self._clock.monotonic() - began_at)
        except BackendError as error:
            said = str(error).lower()
            known = (reason for words, reason in _REASONS if any(word in said for word in words))
            self.problem = next(known, str(error))
        except TimeoutError:
            self.problem = f"nothing more came ({self.how_far}); it goes on from there when asked again"
        finally:
            await self._wire.close()

    async def _ask(self) -> bool:
        """One request; whether the model is there after it. Raises BackendError, and TimeoutError where it stalls."""
        reader, loop = _PullReader(), asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_S) as limit:

            def moved(_: str) -> None:
                limit.reschedule(loop.time() + (SILENCE_S if reader.downloading else VERIFYING_S))
                self._tell(reader)

            body = {"model": self._model, "stream": True}
            reply = await self._wire.post_stream("/api/pull", body, _LONGEST_S, reader, moved)
        return reply.finish_reason == "stop"

    def _tell(self, reader: "_PullReader") -> None:
        """A line for each ten per cent."""
        if reader.total == 0:
            return
        percent = min(99, 100 * reader.completed // reader.total)
        before, self._percent = self._percent, percent
        if before is not None and percent // _STEP_PERCENT > before // _STEP_PERCENT:
            _log.info("%d %% of %s has been fetched (of %.1f GB)", percent, self._model, reader.total / 1e9)


class _PullReader(LineReader):
    """Reads the lines of /api/pull; what moves it on is a piece of its text, what repeats itself is not.

    After so many lines it is done for this request, as a body may not grow without end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[str, tuple[int, int]] = {}
        self._status = ""
        self._lines_read = 0

    @property
    def total(self) -> int:
        """Bytes of all layers named so far."""
        return sum(total for total, _ in self._layers.values())

    @property
    def completed(self) -> int:
        """Bytes of them that are there."""
        return sum(completed for _, completed in self._layers.values())

    @property
    def downloading(self) -> bool:
        """Whether it is at the part that shows how far it is."""
        return self._status.startswith("pulling")

    def take(self, line: str) -> str:
        """The line where it says something new. Raises NotAStream, NotAChat and ErrorInside."""
        try:
            body = object_in(line)
        except NotAChat:
            if self._lines_read == 0:
                raise NotAStream from None
            raise
        if body.get("error"):
            raise ErrorInside(body["error"], body)
        status, total = body.get("status"), _size(body.get("total"))
        if not isinstance(status, str):
            raise NotAChat("it sends no status of a pull")
        self._lines_read += 1
        before = self._status, self.completed
        self._status = status
        digest = body.get("digest")
        if total is not None and isinstance(digest, str):
            self._layers[digest] = total, min(_size(body.get("completed")) or 0, total)
        self.done = status == "success" or self._lines_read >= _LINES_A_REQUEST
        return line if (self._status, self.completed) != before else ""

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """`finish_reason` stop where the model is there, length where it has to be asked for again."""
        if self._lines_read == 0:
            raise NotAStream
        if self._status != "success" and self._lines_read < _LINES_A_REQUEST:
            raise NotAChat(f"the pull ended at {clean(self._status)!r}")
        return ChatReply("", None, finish_reason="stop" if self._status == "success" else "length")


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _no_pull(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """What is no stream is no pull."""
    raise NotAChat("it is no pull of a model")
