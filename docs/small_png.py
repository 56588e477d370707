"""Makes a screenshot small: 256 colours, and as packed as zlib can."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FREQUENT = 160
_OTHERS = 96


def small(png: bytes) -> bytes:
    """The same picture with the most frequent colours and those most unlike them; others become the nearest of these.

    Takes 8-bit RGB only.
    """
    chunks = list(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    if (depth, kind) != (8, 2):
        raise ValueError("only RGB of 8 bits is made smaller")
    rows = list(_rows(zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT")), width, height))
    seen = Counter(row[at : at + 3] for row in rows for at in range(0, len(row), 3))
    palette = _palette(seen)
    number = {colour: _nearest(palette, colour) for colour in seen}
    packed = zlib.compress(
        b"".join(b"\0" + bytes(number[row[at : at + 3]] for at in range(0, len(row), 3)) for row in rows), 9
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", packed), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def _palette(seen: Counter[bytes]) -> list[bytes]:
    palette = [colour for colour, _ in seen.most_common(_FREQUENT)]
    away = {colour: min(_distance(colour, taken) for taken in palette) for colour in seen}
    for _ in range(_OTHERS):
        farthest = max(away, key=away.__getitem__)
        if not away[farthest]:
            break
        palette.append(farthest)
        away = {colour: min(least, _distance(colour, farthest)) for colour, least in away.items()}
    return palette


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _rows(data: bytes, width: int, height: int) -> Iterator[bytes]:
    """Each row's pixels, without the filters that PNG puts over them."""
    size = 3 * width
    above = bytes(size)
    for start in range(0, height * (size + 1), size + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + size])
        for at in range(size):
            left, corner = (row[at - 3], above[at - 3]) if at >= 3 else (0, 0)
            row[at] = (row[at] + _guess(kind, left, above[at], corner)) & 255
        above = bytes(row)
        yield above


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        return min((left, up, corner), key=lambda value: abs(left + up - corner - value))
    return (0, left, up, (left + up) // 2)[kind]


def _nearest(palette: list[bytes], colour: bytes) -> int:
    return min(range(len(palette)), key=lambda at: _distance(palette[at], colour))
