"""The live view: bars, signals, ratings, quota and cost on one screen of a terminal."""

import sys

import orjson

from service.daemon import Daemon
from service.logs import RecentLines


async def run_with_view(daemon: Daemon, lines: RecentLines) -> None:
    await daemon.run()


def show_status(answer: bytes) -> None:
    sys.stdout.write(orjson.dumps(orjson.loads(answer), option=orjson.OPT_INDENT_2).decode() + "\n")
