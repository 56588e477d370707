"""Turns what a server says went wrong into one of our errors."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from llm_integration.backends.wire.reply import Received, parse_json
from llm_integration.errors import (
    BackendError,
    ContextExceeded,
    ModelNotFound,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
)

_LONGEST_MESSAGE = 400
_CONTEXT_CODES = ("exceed_context_size", "context_length_exceeded", "context_window_exceeded")
_CONTEXT_WORDS = (
    "context length", "context size", "context window", "maximum context", "prompt is too long", "input is too long",
)  # fmt: skip
_GONE_CODES = ("model_not_found", "model_not_available", "model_deprecated")
_GONE_WORDS = (
    "not a valid model", "model not found", "unknown model", "no such model", "no endpoints found",
    "has been shut down", "has been deprecated", "has been retired", "no longer available", "does not exist",
    "model identifier is invalid",
)  # fmt: skip
_MODERATION_WORDS = ("moderation", "flagged", "content policy", "safety")
_RATE_CODES = ("rate_limit", "too_many_requests", "resource_exhausted")
_QUOTA_CODES = ("insufficient_quota", "insufficient_credits", "payment_required", "billing")
_QUOTA_WORDS = ("credit balance is too low", "specified api usage limits")
_KEY_CODES = ("authentication", "invalid_api_key", "unauthorized", "permission_denied", "permission_error")
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_OF_STATUS: dict[int, type[BackendError]] = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Unauthorized,
    404: ModelNotFound,
    408: TimedOut,
    410: ModelNotFound,
    424: ServerFailed,
    429: RateLimited,
}


def failure_of_status(received: Received, name: str, now: datetime, clean: Callable[[str], str]) -> BackendError:
    """The error behind a response of 400 and above."""
    try:
        body = parse_json(received.text)
    except ValueError:
        body = None
    whole = _object(body)
    error = whole.get("error") or whole.get("message") or whole.get("Message") or whole.get("detail")
    return failure_of(error or received.text.strip()[:_LONGEST_MESSAGE], whole, received, name, now, clean)


def failure_of(
    error: object,
    body: Mapping[str, object],
    received: Received,
    name: str,
    now: datetime,
    clean: Callable[[str], str],
) -> BackendError:
    """The error that an error object stands for; `body` is what it stood in."""
    fields = _object(error) or {"message": error if isinstance(error, str) else ""}
    metadata = _object(fields.get("metadata"))
    availability = next(filter(None, (_object(place.get("availability")) for place in (fields, metadata, body))), {})
    codes = " ".join(str(place.get(key, "")) for place in (fields, body, metadata)
                     for key in ("code", "type", "error_type", "limit_source")).lower()  # fmt: skip
    said = str(fields.get("message") or "")
    status = received.status if received.status >= 400 else _status_in(fields)
    kind = _class_of(status, codes, said, metadata, availability)
    detail = _one_line(said, metadata, clean) or "no reason given"
    shown = received.status if received.status != 200 else f"an error inside a 200, code {fields.get('code', 'none')}"
    return kind(
        clean(f"{name} answered {shown}: {detail}"),
        status=received.status,
        retry_after_s=_retry_after(received.headers, availability, metadata, status, now),
        headers_at=received.headers_at,
        reply=received.text,
    )


def _class_of(
    status: int | None, codes: str, said: str, metadata: Mapping[str, object], availability: Mapping[str, object]
) -> type[BackendError]:
    said = said.lower()
    moderated = metadata.get("reasons") or metadata.get("flagged_input") or _any(_MODERATION_WORDS, said)
    kind = _class_by_words(status, codes, said)
    if kind is None and status is not None:
        if status == 402 and "flight" in codes:
            kind = RateLimited
        elif (status == 403 and moderated) or status == 501:
            kind = RequestRejected
        else:
            kind = _OF_STATUS.get(status) or (ServerFailed if status >= 500 else RequestRejected)
    if kind is None:
        kind = ServerFailed
    return RequestRejected if kind is ServerFailed and availability.get("retryable") is False else kind


def _class_by_words(status: int | None, codes: str, said: str) -> type[BackendError] | None:
    """What the error's own words say, where they are more exact than the status."""
    ours = status in (None, 400, 404, 413, 422)
    choosy = "requested parameters" in said and "endpoint" in said
    gone = ours and not choosy and _any(_GONE_WORDS, said) and _any(("model", "endpoint"), said)
    unnumbered = status is None
    rules: tuple[tuple[bool, type[BackendError]], ...] = (
        (_any(_CONTEXT_CODES, codes) or (ours and _any(_CONTEXT_WORDS, said)), ContextExceeded),
        (_any(_GONE_CODES, codes) or gone, ModelNotFound),
        (_any(_QUOTA_CODES, codes) or (ours and _any(_QUOTA_WORDS, said)), PaymentRequired),
        (unnumbered and _any(_RATE_CODES, codes), RateLimited),
        (unnumbered and _any(_KEY_CODES, codes), Unauthorized),
        (choosy or (unnumbered and "invalid_request" in codes), RequestRejected),
    )
    return next((kind for applies, kind in rules if applies), None)


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)


def _status_in(fields: Mapping[str, object]) -> int | None:
    """The HTTP status that an error inside a 200 names."""
    code = fields.get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        return None
    return code if 400 <= code <= 599 else None


def _one_line(said: str, metadata: Mapping[str, object], clean: Callable[[str], str]) -> str:
    """What was said, cut to a length only once it is clean: the beginning of a key is not to be left."""
    raw = metadata.get("raw")
    text = clean(f"{said} ({raw})" if isinstance(raw, str) and raw else said)
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + " …"


def _retry_after(
    headers: Mapping[str, str],
    availability: Mapping[str, object],
    metadata: Mapping[str, object],
    status: int | None,
    now: datetime,
) -> float | None:
    """Seconds until the server wants to be asked again, from whichever place names them; None where none does.

    Retry-After is seconds or an HTTP date, which is measured against the server's own Date where it sends one;
    X-RateLimit-Reset is the epoch in milliseconds. Anthropic names, for each of its limits, what remains and when it is
    full again; without Retry-After, the latest of those that are used up counts.
    """
    inner = _object(metadata.get("headers"))
    for value in (headers.get("Retry-After"), availability.get("retry_after"), inner.get("Retry-After")):
        delay_s = _delay(value, headers.get("Date"), now)
        if delay_s is not None:
            return delay_s
    if status == 429:
        reset_ms = _number(headers.get("X-RateLimit-Reset") or inner.get("X-RateLimit-Reset"))
        if reset_ms is not None and reset_ms > 1e11:
            return max(0.0, reset_ms / 1000 - now.timestamp())
        named = [f"anthropic-ratelimit-{limit}" for limit in _LIMITS]
        used_up = [name for name in named if _number(headers.get(f"{name}-remaining")) == 0]
        resets = [_timestamp(headers.get(f"{name}-reset")) for name in used_up]
        known = [moment for moment in resets if moment is not None]
        if known:
            return max(0.0, (max(known) - (_http_date(headers.get("Date")) or now)).total_seconds())
    return None


def _delay(value: object, date: str | None, now: datetime) -> float | None:
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    until = _http_date(value)
    if until is None:
        return None
    return max(0.0, (until - (_http_date(date) or now)).total_seconds())


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _http_date(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _timestamp(value: str | None) -> datetime | None:
    """An RFC 3339 moment; None for what is none."""
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
