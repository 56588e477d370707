"""Which part of a daemon is held to stand still."""

from service.moving import Part


def looks(steps: list[int], working: list[bool], limit_s: float = 2.0) -> list[bool]:
    """What is seen of a part, looked at once a second."""
    counted, busy = iter(steps), iter(working)
    part = Part("the part", lambda: next(busy), lambda: next(counted), limit_s)
    return [part.look(1.0) for _ in steps]


def test_a_part_whose_steps_count_on_moves() -> None:
    assert looks([1, 2, 3, 4, 5, 6], [True] * 6) == [False] * 6


def test_a_part_stands_still_once_no_step_has_ended_for_longer_than_any_takes() -> None:
    assert looks([1, 1, 1, 1, 1], [True] * 5) == [False, False, False, True, True]


def test_a_part_without_work_does_not_stand_still_however_long() -> None:
    assert looks([1] * 6, [True, True, True, False, True, True]) == [False] * 6


def test_a_part_that_moves_again_is_well_again() -> None:
    assert looks([1, 1, 1, 1, 2, 2], [True] * 6) == [False, False, False, True, False, False]
