"""Judges a model by OpenRouter's list of models: alive, due to be shut down, or gone, and what to take instead."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from llm_integration.ports import Health

_SOON = timedelta(days=30)
_ROUTING_SUFFIXES = (":nitro", ":floor", ":online", ":exacto", ":extended", ":thinking")
_NO_FAMILY_WORDS = {"preview", "latest", "exp", "experimental", "beta", "free", "instruct"}


def judge_model(model: str, listed: Sequence[Mapping[str, object]], now: datetime) -> Health:
    """Whether `model` can be asked, by the entries of `GET /models`."""
    entry = _find(model, listed)
    if entry is None:
        if model.startswith("~"):
            return Health(True, f"{model} is an alias for the newest of its family")
        return Health(
            False, f"OpenRouter lists no model {model!r}; it may have been shut down{_instead(model, listed)}"
        )
    expires = _moment(entry.get("expiration_date"))
    if expires is None:
        return Health(True, f"{model} is available")
    day = expires.date().isoformat()
    if expires <= now:
        return Health(False, f"{model} was shut down on {day}{_instead(model, listed)}")
    if expires - now <= _SOON:
        return Health(True, f"{model} will be shut down on {day}{_instead(model, listed)}")
    return Health(True, f"{model} is available until {day}")


def _find(model: str, listed: Iterable[Mapping[str, object]]) -> Mapping[str, object] | None:
    base = model
    for suffix in _ROUTING_SUFFIXES:
        base = base.removesuffix(suffix)
    found = None
    for entry in listed:
        if entry.get("id") == model:
            return entry
        if base in (entry.get("id"), entry.get("canonical_slug")):
            found = entry
    return found


def _instead(model: str, listed: Sequence[Mapping[str, object]]) -> str:
    """What to set instead: an alias or the newest model of the same family, where the list shows that it is alive."""
    author, words = _family(model)
    alive = [str(entry["id"]) for entry in sorted(listed, key=_age) if isinstance(entry.get("id"), str)]
    kin = [name for name in alive if name != model and _family(name) == (author, words)]
    aliases = [name for name in kin if name.startswith("~")]
    if aliases:
        return f"; set openrouter/{aliases[0]}, which always names the newest of the family"
    if kin and words:
        alias = f"openrouter/~{author}/{'-'.join(words)}-latest"
        return f"; set openrouter/{kin[0]}, or an alias such as {alias} that names the newest of a family"
    return "; choose one from https://openrouter.ai/models"


def _family(model: str) -> tuple[str, tuple[str, ...]]:
    """Author and the words of a name that are no version: google/gemini-2.5-flash-preview is gemini, flash."""
    author, _, slug = model.removeprefix("~").partition("/")
    words = re.split(r"[-:_]", slug.lower())
    return author, tuple(word for word in words if word not in _NO_FAMILY_WORDS and not re.search(r"\d", word))


def _age(entry: Mapping[str, object]) -> float:
    created = entry.get("created")
    return -float(created) if isinstance(created, int | float) else 0.0


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
