"""Frames of application/vnd.amazon.eventstream: what is cut out of bytes, and what is refused."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.backends.wire.eventstream import BrokenFrame, Frame, Frames
from tests.dialects_native import frame

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=20)
FRAMES = st.lists(st.tuples(st.dictionaries(NAMES, NAMES, max_size=4), st.binary(max_size=200)), max_size=5)


def sealed(head: bytes, payload: bytes = b"{}", total: int | None = None, header_bytes: int | None = None) -> bytes:
    """A frame with right checksums, whatever it says of its lengths."""
    prelude = struct.pack(
        ">II", 16 + len(head) + len(payload) if total is None else total,
        len(head) if header_bytes is None else header_bytes,
    )  # fmt: skip
    whole = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole + struct.pack(">I", crc32(whole))


@given(FRAMES, st.integers(1, 64))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_split(
    values: list[tuple[dict[str, str], bytes]], size: int
) -> None:
    data = b"".join(frame(headers, payload) for headers, payload in values)
    cutter, found = Frames(), []
    for start in range(0, len(data), size):
        found += list(cutter.feed(data[start : start + size]))
    assert found == [Frame(headers, payload) for headers, payload in values]
    assert not cutter.begun


def test_the_frame_of_the_formats_own_test_vectors_is_read() -> None:
    """One header, and a payload: the bytes that every implementation is tested with."""
    data = bytes.fromhex(
        "0000003d00000020" "07fd8396" "0c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e"
        "7b27666f6f273a27626172277d" "8d9c08b1"
    )  # fmt: skip
    (found,) = Frames().feed(data)
    assert found == Frame({"content-type": "application/json"}, b"{'foo':'bar'}")


def test_headers_of_other_types_are_passed_over() -> None:
    """Their lengths are known, so that what follows them is found."""
    head = b"".join(
        struct.pack(">B", 1) + b"x" + value
        for value in (
            b"\x00", b"\x01", b"\x02a", b"\x03ab", b"\x04abcd", b"\x05abcdefgh", b"\x06\x00\x03abc", b"\x08abcdefgh",
            b"\x09" + b"u" * 16,
        )
    ) + struct.pack(">B", 1) + b"y" + b"\x07\x00\x02hi"  # fmt: skip
    (found,) = Frames().feed(sealed(head))
    assert found == Frame({"y": "hi"}, b"{}")


def test_an_empty_frame_is_one() -> None:
    (found,) = Frames().feed(sealed(b"", b""))
    assert found == Frame({}, b"")


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_bit_that_is_wrong_is_found(place: int, bit: int) -> None:
    """Nothing of a damaged frame is taken for text."""
    data = bytearray(frame({":event-type": "contentBlockDelta"}, b'{"delta": {"text": "hi"}}'))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(BrokenFrame):
        list(Frames().feed(bytes(data)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (sealed(b"", total=17 * 1024 * 1024), "too long"),
        (sealed(b"", header_bytes=129 * 1024), "too long"),
        (sealed(b"", b"", total=15), "no room"),
        (sealed(b"", b"", header_bytes=1), "no room"),
        (sealed(b"\x05ab"), "longer than all of them"),
        (sealed(b"\x01a\x07\x00\x05hi"), "longer than all of them"),
        (sealed(b"\x01a\x07\x00"), "longer than all of them"),
        (sealed(b"\x01a"), "longer than all of them"),
        (sealed(b"\x01a\x0a"), "unknown type 10"),
    ],
)
def test_a_frame_that_cannot_be_is_refused_by_name(data: bytes, said: str) -> None:
    """Its lengths are held to bounds before anything is waited for."""
    with pytest.raises(BrokenFrame, match=said):
        list(Frames().feed(data))


def test_a_frame_that_has_not_ended_is_known() -> None:
    cutter = Frames()
    assert list(cutter.feed(frame({}, b"{}")[:-1])) == []
    assert cutter.begun
