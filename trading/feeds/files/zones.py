"""Times of a zone in UTC, over every change of its clocks."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from trading.feeds.files.stamps import DAY_US

Micros = NDArray[np.int64]
NO_TIME = np.iinfo(np.int64).min
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall clock, of no zone


def localise(wall: Micros, zone: ZoneInfo) -> Micros:
    """Wall clock times of a zone in UTC.

    NO_TIME for those the clocks skipped, and for those of an hour that comes twice whose pass neither order nor step
    tells.
    """
    utc = np.full(len(wall), NO_TIME, dtype=np.int64)
    known = np.flatnonzero(wall != NO_TIME)
    hours, places = np.unique(wall[known] // 900_000_000, return_inverse=True)
    first, second = (np.array([_offset_us(int(hour), zone, fold) for hour in hours], dtype=np.int64) for fold in (0, 1))
    early, late = wall[known] - first[places], wall[known] - second[places]
    skipped = (first < second)[places]
    twice = (first > second)[places]
    utc[known] = np.where(skipped, NO_TIME, _passes(wall[known], early, late, twice))
    return utc


def _passes(wall: Micros, early: Micros, late: Micros, twice: NDArray[np.bool_]) -> Micros:
    """Each row of an hour that comes twice in its first or its second pass, in ascending or descending rows.

    The second pass begins where time does not go on. Where it always does, as in bars longer than the clocks are set
    back by, the pass is the one that stands a step from the rows on either side; NO_TIME where both do as well. Of bars
    of a day or more it is the first: with it the day begins.
    """
    chosen = early.copy()
    if not twice.any():
        return chosen
    order = np.arange(len(wall))
    if np.count_nonzero(np.diff(wall) < 0) > len(wall) / 2:
        order = order[::-1]
    step = _commonest_step(wall[order])
    rows = np.flatnonzero(twice[order])
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        here = order[run]
        back = np.flatnonzero(np.diff(wall[here]) <= 0)
        if back.size:
            chosen[here[back[0] + 1 :]] = late[here[back[0] + 1 :]]
            continue
        around = order[[place for place in (run[0] - 1, run[-1] + 1) if 0 <= place < len(order)]]
        in_step = [_in_step(np.concatenate((chosen[around], reading[here])), step) for reading in (early, late)]
        if in_step[1] > in_step[0]:
            chosen[here] = late[here]
        elif in_step[1] == in_step[0] and step < DAY_US:
            chosen[here] = NO_TIME
    return chosen


def _commonest_step(wall: Micros) -> int:
    steps, counts = np.unique(np.abs(np.diff(wall)), return_counts=True)
    return int(steps[np.argmax(counts)]) if len(steps) else 0


def _in_step(times: Micros, step: int) -> int:
    """How many of these times follow on another after one step."""
    return int(np.count_nonzero(np.diff(np.sort(times)) == step))


def _offset_us(quarter: int, zone: ZoneInfo, fold: int) -> int:
    moment = (_EPOCH + timedelta(microseconds=quarter * 900_000_000)).replace(tzinfo=zone, fold=fold)
    offset = moment.utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1e6)
