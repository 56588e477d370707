"""Cuts a body of the type application/vnd.amazon.eventstream into its frames.

A frame: its length and that of its headers (32 bits each, big-endian), their CRC32, the headers, the payload, the
CRC32 of all before it. A header: the length of its name (8 bits), the name, a type, a value.
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

MOST_BYTES = 16 * 1024 * 1024
_MOST_HEADER_BYTES = 128 * 1024
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_TEXT = 7
_BYTES = 6
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class BrokenFrame(ValueError):
    """The bytes are no frame; the message says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: those of its headers that are text, by name, and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class Frames:
    """Makes frames of bytes, however they are split."""

    def __init__(self) -> None:
        self._begun = bytearray()

    @property
    def begun(self) -> bool:
        """Whether the end of a frame has not come yet."""
        return bool(self._begun)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises BrokenFrame."""
        self._begun += data
        while len(self._begun) >= _PRELUDE.size:
            total, header_bytes, checksum = _PRELUDE.unpack_from(self._begun)
            if crc32(self._begun[: _PRELUDE.size - _CRC.size]) != checksum:
                raise BrokenFrame("the checksum of a frame's prelude is wrong")
            if total > MOST_BYTES or header_bytes > _MOST_HEADER_BYTES:
                raise BrokenFrame(f"a frame of {total} bytes, {header_bytes} of them headers, is too long")
            if total < _PRELUDE.size + header_bytes + _CRC.size:
                raise BrokenFrame(f"a frame of {total} bytes has no room for {header_bytes} bytes of headers")
            if len(self._begun) < total:
                return
            whole = bytes(self._begun[:total])
            del self._begun[:total]
            if crc32(whole[: -_CRC.size]) != _CRC.unpack(whole[-_CRC.size :])[0]:
                raise BrokenFrame("the checksum of a frame is wrong")
            end = _PRELUDE.size + header_bytes
            yield Frame(_headers(whole[_PRELUDE.size : end]), whole[end : -_CRC.size])


def _headers(data: bytes) -> dict[str, str]:
    """The headers that are text. Raises BrokenFrame."""
    found, place = {}, 0
    while place < len(data):
        name, place = _cut(data, place + 1, data[place])
        kind, place = _cut(data, place, 1)
        if kind[0] in (_TEXT, _BYTES):
            length, place = _cut(data, place, _LENGTH.size)
            value, place = _cut(data, place, _LENGTH.unpack(length)[0])
        elif kind[0] in _SIZES:
            value, place = _cut(data, place, _SIZES[kind[0]])
        else:
            raise BrokenFrame(f"a header of a frame is of the unknown type {kind[0]}")
        if kind[0] == _TEXT:
            found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return found


def _cut(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    """So many bytes from there, and where they end. Raises BrokenFrame."""
    end = start + length
    if end > len(data):
        raise BrokenFrame("a header of a frame is longer than all of them")
    return data[start:end], end
