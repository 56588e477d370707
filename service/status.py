"""Asking the running daemon how it does."""

import aiohttp
import orjson

from service.tokens import TOKEN_NAMES, Scope, Tokens
from trading.errors import TradentError

MOST_BYTES = 4 << 20
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def fetch_status(host: str, port: int) -> bytes:
    """What the daemon there says of itself, as JSON. Raises TradentError when none answers, or somebody else."""
    if not port:
        raise TradentError(
            "service.port is 0, so the daemon took a free port, which its log names; ask with --set service.port=PORT"
        )
    address = f"http://{in_url(_ANYWHERE.get(host, host))}:{port}/status"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(address, headers=Tokens.given().headers(Scope.READ)) as got,
        ):
            if got.status == 401:
                raise TradentError(f"the daemon at {address} wants a token: set {TOKEN_NAMES[Scope.READ]} to its own")
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


def in_url(host: str) -> str:
    """A host as a URL has it."""
    return f"[{host}]" if ":" in host else host
