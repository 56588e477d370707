"""A model server in a process of its own that counts strictly, and a network that is late now and then.

`python -m bench.strict_server --requests 14` prints its base_url, which speaks OpenRouter's dialect and rates whatever
it is asked. Each request is counted on the server's own clock; where it would be more than the limits of requests or
tokens in any `--window` seconds it is refused with 429, and not counted. One in a hundred (`--late`) is held up for up
to 1.5 s (`--late-by`), part of it before it is counted and part after. GET /stats tells how the quota was used.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from aiohttp import web

from tests.servers import completion, rating_for, signals_in

REPLY_TOKENS = 30


class StrictServer:
    """Counts requests and tokens in a sliding window. Tokens are counted as `token_mode` says."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._chance = random.Random(arguments.seed)
        self._window: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._counted: list[float] = []
        self._refused = 0

    async def chat(self, request: web.Request) -> web.Response:
        """A rating, or 429."""
        body = orjson.loads(await request.read())
        late = self._chance.random() < self._arguments.late
        delay_s = self._chance.uniform(0.0, self._arguments.late_by) if late else 0.0
        before_s = delay_s * self._chance.random()
        if late:
            await asyncio.sleep(before_s)
        prompt = sum(len(message["content"].encode()) for message in body["messages"]) // 4
        reply = {"input": 0, "input_output": REPLY_TOKENS, "input_max": body["max_tokens"]}
        wait_s = self._count(time.monotonic(), prompt + reply[self._arguments.token_mode])
        if late:
            await asyncio.sleep(delay_s - before_s)
        if wait_s is not None:
            error = {"error": {"code": 429, "message": "rate limit exceeded"}}
            return web.json_response(error, status=429, headers={"Retry-After": f"{wait_s:.3f}"})
        usage = {"prompt_tokens": prompt, "completion_tokens": REPLY_TOKENS, "total_tokens": prompt + REPLY_TOKENS}
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return web.json_response(
            completion(rating_for(schema, count=signals_in(body)), model=body["model"], usage=usage)
        )

    async def beside(self, request: web.Request) -> web.Response:
        """What a check asks for."""
        model = {"id": self._arguments.model, "pricing": {"prompt": "0", "completion": "0"}}
        return web.json_response({"data": [model] if request.path.endswith("/models") else {"label": "bench"}})

    async def stats(self, _: web.Request) -> web.Response:
        """`share`: how long a place was used before it was used again, against the window; None before that."""
        limit, window_s = self._arguments.requests, self._arguments.window
        gaps = [later - earlier for earlier, later in zip(self._counted, self._counted[limit:], strict=False)]
        share = window_s * len(gaps) / sum(gaps) if gaps and limit else None
        return web.json_response({"served": len(self._counted), "refused": self._refused, "share": share})

    def _count(self, now: float, tokens: int) -> float | None:
        """Count it; the seconds after which to come again where it is too much."""
        limits = self._arguments
        while self._window and self._window[0][0] <= now - limits.window:
            self._tokens -= self._window.popleft()[1]
        too_many = limits.requests and len(self._window) >= limits.requests
        if too_many or (limits.tokens and self._tokens + tokens > limits.tokens):
            self._refused += 1
            return self._window[0][0] + limits.window - now if self._window else limits.window
        self._window.append((now, tokens))
        self._tokens += tokens
        self._counted.append(now)
        return None


@contextmanager
def strict_server(*before: str, **options: object) -> Iterator[str]:
    """The base_url of a running server; `options` as on the command line, `late_by` for `--late-by`.

    `before` are words that go before the command, which run it elsewhere.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [*before, sys.executable, "-m", "bench.strict_server", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def stats(base_url: str) -> dict[str, Any]:
    """How the server's quota has been used: served, refused, share."""
    with urllib.request.urlopen(f"{base_url}/stats", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def _serve(arguments: argparse.Namespace) -> None:
    server = StrictServer(arguments)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/api/v1/chat/completions", server.chat)
    app.router.add_get("/api/v1/stats", server.stats)
    app.router.add_get("/api/v1/{path:.*}", server.beside)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, arguments.host, arguments.port).start()
    sys.stdout.write(f"http://{arguments.host}:{runner.addresses[0][1]}/api/v1\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A model server that counts strictly over a sliding window.")
    parser.add_argument("--requests", type=int, default=14, help="requests in any window; 0: no limit")
    parser.add_argument("--tokens", type=int, default=0, help="tokens in any window; 0: no limit")
    parser.add_argument("--window", type=float, default=60.0, help="seconds")
    parser.add_argument("--token-mode", choices=("input", "input_output", "input_max"), default="input_output")
    parser.add_argument("--late", type=float, default=0.01, help="share of requests that are held up")
    parser.add_argument("--late-by", type=float, default=1.5, help="seconds, at most")
    parser.add_argument("--model", default="bench/model", help="the model that there is")
    parser.add_argument("--host", default="127.0.0.1", help="the address it listens on")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--seed", type=int, default=1, help="of what is late")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
