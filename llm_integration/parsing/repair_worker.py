"""Mends broken JSON in a process of its own, which can be killed: one request, one reply, each led by its length.

An empty reply in advance says that it is ready. Runs as a script and imports nothing of ours. Ends when its input does.
"""

import json
import struct
import sys
from typing import BinaryIO

from json_repair import repair_json

MEMORY_LIMIT_BYTES = 512 * 1024 * 1024


def limit_memory() -> None:
    """Bound the address space, where the system can."""
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


def mended(text: str) -> str:
    """The mended text as strict JSON, or an empty string where it cannot be mended."""
    try:
        return json.dumps(repair_json(text, return_objects=True, skip_json_loads=True), allow_nan=False)
    except (ValueError, TypeError, RecursionError, MemoryError, IndexError, KeyError, AttributeError):
        return ""


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the input ends."""
    replies.write(struct.pack(">I", 0))
    replies.flush()
    while len(head := requests.read(4)) == 4:
        text = requests.read(struct.unpack(">I", head)[0]).decode("utf-8", "surrogatepass")
        data = mended(text).encode()
        replies.write(struct.pack(">I", len(data)) + data)
        replies.flush()


if __name__ == "__main__":
    limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
