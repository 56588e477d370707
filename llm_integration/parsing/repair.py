"""Mending broken JSON with json_repair, kept on a short lead: in a process that is killed when it overruns."""

import asyncio
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

from llm_integration.parsing.documents import NotJson, decode
from llm_integration.parsing.stated import Refused

MAX_BROKEN_LENGTH = 64_000
START_LIMIT_S = 30.0
_WORKER = str(Path(__file__).with_name("repair_worker.py"))


class Repairer:
    """Asks a worker process, started when first needed, used again, and killed when it overruns `timeout_s`."""

    def __init__(self, timeout_s: float = 2.0) -> None:
        self._timeout_s = timeout_s
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def mend(self, text: str) -> Any:
        """The document json_repair makes of `text`. Raises Refused when it makes none, or takes too long or much."""
        if len(text) > MAX_BROKEN_LENGTH:
            raise Refused(f"the reply's JSON is broken, and too long ({len(text)} characters) to be mended")
        async with self._turn:
            try:
                async with asyncio.timeout(START_LIMIT_S):
                    process = await self._running()
                async with asyncio.timeout(self._timeout_s):
                    reply = await self._ask(process, text)
            except TimeoutError as error:
                raise Refused(f"the reply's JSON is broken and was not mended within {self._timeout_s:g} s") from error
            except (OSError, asyncio.IncompleteReadError) as error:
                raise Refused("the reply's JSON is broken, and mending it failed") from error
            except NotJson as error:
                raise Refused("the reply's JSON is broken and cannot be mended") from error
        return reply

    async def _ask(self, process: Process, text: str) -> Any:
        assert process.stdin is not None
        data = text.encode("utf-8", "surrogatepass")
        try:
            process.stdin.write(struct.pack(">I", len(data)) + data)
            await process.stdin.drain()
            reply = await _frame(process)
        except BaseException:
            await self._stop()
            raise
        return decode(reply.decode())

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", _WORKER, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
            )
            try:
                await _frame(self._process)
            except BaseException:
                await self._stop()
                raise
        return self._process

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def close(self) -> None:
        """End the worker process; safe to call twice."""
        async with self._turn:
            await self._stop()


async def _frame(process: Process) -> bytes:
    assert process.stdout is not None
    (length,) = struct.unpack(">I", await process.stdout.readexactly(4))
    return await process.stdout.readexactly(length)
