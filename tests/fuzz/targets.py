"""Every target by its name."""

from tests.fuzz import own_targets, wire_targets

TARGETS = {**own_targets.TARGETS, **wire_targets.TARGETS}
