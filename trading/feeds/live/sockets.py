"""The websocket side of an exchange: what each stream is told, and on which connection."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from trading.clock import Clock
from trading.feeds.live.candles import Candles, read_candles
from trading.feeds.live.trouble import Cause, Patience, Trouble, TroubleLog, trouble_of

log = logging.getLogger(__name__)

SHOWN = 10


class Sockets:
    """Listens to the exchange's candles, over ccxt's websockets, and connects again whenever they break.

    ccxt connects anew by itself and tells nobody; so each connection is numbered here, and what it kept of an earlier
    one is thrown away. A message that it cannot read would leave its connection standing and deaf; here it breaks it. A
    connection that breaks and stands again at once, as exchanges break them daily, is counted and not spoken of; nor is
    a symbol that the exchange does not know any more: whoever asks for its bars is told so, and says it.
    """

    def __init__(self, exchange: Any, errors: Any, timeframe: str, clock: Clock, troubles: TroubleLog) -> None:
        self.heard_at: datetime | None = None
        self.connections = 0
        self._exchange = exchange
        self._errors = errors
        self._timeframe = timeframe
        self._clock = clock
        self._troubles = troubles
        self._their_on_connected = exchange.on_connected
        self._their_client = exchange.client
        exchange.on_connected = self._on_connected
        exchange.client = self._client

    @property
    def connected(self) -> bool:
        """Whether any connection stands."""
        return any(client.isConnected and not client.closed() for client in dict(self._exchange.clients or {}).values())

    async def listen(self, symbol: str, take: Callable[[Candles, int], None], broken: Callable[[], None]) -> None:
        """Hand on what is said of a symbol, with the number of the connection, until cancelled; `broken` whenever a
        connection breaks. Returns where the exchange has no websocket for it.
        """
        patience = Patience()
        while True:
            try:
                answer = await self._exchange.watch_ohlcv(symbol, self._timeframe, None, SHOWN)
                candles = read_candles(answer)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                trouble = Trouble(Cause.SOCKET, "the connection was closed")
            except self._errors.NotSupported as error:
                log.info("%s: no websocket for %s, its bars are asked for", self._exchange.id, symbol,
                         extra={"error": str(error)})  # fmt: skip
                return
            except Exception as error:  # ccxt raises what its parsing happens to meet: each breaks the connection
                trouble = trouble_of(error, self._errors)
                if trouble.cause is not Cause.NO_SYMBOL:
                    trouble = trouble._replace(cause=Cause.SOCKET)
            else:
                patience.reset()
                self._troubles.over(Cause.SOCKET)
                self.heard_at = self._clock.now()
                take(candles, self.connections)
                continue
            broken()
            wait_s = patience.wait_s(trouble)
            if patience.failures > 1 and trouble.cause is Cause.SOCKET:
                self._troubles.met(trouble, wait_s)
            await self._clock.sleep(wait_s)

    def drop(self, why: str) -> None:
        """Break every connection: they stand and say nothing."""
        for client in list((self._exchange.clients or {}).values()):
            client.on_error(self._errors.NetworkError(why))

    def _on_connected(self, client: Any, message: Any = None) -> None:
        self.connections += 1
        self._exchange.ohlcvs = {}
        self._their_on_connected(client, message)

    def _client(self, url: str) -> Any:
        """ccxt's connection to that address."""
        client = self._their_client(url)
        if "handle_message" not in vars(client):
            read = client.handle_message

            def handle_message(message: Any) -> None:
                try:
                    read(message)
                except Exception as error:  # whatever its reading happens to meet
                    client.on_error(self._errors.NetworkError(f"a message was not understood: {error!r}"))

            client.handle_message = handle_message
        return client
