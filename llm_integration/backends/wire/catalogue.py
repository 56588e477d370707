"""Reads OpenRouter's list of models: whether one is alive, what it offers and costs, and what to take instead."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from llm_integration.backends.wire.reply import tokens, usd
from llm_integration.ports import Capabilities, Health, Price

_SOON = timedelta(days=30)
_ROUTING_SUFFIXES = (":nitro", ":floor", ":online", ":exacto", ":extended", ":thinking")
_DEARER_SUFFIXES = (":nitro", ":online")
_PRICES = (("prompt", None), ("completion", None), ("request", "0"))
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


def price_in(model: str, listed: Sequence[Mapping[str, object]]) -> Price | None:
    """What `model` costs by its entry; None where that is not one price, or none is listed.

    Prices are strings, USD per token and per request. Those of routers are -1, as they depend on the choice.
    """
    entry = _find(model, listed)
    pricing = entry.get("pricing") if entry is not None else None
    if not isinstance(pricing, dict) or model.endswith(_DEARER_SUFFIXES):
        return None
    read, written, asked = (usd(pricing.get(kind, absent)) for kind, absent in _PRICES)
    if read is None or written is None or asked is None:
        return None
    return Price(read, written, asked, "openrouter")


def offers_in(model: str, listed: Sequence[Mapping[str, object]]) -> Capabilities:
    """What `model` offers by its entry."""
    entry = _find(model, listed)
    if entry is None:
        return Capabilities(streaming=True)
    provider = entry.get("top_provider")
    sizes = [entry.get("context_length"), provider.get("context_length") if isinstance(provider, dict) else None]
    contexts = [count for count in map(tokens, sizes) if count]
    return Capabilities(
        schema=takes(model, listed, "structured_outputs"),
        json_object=takes(model, listed, "response_format"),
        logprobs=takes(model, listed, "top_logprobs"),
        streaming=True,
        context_tokens=min(contexts, default=None),
    )


def takes(model: str, listed: Sequence[Mapping[str, object]], parameter: str) -> bool | None:
    """Whether a provider of `model` takes a parameter, by its entry; None where that is not said."""
    entry = _find(model, listed)
    names = entry.get("supported_parameters") if entry is not None else None
    return parameter in names if isinstance(names, list) else None


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
