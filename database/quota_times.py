"""When a process that cannot reach PostgreSQL may use its share of a quota, and what PostgreSQL's clock shows."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Timing:
    """`ask_s` is the longest wait for PostgreSQL; each process tells of itself every `beat_s`.

    One not heard of for `silent_s` is held to use its share, until `expelled_s` and what may be under way then are
    over; it begins no call after `expelled_s`. A call that ends untold counts for `call_s` and a window more.
    """

    call_s: float = 60.0
    ask_s: float = 1.0
    beat_s: float = 1.0
    silent_s: float = 2.0
    expelled_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ServerTime:
    """What PostgreSQL's clock showed in an answer heard at `heard_at` (monotonic), and how often it had been set."""

    shown: datetime
    heard_at: float
    epoch: int

    def at_least(self, moment: float) -> datetime:
        """What it shows at that moment, or a little later: the way of the answer took time, too."""
        return self.shown + timedelta(seconds=moment - self.heard_at)


@dataclass(slots=True)
class CutOff:
    """The time in which the share may be used (monotonic), from when we were last heard: not before `heard_after`, not
    later than `sent_at` and `ask_s`, as a statement that comes later does nothing.

    Others leave our share alone `silent_s` after that. What they took of it before may be under way for `call_s`, and
    counts for a window more; who holds the whole has it at once, as nobody is granted anything beside that.
    """

    timing: Timing
    lease_s: float
    sent_at: float = -math.inf
    heard_after: float = -math.inf

    def begins_at(self, *, alone: bool) -> float:
        """From when on nobody else can have anything of it."""
        return -math.inf if alone else self.sent_at + self.timing.ask_s + self.timing.silent_s + self.lease_s

    @property
    def ends_at(self) -> float:
        """From when on others may hold us for dead."""
        return self.heard_after + self.timing.expelled_s

    def usable_at(self, moment: float, *, alone: bool) -> float:
        """The first moment from `moment` on at which it may be used; infinity where that is over."""
        first = max(moment, self.begins_at(alone=alone))
        return first if first < self.ends_at else math.inf
