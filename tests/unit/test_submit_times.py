"""The histogram of submit times."""

from random import Random

import pytest

from service.submit_times import SubmitTimes


def test_nothing_is_told_before_the_first() -> None:
    """No bar, no time."""
    assert SubmitTimes().p99_ms is None


@pytest.mark.parametrize("count", [1, 50, 99, 100, 101, 5000])
def test_the_p99_is_right_within_a_tenth(count: int) -> None:
    """Against all times, sorted; one that is off the scale counts too."""
    chance, times = Random(count), SubmitTimes()
    took_ms = sorted([chance.lognormvariate(-3, 2) for _ in range(count - 1)] + [1e9])
    for one in took_ms:
        times.took(one / 1000)
    exact = took_ms[count - 1 - count // 100]
    assert times.p99_ms is not None
    assert exact <= times.p99_ms * 1.000001 <= exact * 1.1001 or exact == 1e9
    assert times.max_ms == pytest.approx(1e9)
