"""An exchange as ccxt builds it: found by name, pointed where it is to be asked, asked for no more than is needed."""

import difflib
import importlib
import re
from collections.abc import Collection
from typing import Any

from trading.errors import SettingsError
from trading.model import timeframe_seconds

KEEP_ALIVE_MS = 15_000
_ADDRESS = re.compile(r"^(https?|wss?)://")


def load_ccxt() -> tuple[Any, Any]:
    """ccxt, and its websocket half. Raises SettingsError where it is not installed."""
    try:
        return importlib.import_module("ccxt"), importlib.import_module("ccxt.pro")
    except ModuleNotFoundError as error:
        raise SettingsError(
            [f"trading.feed.type = 'exchange': ccxt is not installed ({error}); pip install 'tradent[exchange]'"]
        ) from error


def build_exchange(
    name: str, timeout_s: float, *, sandbox: bool = False, base_url: str | None = None, swaps: bool | None = None
) -> Any:
    """The ccxt object of that exchange, with websockets where it has them. Raises SettingsError.

    `swaps` says which of its markets are wanted, as some exchanges keep them on several hosts; None: all.
    """
    ccxt, pro = load_ccxt()
    if name not in ccxt.exchanges:
        raise SettingsError([f"trading.feed.exchange = {name!r}: {_unknown('exchange', name, ccxt.exchanges)}"])
    kind = getattr(pro, name) if name in pro.exchanges else getattr(importlib.import_module("ccxt.async_support"), name)
    exchange = kind(
        {
            "enableRateLimit": True,
            "timeout": int(timeout_s * 1000),
            "newUpdates": False,
            "enableLastJsonResponse": True,
            "aiohttp_trust_env": True,
        }
    )
    exchange.has["fetchCurrencies"] = False
    _keep_its_markets(exchange)
    streaming = getattr(exchange, "streaming", {})
    exchange.streaming = {**streaming, "keepAlive": min(streaming.get("keepAlive", KEEP_ALIVE_MS), KEEP_ALIVE_MS)}
    if not exchange.has.get("fetchOHLCV"):
        raise SettingsError([f"trading.feed.exchange = {name!r}: it gives no bars; choose another"])
    _want_markets(exchange, swaps)
    if sandbox:
        if not exchange.urls.get("test"):
            raise SettingsError([f"trading.feed.sandbox = true: {name} has no sandbox; leave it out"])
        exchange.set_sandbox_mode(True)
    if base_url is not None:
        exchange.urls["api"] = _pointed(exchange.urls["api"], base_url)
    return exchange


def known_timeframe(exchange: Any, timeframe: str) -> str:
    """The exchange's own name of a timeframe: 60m is its 1h. Raises SettingsError where it has none so long."""
    wanted_s = timeframe_seconds(timeframe)
    lengths: dict[str, int] = {}
    for name in exchange.timeframes or {}:
        try:
            lengths[name] = timeframe_seconds(name)
        except ValueError:
            continue  # a month, or a word of the exchange's own
    for name, length_s in lengths.items():
        if length_s == wanted_s:
            return name
    raise SettingsError(
        [f"trading.feed.timeframe = {timeframe!r}: {exchange.id} has none so long, but {', '.join(lengths) or 'none'}"]
    )


def unknown_symbol(symbol: str, symbols: Collection[str]) -> str:
    """What to say of a symbol that is not among an exchange's."""
    same = written_otherwise(symbol, symbols)
    settled = [name for name in symbols if ":" in name and name.split(":")[0] == _folded(symbol)]
    return _unknown("symbol", symbol, symbols, [*same, *settled][:5])


def written_otherwise(symbol: str, symbols: Collection[str]) -> list[str]:
    """Those of an exchange's that are the same market, as BTC/USDT is BTC-USDT and btcusdt."""
    folded = _folded(symbol)
    return [name for name in symbols if folded in (name, name.replace("/", ""))]


def _folded(symbol: str) -> str:
    return symbol.upper().replace("-", "/").replace("_", "/")


def _unknown(what: str, name: str, known: Collection[str], meant: list[str] | None = None) -> str:
    meant = meant or difflib.get_close_matches(name, known, 3, 0.7)
    hint = (
        f"did you mean {' or '.join(meant)}?" if meant else f"there are {len(known)}, such as {min(known, default='')}"
    )
    return f"there is no such {what}; {hint}"


def _keep_its_markets(exchange: Any) -> None:
    """Take an answer without any market for a failure: each symbol would be unknown to ccxt from then on."""
    take = exchange.set_markets

    def set_markets(markets: Any, currencies: Any = None) -> Any:
        if not markets:
            raise ValueError("it lists no market")
        return take(markets, currencies)

    exchange.set_markets = set_markets


def _want_markets(exchange: Any, swaps: bool | None) -> None:
    """Ask only for the kinds of market that are wanted, where the exchange lists them apart."""
    if swaps is None:
        return
    exchange.options["defaultType"] = "swap" if swaps else "spot"
    wanted = exchange.options.get("fetchMarkets")
    types = wanted.get("types") if isinstance(wanted, dict) else wanted
    if isinstance(types, list) and "spot" in types:
        chosen = [kind for kind in types if (kind != "spot") == swaps and kind != "option"]
        if isinstance(wanted, dict):
            wanted["types"] = chosen
        else:
            exchange.options["fetchMarkets"] = chosen


def _pointed(urls: Any, base_url: str) -> Any:
    """The same addresses below another one, their hosts the first part of the path; ws: where they were that."""
    if isinstance(urls, dict):
        return {name: _pointed(url, base_url) for name, url in urls.items()}
    if isinstance(urls, str) and (match := _ADDRESS.match(urls)):
        base = re.sub("^http", "ws", base_url) if match[1].startswith("ws") else base_url
        return f"{base.rstrip('/')}/{urls[match.end() :]}"
    return urls
