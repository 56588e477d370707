"""What reads Server-Sent Events off a real connection, as EventSource does."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import orjson


class Told(NamedTuple):
    """One event as it came."""

    kind: str
    position: str
    data: Any


async def told(response: aiohttp.ClientResponse) -> AsyncIterator[Told]:
    """Every event until the stream ends. Raises ClientError where it is cut off."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Told(fields["event"], fields["id"], orjson.loads(fields["data"]))
            fields = {}
