"""Runs a GGUF file in this process, by llama.cpp's Python package: the extra `gguf`. No server, no network, no key.

The part of the model string after `gguf/` is the path of the file, as in `gguf/models/mistral-7b-q4.gguf`. Nothing is
loaded before the first call, and all work is done in one thread per file, so that nothing else waits for it. The
context is `llm.backends.gguf.context_tokens`, else what the model was trained with, at most 8192 tokens.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from llm_integration.backends.wire.gguf_file import inspect
from llm_integration.backends.wire.gguf_model import GgufModel, Stopped
from llm_integration.errors import BackendError, NotUsable, TimedOut
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price
from trading.clock import Clock

_CHECK_LIMIT_S = 30.0
_STOP_LIMIT_S = 10.0


class Backend:
    """The files asked for so far; each answers one request at a time."""

    API_KEY_ENV: ClassVar[str | None] = None
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._clock = context.clock
        self._wanted = context.context_tokens
        self._files: dict[str, _File] = {}
        self._context_tokens: dict[str, int] = {}

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError. `request.timeout_s` starts once those before it are answered."""
        file = self._file(request.model)
        reply = await file.answer(request)
        if file.context_tokens is not None:
            self._context_tokens[request.model] = file.context_tokens
        return reply

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """How many tokens the request's messages are to the model, which this loads; None where it cannot be had."""
        try:
            return await self._file(request.model).count(request)
        except BackendError:
            return None

    async def check(self, model: str) -> Health:
        """Whether the package is there and the file one of its models. It is loaded by the first call."""
        path = _path(model)
        try:
            async with asyncio.timeout(_CHECK_LIMIT_S):
                self._context_tokens[model] = await asyncio.to_thread(inspect, path, self._wanted)
        except NotUsable as error:
            return Health(False, str(error))
        except TimeoutError:
            return Health(False, f"{path} could not be read within {_CHECK_LIMIT_S:g} s; it is asked again later")
        room = f"{self._context_tokens[model]} tokens of context"
        loaded = model in self._files and self._files[model].context_tokens is not None
        return Health(True, f"{path} {'is loaded' if loaded else 'is loaded by the first call'}, {room}")

    def capabilities(self, model: str) -> Capabilities:
        """All there is; the context is known after a check or a call."""
        return Capabilities(
            schema=True, json_object=True, streaming=True, logprobs=True, local=True,
            context_tokens=self._context_tokens.get(model), slots=1,
        )  # fmt: skip

    def price(self, model: str) -> Price | None:
        """It costs nothing."""
        return Price(Decimal(0), Decimal(0), Decimal(0), "free")

    async def close(self) -> None:
        """End what is under way and free the models; safe to call twice."""
        files, self._files = list(self._files.values()), {}
        await asyncio.gather(*(file.close() for file in files))

    def _file(self, model: str) -> "_File":
        if model not in self._files:
            self._files[model] = _File(_path(model), self._wanted, self._clock)
        return self._files[model]


class _File:
    """One GGUF file with the thread that works on it."""

    def __init__(self, path: Path, wanted: int | None, clock: Clock) -> None:
        self._path = path
        self._wanted = wanted
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gguf")
        self._turn = asyncio.Lock()
        self._loading: asyncio.Future[GgufModel] | None = None
        self._stop = threading.Event()
        self._closed = False

    @property
    def context_tokens(self) -> int | None:
        """How much the model reads; None while it is not loaded."""
        loading = self._loading
        ready = loading is not None and loading.done() and not loading.cancelled() and loading.exception() is None
        return loading.result().context_tokens if loading is not None and ready else None

    async def answer(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError; whoever gives up, generation ends with the token it is at."""
        async with self._turn_for(request):
            return await self._generate(await self._load(), request)

    async def count(self, request: ChatRequest) -> int:
        """The tokens of the prompt. Raises BackendError."""
        async with self._turn_for(request):
            model, loop = await self._load(), asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, model.count, request.messages)

    @asynccontextmanager
    async def _turn_for(self, request: ChatRequest) -> AsyncIterator[None]:
        """The model for oneself, as long as the request may take. Raises NotUsable and TimedOut."""
        async with self._turn:
            if self._closed:
                raise NotUsable(f"{self._path} has been closed")
            try:
                async with asyncio.timeout(request.timeout_s):
                    yield
            except TimeoutError:
                failure = TimedOut(f"{self._path} gave no full reply within {request.timeout_s:g} s")
            else:
                return
        raise failure

    async def close(self) -> None:
        """End what is under way and free the model."""
        self._closed = True
        self._stop.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT_S), self._turn:
                if self._loading is not None:
                    with suppress(BackendError):
                        await self._free(await asyncio.shield(self._loading))
        self._thread.shutdown(wait=False)

    async def _free(self, model: GgufModel) -> None:
        try:
            freed = asyncio.get_running_loop().run_in_executor(self._thread, model.close)
        except RuntimeError:  # the program is ending: its threads have taken their last work
            model.close()
        else:
            await freed

    async def _load(self) -> GgufModel:
        """The loaded model. Raises NotUsable. A load goes on for the next call when this one gives up."""
        if self._loading is None:
            loop = asyncio.get_running_loop()
            self._loading = loop.run_in_executor(self._thread, GgufModel, self._path, self._wanted)
        try:
            return await asyncio.shield(self._loading)
        except BackendError:
            self._loading = None
            raise

    async def _generate(self, model: GgufModel, request: ChatRequest) -> ChatReply:
        """The reply, written in the file's thread. Raises BackendError, and what `request.on_delta` raises."""
        if self._closed:
            raise NotUsable(f"{self._path} has been closed")
        loop, self._stop = asyncio.get_running_loop(), threading.Event()
        handing = None if request.on_delta is None else _Handing(request.on_delta, self._stop)
        work = loop.run_in_executor(self._thread, model.answer, request, self._stop, handing, self._clock)
        try:
            reply = await asyncio.shield(work)
        except Stopped:
            if handing is None or handing.raised is None:
                raise NotUsable(f"{self._path} was closed while it answered") from None
        finally:
            self._stop.set()
            with suppress(Stopped, BackendError, TimeoutError):
                async with asyncio.timeout(_STOP_LIMIT_S):
                    await asyncio.shield(work)
        if handing is not None and handing.raised is not None:
            raise handing.raised
        return reply


class _Handing:
    """Hands text from the file's thread on to the loop it is made in; what its receiver raises ends the generation."""

    def __init__(self, on_delta: Callable[[str], None], stop: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_delta = on_delta
        self._stop = stop
        self.raised: Exception | None = None

    def __call__(self, piece: str) -> None:
        self._loop.call_soon_threadsafe(self._take, piece)

    def _take(self, piece: str) -> None:
        if self._stop.is_set():
            return
        try:
            self._on_delta(piece)
        except Exception as error:
            # It belongs to whoever asked, and is raised there.
            self.raised = error
            self._stop.set()


def _path(model: str) -> Path:
    return Path(model).expanduser()
