"""Places in several quotas taken together, for models that are asked about the same thing: all of them, or none."""

from collections.abc import Sequence
from itertools import groupby

from llm_integration.calling.limiter import Limiter
from llm_integration.calling.window import Entry


async def reserve_all(
    wanted: Sequence[tuple[Limiter, int]], priority: int = 0, deadline: float | None = None
) -> list[Entry]:
    """A place of so many tokens in each limiter, in the order of `wanted`; all are given back where one fails.

    Limiters are taken in the order of their names, each one's places at once, so that two who want the same never wait
    for each other. Put each entry into its request's `reserved` by the limiter's name, and hand what was not used after
    all to `give_back_all`. Raises as Limiter.reserve.
    """
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place][0].name, id(wanted[place][0])))
    taken: dict[int, Entry] = {}
    try:
        for _, group in groupby(order, key=lambda place: id(wanted[place][0])):
            places = list(group)
            limiter = wanted[places[0]][0]
            sizes = [wanted[place][1] for place in places]
            taken.update(zip(places, await limiter.reserve_together(sizes, priority, deadline), strict=True))
    except BaseException:
        for place, entry in taken.items():
            wanted[place][0].give_back(entry)
        raise
    return [taken[place] for place in range(len(wanted))]


def give_back_all(wanted: Sequence[tuple[Limiter, int]], entries: Sequence[Entry]) -> None:
    """Free the places that no call was made with; call it once all calls have ended."""
    for (limiter, _), entry in zip(wanted, entries, strict=True):
        if not entry.begun:
            entry.begun = True
            limiter.give_back(entry)
