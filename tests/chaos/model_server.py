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
from tests.servers import Answer, Hang, Json, OpenRouterServer, Step, Stream, rate_all, signals_in
from trading.clock import SystemClock

NAMES = ("chaos/model", "chaos/second", "chaos/third", "chaos/fourth")
FREE = {"prompt": "0", "completion": "0"}
FOR_EVER = 1 << 60
KEYS = {"OPENROUTER_API_KEY": "sk-or-chaos"}


class ChaosServer(OpenRouterServer):
    """Answers `share` of all chats with one of the faults; after `good_until` chats some refuse the key for good.

    GET /asked tells how many chats there were.
    """

    def __init__(self, seed: int, share: float, hang_s: float, good_until: int) -> None:
        self.asked = self.failed = 0
        chance = random.Random(seed)
        passing = Mischief(chance, share, SystemClock(), FAULTS)
        lasting = Mischief(chance, share, SystemClock(), (*FAULTS, *LASTING))
        self._hang_s = hang_s

        def answer(body: Json) -> Step:
            mischief = passing if self.asked < good_until else lasting
            asked = _with_schema(body)
            step = mischief(asked)
            mischief.arrivals.clear()
            self.asked += 1
            self.failed += step != rate_all(asked)
            return step

        super().__init__(default=answer, models=[{"id": name, "pricing": FREE} for name in NAMES])
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


def _with_schema(body: Json) -> Json:
    """Where several signals are asked about without a schema, the prompt asks for as many verdicts all the same."""
    count = signals_in(body)
    if "response_format" in body or count < 2:
        return body
    schema = {"properties": {"verdicts": {"minItems": count}}}
    return {**body, "response_format": {"json_schema": {"schema": schema}}}


@contextmanager
def model_server(seed: int, *, share: float = 0.0, hang_s: float = 5.0, good_until: int = FOR_EVER) -> Iterator[str]:
    """The base_url of a running server."""
    words = [f"--seed={seed}", f"--share={share}", f"--hang={hang_s}", f"--good-until={good_until}"]
    command = [sys.executable, "-m", "tests.chaos.model_server", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def asked(base_url: str) -> tuple[int, int]:
    """How many chats there were, and how many of them went wrong."""
    with urllib.request.urlopen(f"{base_url}/asked", timeout=10) as answer:
        told = json.load(answer)
    return told["asked"], told["failed"]


async def _serve(given: argparse.Namespace) -> None:
    async with ChaosServer(given.seed, given.share, given.hang, given.good_until) as server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A model server that misbehaves by a seed.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.0, help="of chats that go wrong")
    parser.add_argument("--hang", type=float, default=5.0, help="seconds after which what hangs lets go")
    parser.add_argument("--good-until", type=int, default=FOR_EVER, help="chats before keys may be refused, too")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
