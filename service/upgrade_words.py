"""How far a migration has come, as the log, the vitals, a bar and systemd are told."""

from typing import Any

from database.upgrading import Upgrade
from service.safe_text import visible


def upgrade_facts(upgrade: Upgrade) -> dict[str, object]:
    """For a line of the log; what is not known is left out."""
    facts: dict[str, object] = {
        "so_far_s": round(upgrade.so_far_s),
        "done": f"{upgrade.done}/{upgrade.total}",
        "revision": upgrade.revision,
    }
    if upgrade.by is not None:
        facts = {"so_far_s": facts["so_far_s"], "by": upgrade.by}
    if upgrade.work is not None:
        facts["work"] = upgrade.work
    if upgrade.share is not None:
        facts["work_done"] = f"{upgrade.share:.0%}"
    if upgrade.left_s is not None:
        facts["work_left_s"] = round(upgrade.left_s)
    return facts


def upgrade_plain(upgrade: Upgrade) -> dict[str, Any]:
    """For the vitals: plain values, and no control characters."""
    return {
        "done": upgrade.done,
        "total": upgrade.total,
        "revision": upgrade.revision,
        "so_far_s": round(upgrade.so_far_s, 1),
        "work": None if upgrade.work is None else visible(upgrade.work),
        "share": None if upgrade.share is None else round(upgrade.share, 3),
        "left_s": None if upgrade.left_s is None else round(upgrade.left_s, 1),
        "by": None if upgrade.by is None else visible(upgrade.by),
    }


def upgrade_words(upgrade: Upgrade) -> str:
    """In a few words: `migration 0015 (7 of 9), index on signals, scanning table`; or which other process does it."""
    work = f", {visible(upgrade.work)}" if upgrade.work is not None else ""
    if upgrade.by is not None:
        return f"done by {visible(upgrade.by)}{work}"
    return f"migration {upgrade.revision} ({upgrade.done + 1} of {upgrade.total}){work}"
