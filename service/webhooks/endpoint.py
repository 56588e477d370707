"""One webhook as it is posted to: what is sent, and what an answer means. Nothing here shows an address or a secret."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from llm_integration.settings_sources import secret
from service.hooks.signature import signed_headers, signing_key
from service.version import VERSION
from service.webhooks.settings import WebhookSettings, require_url
from service.webhooks.templates import template
from trading.errors import SettingsError

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a post ended: `status` None where nothing was answered; `wait_s` how long to wait, where it said so."""

    status: int | None
    error: str | None
    wait_s: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the message has arrived."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook with its secrets. `of` raises SettingsError where one is missing, or is none."""

    hook: WebhookSettings
    url: str = field(repr=False)
    key: bytes | None = field(repr=False)
    authorization: str | None = field(repr=False)

    @classmethod
    def of(cls, hook: WebhookSettings) -> "Endpoint":
        """As the settings and the environment have it."""
        where = f"service.webhooks, {hook.name}"
        url = hook.url or _needed(hook.url_env, where)
        try:
            require_url(url)
        except ValueError as error:
            raise SettingsError([f"{where}: {hook.url_env}: {error}"]) from None
        key = None
        if hook.secret_env is not None:
            _needed(hook.secret_env, where)
            key = signing_key(hook.secret_env)
        authorization = None if hook.authorization_env is None else _needed(hook.authorization_env, where)
        return cls(hook, url, key, authorization)

    async def post(
        self, session: aiohttp.ClientSession, item: Mapping[str, Any], message_id: str, now: datetime
    ) -> Answer:
        """Send one message."""
        try:
            body = orjson.dumps(template(self.hook.template).message(item, self.hook))
        except Exception as error:
            log.exception(f"template {self.hook.template} cannot tell {item.get('signal')}")
            return Answer(None, f"the template failed: {type(error).__name__}")
        timeout = aiohttp.ClientTimeout(total=self.hook.timeout_seconds)
        try:
            async with session.post(
                self.url,
                data=body,
                headers=self._headers(message_id, now, body),
                timeout=timeout,
                allow_redirects=False,
            ) as got:
                return answer_of(got.status, got.headers.get("Retry-After"), now)
        except TimeoutError:
            return Answer(None, f"no answer within {self.hook.timeout_seconds:g} s")
        except aiohttp.ClientConnectorError as error:
            return Answer(None, f"it cannot be connected to: {_why(error.os_error)}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, f"the post failed: {type(error).__name__}")

    def _headers(self, message_id: str, now: datetime, body: bytes) -> dict[str, str]:
        timestamp = int(now.timestamp())
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        if self.key is not None:
            headers = signed_headers(self.key, message_id, timestamp, body)
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        return {**headers, "Content-Type": "application/json", "User-Agent": f"tradent/{VERSION}"}


def answer_of(status: int, retry_after: str | None, now: datetime) -> Answer:
    """What a status means; a redirect is not followed, and so is a failure."""
    if 200 <= status < 300:
        return Answer(status, None)
    said = f"it answered {status}" + (", a redirect, which is not followed" if 300 <= status < 400 else "")
    return Answer(status, said, _wait_s(retry_after, now))


def _wait_s(retry_after: str | None, now: datetime) -> float | None:
    """Seconds, or a date, of a Retry-After; an hour at most."""
    if retry_after is None:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
        except (TypeError, ValueError):
            return None
        wait_s = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return None if math.isnan(wait_s) else min(LONGEST_WAIT_S, max(0.0, wait_s))


def _why(error: OSError) -> str:
    """Why there is no connection; the error's own words would name the address."""
    if error.errno is None:
        return type(error).__name__
    return os.strerror(error.errno) if error.errno > 0 else error.strerror or type(error).__name__


def _needed(name: str | None, where: str) -> str:
    found = secret(name or "")
    if not found:
        raise SettingsError([f"{where}: {name} is not set; put it into the environment or the credentials directory"])
    return found


def secrets_of_webhook(hook: WebhookSettings) -> list[str]:
    """What of a webhook may never be shown."""
    names = (hook.url_env, hook.secret_env, hook.authorization_env)
    return [value for name in names if name and (value := secret(name) or os.environ.get(name))]
