"""A model server in a process of its own that misbehaves by a seed: every failure of `tests.mischief`, in mixture.

`python -m tests.chaos.model_server --share 0.3` prints its base_url, which speaks OpenRouter's dialect. What hangs lets
go after `--hang` seconds.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from tests.mischief import FAULTS, LASTING, Mischief
from tests.servers import Answer, Hang, Json, OpenRouterServer, Step, Stream
from trading.clock import SystemClock

NAME = "chaos/model"
KEYS = {"OPENROUTER_API_KEY": "sk-or-chaos"}


class ChaosServer(OpenRouterServer):
    """Answers `share` of all chats with one of the faults. GET /asked tells how many chats there were."""

    def __init__(self, seed: int, share: float, hang_s: float, lasting: bool) -> None:
        self.asked = self.failed = 0
        kinds = (*FAULTS, *LASTING) if lasting else FAULTS
        mischief = Mischief(random.Random(seed), share, SystemClock(), kinds)
        self._hang_s = hang_s

        def answer(body: Json) -> Step:
            step = mischief(body)
            mischief.arrivals.clear()
            self.asked += 1
            whole = isinstance(step, Answer) and step.status == 200 and isinstance(step.body, dict)
            self.failed += not (whole and step.body.get("choices"))  # type: ignore[union-attr]
            return step

        super().__init__(default=answer, models=[{"id": NAME, "pricing": {"prompt": "0", "completion": "0"}}])
        self.requests = type(self.requests)(maxlen=10)

    def beside(self, path: str) -> Answer:
        return Answer({"asked": self.asked, "failed": self.failed}) if path == "/asked" else super().beside(path)

    async def _play(self, step: Step, request: web.Request) -> web.StreamResponse:
        hangs = isinstance(step, Hang) or (isinstance(step, Stream) and step.ending == "hang")
        if not hangs:
            return await super()._play(step, request)
        try:
            return await asyncio.wait_for(super()._play(step, request), self._hang_s)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()


@contextmanager
def model_server(seed: int, *, share: float = 0.0, hang_s: float = 5.0, lasting: bool = False) -> Iterator[str]:
    """The base_url of a running server."""
    words = [f"--seed={seed}", f"--share={share}", f"--hang={hang_s}", *(["--lasting"] if lasting else [])]
    command = [sys.executable, "-m", "tests.chaos.model_server", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def asked(base_url: str) -> tuple[int, int]:
    """How many chats there were, and how many of them got no good answer."""
    with urllib.request.urlopen(f"{base_url}/asked", timeout=10) as answer:
        told = json.load(answer)
    return told["asked"], told["failed"]


async def _serve(given: argparse.Namespace) -> None:
    async with ChaosServer(given.seed, given.share, given.hang, given.lasting) as server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A model server that misbehaves by a seed.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.0, help="of chats that go wrong")
    parser.add_argument("--hang", type=float, default=5.0, help="seconds after which what hangs lets go")
    parser.add_argument("--lasting", action="store_true", help="refused keys and missing models, too")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
