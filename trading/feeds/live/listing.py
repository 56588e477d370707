"""Which symbols of the settings an exchange lists; the others are looked for, as an outage may have left them out."""

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from trading.clock import Clock
from trading.errors import SettingsError
from trading.feeds.live.building import unknown_symbol, written_otherwise
from trading.feeds.live.connection import Connection

log = logging.getLogger(__name__)

FIRST_AGAIN_S, LONGEST_AGAIN_S = 60.0, 3600.0
SURE_ANSWERS = 4


class Listing:
    """Looks the symbols up; `unlisted` tells of those that are not listed, by name, what is to be said of them."""

    def __init__(self, source: str, symbols: Sequence[str], connection: Connection, clock: Clock) -> None:
        self.unlisted: dict[str, str] = {}
        self._source = source
        self._symbols = symbols
        self._connection = connection
        self._clock = clock
        self._wait_s = FIRST_AGAIN_S

    async def first(self, stored: Collection[str]) -> list[str]:
        """Those that are listed, once any is; `stored` are symbols that the exchange gave bars of before.

        Raises SettingsError where none is, and that is no outage: nothing of them is stored, and either they are
        listed, written otherwise, or the exchange has said so `SURE_ANSWERS` times, within some minutes.
        """
        markets = await self._connection.markets()
        found = self._found(markets, self._symbols)
        answers, never_came = 1, set(self._symbols).isdisjoint(stored)
        while not found:
            misspelt = all(written_otherwise(name, markets) for name in self._symbols)
            if never_came and (misspelt or answers >= SURE_ANSWERS):
                raise SettingsError(
                    [f"trading.feed.symbols = {name!r}: {self.unlisted[name]}" for name in self._symbols]
                )
            found = await self._again()
            answers += 1
        return found

    async def others(self) -> AsyncIterator[list[str]]:
        """The rest, when the exchange lists them. Ends when it lists all."""
        while self.unlisted:
            if found := await self._again():
                yield found

    async def _again(self) -> list[str]:
        """Those that have been listed since, after a wait that grows to an hour."""
        await self._clock.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_AGAIN_S)
        if self.unlisted.keys().isdisjoint(await self._connection.listed()):
            return []
        found = self._found(await self._connection.markets(at_most_s=0.0), list(self.unlisted))
        for name in found:
            log.info("%s lists %s now", self._source, name)
        return found

    def _found(self, markets: Mapping[str, Any], names: Sequence[str]) -> list[str]:
        found = [name for name in names if name in markets]
        for name in found:
            self.unlisted.pop(name, None)
            if markets[name].get("active") is False:
                log.warning("%s: %s is not traded just now", self._source, name)
        for name in names:
            if name not in markets and name not in self.unlisted:
                self.unlisted[name] = unknown_symbol(name, markets)
                log.error("%s: no bars of %s: %s; correct trading.feed.symbols. It is looked for again meanwhile",
                          self._source, name, self.unlisted[name])  # fmt: skip
        return found
