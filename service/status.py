"""The status endpoint: how the daemon does, as JSON, on the loopback."""

import errno
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from trading.errors import TradentError

log = logging.getLogger(__name__)

MOST_BYTES = 4 << 20
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class StatusServer:
    """Answers `GET /status`. A port that is taken costs the endpoint, not the daemon."""

    def __init__(self, host: str, port: int, vitals: Callable[[], dict[str, Any]]) -> None:
        self._host = host
        self._port = port
        self._vitals = vitals
        self._runner: web.AppRunner | None = None
        self.url: str | None = None

    async def start(self) -> None:
        """Listen; says so when it cannot."""
        app = web.Application()
        app.router.add_get("/status", self._status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
            log.warning(f"`status` is not answered on {self._host}:{self._port}: {reason}; set service.port to another")
            return
        self._runner = runner
        port = runner.addresses[0][1]
        self.url = f"http://{_in_url(self._host)}:{port}"
        log.info(f"`status` is answered at {self.url}")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, request: web.Request) -> web.Response:
        body = orjson.dumps(self._vitals(), default=str, option=orjson.OPT_NON_STR_KEYS)
        return web.Response(body=body, content_type="application/json")


async def fetch_status(host: str, port: int) -> bytes:
    """What the daemon there says of itself, as JSON. Raises TradentError when none answers, or somebody else."""
    if not port:
        raise TradentError(
            "service.port is 0, so the daemon took a free port, which its log names; ask with --set service.port=PORT"
        )
    address = f"http://{_in_url(_ANYWHERE.get(host, host))}:{port}/status"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(address) as got,
        ):
            got.raise_for_status()
            answer = await got.content.read(MOST_BYTES)
            while more := await got.content.read(MOST_BYTES - len(answer)):
                answer += more
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        nobody = isinstance(error, aiohttp.ClientConnectorError)
        why = "" if nobody else f" ({str(error) or type(error).__name__})"
        raise TradentError(
            f"no daemon answers at {address}{why}; start one with `run`, or name its settings with --config"
        ) from None
    require_ours(answer)
    return answer


def require_ours(answer: bytes) -> None:
    """Raise TradentError where an answer is not from a daemon of ours."""
    try:
        vitals = orjson.loads(answer)
    except orjson.JSONDecodeError:
        vitals = None
    if not isinstance(vitals, dict) or "version" not in vitals:
        raise TradentError("what answers there is no Tradent daemon; set service.port to the daemon's")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
