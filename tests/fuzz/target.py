"""What a fuzz target is, and how its seeds are changed where no coverage leads the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

_EDITS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """`run` returns for whatever it is given; what it raises is a fault. `seeds` are whole inputs of the right kind,
    `atoms` pieces that mean something in them.
    """

    about: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    atoms: Sequence[bytes]

    @property
    def inputs(self) -> st.SearchStrategy[bytes]:
        """Seeds that were cut, added to and overwritten, and bytes of no kind."""
        pieces = st.sampled_from([*self.atoms, b""]) | st.binary(max_size=4)
        edit = st.tuples(st.integers(0, 1 << 16), st.integers(0, 24), pieces)
        return st.builds(_edited, st.sampled_from(list(self.seeds)), st.lists(edit, max_size=_EDITS)) | st.binary(
            max_size=200
        )


def _edited(whole: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, cut, piece in edits:
        at = place % (len(whole) + 1)
        whole = whole[:at] + piece + whole[at + cut :]
    return whole
