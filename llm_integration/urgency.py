"""How urgent a signal is by its strength, where order is by steps of priority."""

STEPS = (0.5, 0.8)


def strength_step(strength: float) -> int:
    """The priority that a signal's strength gives it: 2 from 0.8, 1 from 0.5, else 0."""
    return sum(strength >= bound for bound in STEPS)
