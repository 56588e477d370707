"""Clocks that are set while a program runs: libfaketime moves the time of day, and leaves the monotonic clock alone."""

from collections.abc import Mapping
from pathlib import Path

PLACES = ("/usr/lib", "/usr/local/lib", "/usr/lib64")


def library() -> Path | None:
    """The library, where it is installed."""
    found = [path for place in PLACES for path in sorted(Path(place).glob("**/faketime/libfaketimeMT.so.1"))]
    return found[0] if found else None


class Clock:
    """What time it is for a program that runs with `environment`: as `file` says, which `set` writes."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the program must find in its environment."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FLSHM": "0",
        }

    def set(self, ahead_s: int) -> None:
        """So many seconds ahead of the true time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead_s:+d}\n")
        fresh.chmod(0o644)
        fresh.replace(self._file)
