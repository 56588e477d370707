"""Chains the records of calls by their hashes, so that one that was changed, taken out or put in shows.

Each record has its number in its chain and a hash over the one before and its own content. Of texts, messages and
reply, only the hashes go into it: a chain can be verified after they have been redacted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any

FIELDS = (
    "id", "signal_ids", "backend", "model", "answered_model", "attempt", "prompt_version", "parameters", "reply_id",
    "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd", "queue_wait_ms", "latency_ms", "started_at",
    "finished_at", "http_status", "error_class", "error", "route", "kind", "agent", "run_id", "cost_source", "cached",
    "rung", "parsed", "notes",
)  # fmt: skip
_TIMES = ("started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class Link:
    """A place in a chain: the number of its last record, from 1, and that record's hash."""

    number: int
    hash: str


def first_link(chain: str) -> Link:
    """The place before a chain's first record."""
    return Link(0, sha256(f"tradent calls, chain {chain}".encode()).hexdigest())


def next_link(before: Link, record: Mapping[str, Any]) -> Link:
    """The place of `record`, whose texts may stand as `messages` and `reply` or, redacted, as their hashes."""
    digest = sha256(bytes.fromhex(before.hash))
    digest.update(_canonical(record))
    return Link(before.number + 1, digest.hexdigest())


def redacted(record: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The record with the hashes of its texts, and without the texts that `what` (`llm.audit.redact`) names."""
    kept = {**record, "reply_sha256": _text_hash(record.get("reply"))}
    if what in ("messages", "everything"):
        kept["messages"] = [{"role": role, "sha256": digest} for role, digest in _message_hashes(record["messages"])]
    if what == "everything":
        kept["reply"] = None
    return kept


def _canonical(record: Mapping[str, Any]) -> bytes:
    """The same bytes for the same content, whether it comes from memory, a file or the database."""
    content: dict[str, Any] = {name: _plain(record.get(name)) for name in FIELDS}
    content |= {name: _time(record[name]) for name in _TIMES}
    content["cost_usd"] = _amount(record.get("cost_usd"))
    content["messages"] = [list(pair) for pair in _message_hashes(record["messages"])]
    content["reply"] = _text_hash(record.get("reply")) or record.get("reply_sha256")
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _message_hashes(messages: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(message["role"], _text_hash(message.get("content")) or str(message.get("sha256"))) for message in messages]


def _text_hash(text: str | None) -> str | None:
    return None if text is None else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """Numbers as their shortest decimal, since a database gives 1.0 back as 1; ids as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | Decimal):
        return repr(float(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _time(value: datetime | str) -> str:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _amount(value: object) -> str | None:
    if value is None:
        return None
    try:
        return format(Decimal(str(value)).normalize(), "f")
    except InvalidOperation:
        return str(value)
